"""Captions written word by word: the logits of a decoder, and the words that come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.term import Run

MEANS = ("tokens", "sentences")


class Captioning(ModuleLoss):
  """Cross entropy of logits [N, L, V] with the next token of their text, which padding is none of.

      caption = dict(module="caption", embeddings="decoder(text[0], image[0])/words", weight=2.0)

  Position i predicts token i + 1 of the text at the first end of the path, whose ids are a fact: data.facts=("ids",),
  which is -1 where there is padding.
  Several embeddings are averaged. Source: open_clip, CoCaLoss (CoCa, arXiv:2205.01917, eq. 3).

  Attributes:
    mean: over all "tokens" of the batch (open_clip), or over "sentences", each the mean over its tokens.
    smoothing: how much of the target is spread evenly over all words (Szegedy et al., arXiv:1512.00567).
  """

  TAKES = ("logits",)
  VIEW_FACTS = ("ids",)
  CHOICES: ClassVar = {"mean": MEANS}

  mean: str = "tokens"
  smoothing: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.smoothing < 1:
      raise UserError(f"smoothing: {self.smoothing} is not in [0, 1); 0 is none")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: logits [N, L, V] each."""
    if self.is_initializing():
      return jnp.float32(0), {}
    losses, hits = [], []
    for name, view in zip(facts.names, views):
      loss, hit = self._of(view.logits, facts.of_view(name, "ids"), facts.valid)
      losses.append(loss)
      hits.append(hit)
    return sum(losses) / len(losses), {"accuracy": sum(hits) / len(hits)}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    for name, part, does in (("bos", "start", "begin"), ("eos", "end", "end")):
      if run.token_ids.get(name, 0) < 0:
        raise UserError(
          f"module: config.data.token_ids.{name} is {run.token_ids[name]}: a tokenizer without {part} token, with "
          f"which captions {does}; give a config.data.tokenizer that has one"
        )

  def _of(self, logits: jax.Array, ids: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, next_ids = logits[:, :-1], ids[:, 1:]
    each = token_losses(logits, jnp.maximum(next_ids, 0), self.smoothing)
    weight = ((next_ids >= 0) & valid[:, None]).astype(each.dtype)
    if self.mean == "sentences":
      weight = weight / jnp.maximum(weight.sum(1, keepdims=True), 1)
    count = jnp.maximum(weight.sum(), 1e-9)
    hit = (jnp.argmax(logits, -1) == next_ids) & (weight > 0)
    return jnp.sum(jnp.where(weight > 0, each, 0.0) * weight) / count, jnp.sum(hit * weight) / count


def token_losses(logits: jax.Array, ids: jax.Array, smoothing: float = 0.0) -> jax.Array:
  """Cross entropy of logits [..., V] with ids [...], in float32 or wider: [...]."""
  logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  wanted = jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
  if smoothing:
    wanted = (1 - smoothing) * wanted + smoothing * logits.mean(-1)
  return jax.nn.logsumexp(logits, axis=-1) - wanted
