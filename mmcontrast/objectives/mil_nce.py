"""MIL-NCE: several candidate texts of a clip, of which any may be right (Miech et al. 2020, arXiv:1912.06430)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.term import Run


class MilNce(ModuleLoss):
  """The first of `embeddings` is the clip, the others its K candidates: a bag, whose sum of exponentials is positive.

      mean_i  lse of (clip i with all texts, texts of i with all clips) - lse_k of clip i with its text k

  As antoine77340/MIL-NCE_HowTo100M: products of clip i with its texts stand in the first sum twice. An example that
  lacks a candidate lacks it in both sums. The [N, N K] products are made whole.

  Attributes:
    temperature: products are divided by it; a number or a schedule.
    unit: whether vectors are brought to unit length. The released code compares them as they are.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  temperature: Any = 0.07
  unit: bool = True

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    clip, *texts = [normalize(view.pooled) if self.unit else widen(view.pooled) for view in views]
    logits = jnp.stack([products(clip, text) for text in texts], -1) / facts.scheduled["temperature"]  # [N, N, K]
    valid = facts.valid
    logits = jnp.where((valid[:, None] & valid)[..., None], logits, -jnp.inf)
    number = jnp.arange(len(clip))
    bag = jax.nn.logsumexp(_of(logits[number, number], valid), -1)
    everything = jnp.concatenate([logits, jnp.swapaxes(logits, 0, 1)], 1).reshape(len(clip), -1)
    everything = jax.nn.logsumexp(_of(everything, valid), -1)
    count = jnp.maximum(jnp.sum(valid), 1)
    best = jnp.max(jnp.max(logits, -1), 1) <= jnp.max(logits[number, number], -1)
    accuracy = jnp.sum(jnp.where(valid, best, False)) / count
    return jnp.sum(jnp.where(valid, everything - bag, 0.0)) / count, {"accuracy": accuracy}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) < 2:
      raise UserError(f"embeddings: {list(names)} has no candidates; name the clip, then one text or more")


def _of(logits: jax.Array, valid: jax.Array) -> jax.Array:
  """Rows of who does not take part as zeros, whose sum has a gradient."""
  return jnp.where(valid[:, None], logits, 0.0)
