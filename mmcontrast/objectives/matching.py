"""Whether what a fusion reads belongs together: two classes, of pairs as they are and of drawn ones."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.term import Run


class Matching(ModuleLoss):
  """Cross entropy of two logits, "mismatched" 0 and "matched" 1, a mean over all pairs (ALBEF, arXiv:2107.07651).

      match = dict(module="matching", embeddings=("fusion(text[0], image[0])/match",
                                                  "fusion(text[0]~image_to_text, image[0])/match",
                                                  "fusion(text[0], image[0]~text_to_image)/match"))

  A path with a "~" is of another example in part (drawn_pairs.py), and so mismatched; the others match. An example for
  which there is no other takes no part: with a batch of one the loss is 0.
  """

  TAKES = ("logits",)

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: logits [N, 2] each."""
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    losses, right = [], {0: [], 1: []}
    for name, view in zip(facts.names, views, strict=True):
      matched = int(not parse_embedding(name).drawn)
      logits = view.logits.astype(jnp.promote_types(view.logits.dtype, jnp.float32))
      each = -jax.nn.log_softmax(logits, -1)[:, matched]
      losses.append(jnp.sum(jnp.where(facts.valid, each, 0.0)) / count)
      right[matched].append(jnp.sum(facts.valid & (jnp.argmax(logits, -1) == matched)) / count)
    told = {"matched_right": right[1], "mismatched_right": right[0]}
    return sum(losses) / len(losses), {key: sum(shares) / max(len(shares), 1) for key, shares in told.items()}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    drawn = [bool(parse_embedding(name).drawn) for name in names]
    if all(drawn) or not any(drawn):
      kinds = "drawn" if all(drawn) else "as they are"
      raise UserError(
        f"embeddings: all {len(names)} pairs are {kinds}; name pairs that match and drawn ones, such as "
        "'fusion(text[0], image[0])/match' and 'fusion(text[0]~image_text, image[0])/match'"
      )
    for head in (parse_embedding(name).head for name in names):
      if run.head_dims.get(head, 2) != 2:
        raise UserError(
          f"embeddings: head {head!r} gives {run.head_dims[head]} logits, and a pair matches or does not; set "
          f"config.heads.{head}.dim=2"
        )
