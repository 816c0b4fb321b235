"""FastCLIP: a denominator remembered for each example, so that small batches suffice.

A softmax over the batch underestimates the denominator over the dataset. Wei et al. 2024 (FastCLIP,
arXiv:2407.01445; after SogCLR, arXiv:2202.12387) keep a moving average u of each anchor's

    g_i = mean over its negatives j of exp(s (S_ij - S_ii)),    u_i <- (1 - gamma) u_i + gamma g_i

and divide by u_i where a softmax divides by the batch's own sum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.errors import UserError
from mmcontrast.objectives.criterion import Anchors, Criterion
from mmcontrast.objectives.reductions import Values
from mmcontrast.objectives.term import Run
from mmcontrast.optimization.schedules import extremes


@dataclass(frozen=True)
class Compositional(Criterion):
  """FastCLIP v3's loss (v1 and v0 without `multiply_tau`), of each anchor in each direction:

      2 g / (u + eps) / sg(s)  +  (rho + log u) / s        u constant, s = 1 / temperature

  whose mean over the two directions is the released code's value. Without `multiply_tau` it is the
  only the first part, not divided by s: v1 with a fixed temperature, v0 with a learned one.

  u is stored as its logarithm (exp(s (S_ij - S_ii)) alone overflows float32), -inf for an example
  not seen yet, whose first u is g whatever gamma is, as in the released code.

  rho: pulls the temperature down: 6.5 to 16 in the released commands.
  gamma: weight of the new g in u, a number or a schedule within (0, 1]; the released code's falls
    from 1 to 0.2 by a cosine over half the epochs.
  """

  rho: float = 6.5
  gamma: Any = 1.0
  eps: float = 1e-14
  multiply_tau: bool = True
  unseen: ClassVar[float] = -math.inf

  def __post_init__(self):
    low, high = extremes(self.gamma, "gamma")
    if not 0.0 < low <= high <= 1.0:
      raise UserError(f"gamma: goes from {low:g} to {high:g}, not within (0, 1]; FastCLIP goes from 1 to 0.2")
    if not self.eps > 0:
      raise UserError(f"eps: {self.eps} is not above 0; FastCLIP uses 1e-14")

  @property
  def schedules(self) -> dict[str, Any]:
    return {"gamma": self.gamma}

  def values(self, logits, weights, positive, anchor) -> Values:
    return {"negatives": jnp.where(positive(), -jnp.inf, logits)}

  def reductions(self, aligned: bool) -> dict[str, str]:
    return {"negatives": "logsumexp"}

  def losses(self, stats: Values, anchors: Anchors) -> tuple[jax.Array, jax.Array]:
    """The loss [n] of anchors and their new log u [n]."""
    log_u, scale = anchors.remembered, anchors.scale
    negatives = stats["negatives"]
    some = negatives != -jnp.inf
    log_g = negatives - anchors.positive - jnp.log(jnp.maximum(anchors.count - 1.0, 1.0))
    log_g = jnp.where(some, log_g, 0.0)
    new = lax.stop_gradient(jnp.where(some, self._averaged(log_u, log_g, anchors.scheduled["gamma"]), log_u))
    known = jnp.where(some, new, 0.0)
    loss = 2.0 * jnp.exp(log_g - jnp.logaddexp(known, math.log(self.eps)))
    if self.multiply_tau:
      loss = loss / lax.stop_gradient(scale) + (self.rho + known) / scale
    return jnp.where(some, loss, 0.0), new

  @staticmethod
  def _averaged(log_u, log_g, gamma) -> jax.Array:
    mixed = jnp.logaddexp(jnp.log1p(-gamma) + log_u, jnp.log(gamma) + log_g)
    return jnp.where(log_u == -jnp.inf, log_g, mixed)

  def check(self, term: Any, where: str) -> None:
    one_pair = len(term.query) == len(term.key) == 1 and not term.on_both_sides and term.target.kind == "itself"
    if not one_pair or term.token_keys:
      raise UserError(
        f"{where}.criterion: compositional stores one number for an example's own pair; give it one query, "
        "one other key and target='identity'"
      )
    if term.queue_length:
      raise UserError(
        f"{where}.negatives: compositional estimates the denominator over the whole dataset, which a queue only "
        "approximates; use negatives='batch', or criterion='softmax' with the queue"
      )

  def check_in_run(self, run: Run, where: str) -> None:
    if not run.examples:
      raise UserError(
        f"{where}: compositional stores a number for each example, and the length of the dataset is not "
        "known; use criterion='softmax', or a dataset with a length"
      )
