"""AdaMEOW: InfoNCE whose negatives have learned weights (Yu et al. 2023, "Heterogeneous graph contrastive learning
with meta-path contexts and adaptively weighted negative samples", arXiv:2212.13847)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.term import Run


class AdaptiveNegatives(ModuleLoss):
  """Two views; the pair (i, j) counts in the denominator with a weight that a small network gives it.

      mean_i  log sum_j W_ij exp(a_i . b_j / temperature) - a_i . b_i / temperature,   W_ij = sigmoid(MLP(a_i + b_j))

  As jianxiangyu/MEOW@6a072d7 (adameow): the positive stays in the denominator and is weighted too; the gradient goes
  through the weights. The [N, N, hidden] layer is made whole.

  Attributes:
    temperature: products are divided by it; a number or a schedule.
    unit: whether products are of unit vectors, which the network is not given. The released code takes all as they are.
    hidden: width of the network's one hidden layer, a tanh.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  temperature: Any = 0.4
  unit: bool = True
  hidden: int = 64

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    a, b = (widen(view.pooled) for view in views)
    logits = products(*((normalize(a), normalize(b)) if self.unit else (a, b))) / facts.scheduled["temperature"]
    # The first layer is linear: of a sum, the sum of its values.
    first = nn.Dense(self.hidden, name="hidden", dtype=a.dtype)
    both = first(a)[:, None] + (first(b) - first(jnp.zeros_like(b)))
    weights = nn.Dense(1, name="weight", dtype=a.dtype)(jnp.tanh(both))[..., 0]
    weighted = jnp.where(facts.valid, logits + jax.nn.log_sigmoid(weights), -jnp.inf)
    each = jax.nn.logsumexp(jnp.where(facts.valid[:, None], weighted, 0.0), -1) - jnp.diagonal(logits)
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    pairs = facts.valid[:, None] & facts.valid
    mean = jnp.sum(jnp.where(pairs, jax.nn.sigmoid(weights), 0.0)) / jnp.maximum(jnp.sum(pairs), 1)
    return jnp.sum(jnp.where(facts.valid, each, 0.0)) / count, {"negative_weight": mean}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name two views")
