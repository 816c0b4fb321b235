"""Those patches of an image that a text is about, or the others, in training: SyCoCa's attentive masks.

    towers.related = dict(name="attentive_mask", reads=("image", "text"), hides="unrelated")
    towers.unrelated = dict(name="attentive_mask", reads=("image", "text"), hides="related")

It learns nothing. Source: SyCoCa (arXiv:2401.02137): a patch is related as much as the most similar token of the text;
which vectors are compared there is not known, here it is what the towers make, so that these should be compared as
they are by a contrastive term too (heads "identity").
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError


class AttentiveMask(nn.Module):
  """Leaves out, in training, the share of an image's patches that a text is most, or least, about.

      s_i = max over the text's tokens j of cos(patch_i, word_j)

  The choice has no gradient; of equals the first stays. In evaluation, where there may be no text yet, all patches come
  out as they are.

  Attributes:
    share: of the patches that is left out (SyCoCa: 0.5).
    hides: "related": the patches with the largest s, as for masked images; "unrelated": those with the smallest, as for
      captions.
  """

  READS: ClassVar = 2
  PASSES: ClassVar = True  # in evaluation what it reads first comes out of it, see models/decoding.py
  CHOICES: ClassVar = {"hides": ("related", "unrelated")}

  share: float = 0.5
  hides: str = "unrelated"

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.share < 1:
      raise UserError(f"share: {self.share!r} is not a share of the patches; give 0 or more and less than 1")

  @nn.compact
  def __call__(self, first: Encoded, second: Encoded, *others: Encoded, train: bool) -> Encoded:
    """first: tokens [B, L, D] of an image, second: [B, S, D] of a text with their mask -> tokens [B, K, D] at `places`,
    and pooled, their mean; in evaluation `first`."""
    grid = first.grid
    if others:
      raise UserError(f"an attentive_mask reads an image and a text, not {2 + len(others)} towers; name two")
    if grid is None:
      raise UserError("reads patches of an image first, and these tokens are in no grid; let it read an image tower")
    if first.tokens.shape[-1] != second.tokens.shape[-1]:
      raise UserError(
        f"compares patches with words, and these are vectors of {first.tokens.shape[-1]} and of "
        f"{second.tokens.shape[-1]} numbers; make the towers equally wide"
      )
    if not train:
      return first
    scores = relatedness(first.tokens, second.tokens, second.mask)
    places = kept_places(scores if self.hides == "unrelated" else -scores, self.share)
    tokens = jnp.take_along_axis(first.tokens, places[..., None], 1)
    return Encoded(tokens.mean(1), tokens, places=places, whole=grid)


def relatedness(patches: jax.Array, words: jax.Array, mask: jax.Array | None) -> jax.Array:
  """[B, L, D], [B, S, D] and which of the latter are real [B, S] -> float32 or wider [B, L]: the largest cosine of each
  patch with a word."""

  def unit(x):
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))

  cosines = jnp.einsum("bld,bsd->bls", unit(patches), unit(words))
  return jnp.max(cosines if mask is None else jnp.where(mask[:, None], cosines, -2.0), -1)


def kept_places(scores: jax.Array, share: float) -> jax.Array:
  """int32 [B, K], ascending: the places of the largest of the scores [B, L], without the smallest `share` of them."""
  kept = scores.shape[1] - round(share * scores.shape[1])
  order = jnp.argsort(-jax.lax.stop_gradient(scores), axis=1, stable=True)
  return jnp.sort(order[:, :kept], axis=1)
