"""Patches grouped by what they say to a sentence or a word, and compared with it: DreamLIP's sub-captions
(Zheng et al., arXiv:2403.17007) and SPARC's fine-grained loss (Bica et al., arXiv:2401.09865)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, nearest
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.tokens import make_tokens


class Grouping(ModuleLoss):
  """The first of `embeddings` are an image's patches, the others K sentences of it, or the words of one text.

      C_kp = t_k . v_p,  scaled to [0, 1] over p;  w_kp = C_kp where it is `threshold` or more, else 0, to a sum of 1
      g_k = sum_p w_kp v_p, of unit length: the image as sentence k sees it

  and g_k is to find t_k, and t_k to find g_k, by cross entropy with products divided by `temperature`. "batch": among
  all sentences of the batch, as DreamLIP's code means (it puts sentences of several captions with wrong images).
  "example": among those of the same image, as SPARC and DreamLIP's paper; a mean over all sentences.

  Attributes:
    negatives: "batch" or "example".
    threshold: below which a patch does not belong to a sentence; below 0: one over the number of patches.
    temperature: a number or a schedule.
  """

  TAKES: ClassVar[tuple[str, ...]] = ()
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)
  CHOICES: ClassVar = {"negatives": ("batch", "example")}

  negatives: str = "batch"
  threshold: float = 0.0
  temperature: Any = 0.07

  def __post_init__(self):
    super().__post_init__()
    if self.threshold > 1:
      raise UserError(
        f"threshold: {self.threshold} is above 1, which no patch reaches; SPARC uses one over their number"
      )

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, P, D], then pooled [N, D] each, or tokens [N, K, D]."""
    if self.is_initializing():
      return jnp.float32(0), {}
    patches = make_tokens(views[0].tokens, views[0].mask)
    if views[1].tokens is not None:
      words = make_tokens(views[1].tokens, views[1].mask)
      texts, there = normalize(words.vectors), words.mask
    else:
      texts = jnp.stack([normalize(view.pooled) for view in views[1:]], 1)
      there = jnp.ones(texts.shape[:2], bool)
    there &= facts.valid[:, None] & jnp.any(patches.mask, 1, keepdims=True)
    groups, share = grouped(normalize(patches.vectors), patches.mask, texts, self.threshold)
    groups = groups / facts.scheduled["temperature"]
    loss = within(groups, texts, there) if self.negatives == "example" else across(groups, texts, there, facts)
    used = jnp.sum(jnp.where(there, share, 0.0)) / jnp.maximum(jnp.sum(there), 1)
    return loss, {"patches": used}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) < 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name an image's tokens, then its sentences")
    fields = [run.fields(parse_embedding(name).head) for name in names]
    giving = [head for head in run.heads if "tokens" in run.fields(head)]
    if "tokens" not in fields[0]:
      head = parse_embedding(names[0]).head
      raise UserError(
        f"embeddings: the first is of patches, and head {head!r} gives no tokens; {nearest(head, giving)}"
      )
    if len(names) > 2 and any("pooled" not in made for made in fields[1:]):
      raise UserError("embeddings: several sentences are vectors, of heads such as 'linear'; or name one text's tokens")


def grouped(patches: jax.Array, mask: jax.Array, texts: jax.Array, threshold: float) -> tuple[jax.Array, jax.Array]:
  """Unit patches [N, P, D], their mask [N, P] and unit texts [N, K, D] -> (groups [N, K, D] of unit length, the share
  of the patches that each text keeps [N, K]).

  Source: SPARC (arXiv:2401.09865), section 3.2; the scaling, the threshold and the weights have gradients.
  """
  alike = jnp.einsum("nkd,npd->nkp", texts, patches, precision="highest")
  real = mask[:, None, :]
  low = jnp.min(jnp.where(real, alike, jnp.inf), -1, keepdims=True)
  high = jnp.max(jnp.where(real, alike, -jnp.inf), -1, keepdims=True)
  several = high > low  # not where all patches are alike, or none is there: then all weigh the same
  scaled = jnp.where(several, (alike - low) / jnp.where(several, high - low, 1.0), 1.0)
  least = 1.0 / jnp.maximum(jnp.sum(mask, 1), 1)[:, None, None] if threshold < 0 else threshold
  weights = jnp.where(real & (scaled >= least), scaled, 0.0)
  total = jnp.sum(weights, -1, keepdims=True)
  groups = jnp.einsum("nkp,npd->nkd", weights / jnp.where(total > 0, total, 1.0), patches, precision="highest")
  count = jnp.maximum(jnp.sum(mask, 1), 1)[:, None]
  return normalize(groups), jnp.sum(weights > 0, -1) / count


def within(groups: jax.Array, texts: jax.Array, there: jax.Array) -> jax.Array:
  """The mean over sentences of both cross entropies among the sentences of an example."""
  logits = jnp.einsum("nkd,nld->nkl", groups, texts, precision="highest")
  each = sum(_cross_entropy(x, there) for x in (logits, jnp.swapaxes(logits, 1, 2))) / 2
  return jnp.sum(jnp.where(there, each, 0.0)) / jnp.maximum(jnp.sum(there), 1)


def _cross_entropy(logits: jax.Array, there: jax.Array) -> jax.Array:
  """[N, K, K], [N, K] -> [N, K]."""
  masked = jnp.where(there[:, None, :], logits, -jnp.inf)
  masked = jnp.where(there[:, :, None], masked, 0.0)
  return jax.nn.logsumexp(masked, -1) - jnp.diagonal(masked, axis1=1, axis2=2)


def across(groups: jax.Array, texts: jax.Array, there: jax.Array, facts: Facts) -> jax.Array:
  """The same among all sentences of the batch."""
  a, b, keep = (x.reshape(-1, *x.shape[2:]) for x in (groups, texts, there))
  own = jnp.sum(a * b, -1)
  kinds = {axis: Reduction("dots", axis, "logsumexp") for axis in ("row", "column")}
  stats = facts.reduce(_dots, kinds, {"x": a}, {"x": b}, row_mask=keep, column_mask=keep)
  each = (jnp.where(keep, stats["row"], 0.0) + jnp.where(keep, stats["column"], 0.0)) / 2 - own
  return jnp.sum(jnp.where(keep, each, 0.0)) / jnp.maximum(jnp.sum(keep), 1)


def _dots(rows: Any, columns: Any, shared: Any) -> tuple[Values, None]:
  return {"dots": products(rows["x"], columns["x"])}, None
