"""Criteria: what a matrix of logits is asked to do, one row (or column) at a time.

A criterion says which values of the matrix to reduce, and how the reductions become one loss per
anchor. It sees a tile, never the matrix:

    values(logits [r, c], weights [r, c] | None, positive(), anchor) -> {name: [r, c]}
    reductions(aligned) -> {name: "logsumexp" | "sum" | "max"}
    loss(statistics {name: [n]}, positive [n] | None, count) -> [n]

`weights` are the target's; they are None, and `aligned` is True, where each anchor's only positive
is its own pair: then `loss` gets that pair's logit, computed outside the matrix. `positive()` makes
the bool mask [r, c] of positives, for those who need one: only own pairs if weights are soft.
`anchor` broadcasts the own pair's logit over the tile. An anchor without negatives costs nothing.

Where `additive`, an anchor's loss is one value summed over its columns, and nothing else: the term is
then one sum over all pairs, which is cheaper (global_matrix).

A criterion that needs statistics of a whole row before it can say what to sum has two passes:
`first(logits, weights, positive) -> values` with `first_reductions` {name: kind}; `anchor` then
broadcasts their results {name: ...} over the tiles of the second pass.

A criterion that remembers something of each example has `losses` in place of `loss` (compositional.py). One of the
views of an example together (view_criteria.py) has a loss for each example, not for each anchor, and is told which
pairs are of one view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.criterion import Criterion
from mmcontrast.objectives.reductions import Values
from mmcontrast.objectives.view_criteria import MultiView, MultiViewDecoupled
from mmcontrast.registry import build


@jax.custom_jvp
def softplus(x: jax.Array) -> jax.Array:
  """log(1 + exp(x)); its derivative is one sigmoid, where jax.nn.softplus takes the logarithm again."""
  return jax.nn.relu(x) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _(primals, tangents):
  return softplus(*primals), jax.nn.sigmoid(*primals) * tangents[0]


@dataclass(frozen=True)
class Softmax(Criterion):
  """Cross entropy of each anchor's softmax with its target (InfoNCE, CLIP, SupCon).

  positives: where several positives are summed. "outside" the logarithm: the mean of their
    log-probabilities, weighted by the target; "inside": the logarithm of their mean probability.
  smoothing: the share of the target spread evenly over all columns (ALIGN), positives included.
  decoupled: leaves the positives out of the denominator (Yeh et al. 2022).
  normalized: whether the target of an anchor is divided by its sum; if not, an anchor counts as
    often as its target sums to (M3CoL's keys, 1-to-K's images).
  """

  positives: str = "outside"
  smoothing: float = 0.0
  decoupled: bool = False
  normalized: bool = True
  counts_negatives: ClassVar[bool] = True

  def __post_init__(self):
    choose(self.positives, ("outside", "inside"), "positives")
    if not 0.0 <= self.smoothing < 1.0:
      raise UserError(f"smoothing: {self.smoothing} is not in [0, 1); ALIGN uses 0.1")
    if self.smoothing and self.positives == "inside":
      raise UserError("smoothing: needs positives='outside'; set one of the two")
    if not self.normalized and (self.smoothing or self.positives == "inside"):
      raise UserError("normalized: False needs positives='outside' and no smoothing; set one of them")

  def values(self, logits, weights, positive, anchor) -> Values:
    values = {"denominator": logits}
    if self.decoupled:
      values["denominator"] = jnp.where(positive(), -jnp.inf, logits)
    if self.smoothing:
      values["all"] = logits
    if weights is not None:
      values["mass"] = weights
      if self.positives == "outside":
        values["target"] = weights * logits
      else:
        some = weights > 0
        log_weights = jnp.log(jnp.where(some, weights, 1.0))
        values["target"] = jnp.where(some, logits + log_weights, -jnp.inf)
    return values

  def reductions(self, aligned: bool) -> dict[str, str]:
    kinds = {"denominator": "logsumexp"}
    if self.smoothing:
      kinds["all"] = "sum"
    if not aligned:
      kinds["mass"] = "sum"
      kinds["target"] = "sum" if self.positives == "outside" else "logsumexp"
    return kinds

  def loss(self, stats: Values, positive, count) -> jax.Array:
    if positive is None:
      mass = jnp.where(stats["mass"] > 0, stats["mass"], 1.0)
      if self.positives == "outside":
        positive = stats["target"] / mass
      else:
        positive = stats["target"] - jnp.log(mass)
    if self.smoothing:
      positive = (1.0 - self.smoothing) * positive + self.smoothing * stats["all"] / count
    denominator = stats["denominator"]
    some = denominator != -jnp.inf  # NaN stays NaN
    loss = jnp.where(some, jnp.where(some, denominator, 0.0) - positive, 0.0)
    return loss if self.normalized or "mass" not in stats else stats["mass"] * loss


@dataclass(frozen=True)
class Decoupled(Softmax):
  """A softmax whose denominator holds negatives only: that is no option here."""

  decoupled: ClassVar[bool] = True


@dataclass(frozen=True)
class Sigmoid(Criterion):
  """Each pair is a yes-or-no question (SigLIP, Zhai et al. 2023).

  An anchor's loss is the *sum* over its columns, `softplus(logit) - weight * logit`; the term's
  mean over anchors is then SigLIP's sum over pairs divided by N.
  """

  default_temperature: ClassVar[float] = 0.1
  additive: ClassVar[bool] = True
  needs_bounded_weights: ClassVar[bool] = True

  def values(self, logits, weights, positive, anchor) -> Values:
    if weights is None:
      return {"pairs": softplus(jnp.where(positive(), -logits, logits))}
    return {"pairs": softplus(logits) - weights * logits}

  def reductions(self, aligned: bool) -> dict[str, str]:
    return {"pairs": "sum"}

  def loss(self, stats: Values, positive, count) -> jax.Array:
    return stats["pairs"]


@dataclass(frozen=True)
class Hinge(Criterion):
  """A negative must score `margin` less than the own pair (VSE++, Faghri et al. 2018).

  reduce: "sum" over negatives, or only the "hardest".

  The public VSE++ code adds up anchors and both directions; a term takes the means, so its value is theirs divided
  by 2 N.
  """

  margin: float = 0.2
  reduce: str = "sum"
  default_temperature: ClassVar[float] = 1.0
  needs_anchor: ClassVar[bool] = True

  def __post_init__(self):
    choose(self.reduce, ("sum", "hardest"), "reduce")

  @property
  def additive(self) -> bool:
    return self.reduce == "sum"

  def values(self, logits, weights, positive, anchor) -> Values:
    if self.reduce == "hardest":
      return {"hardest": jnp.where(positive(), -jnp.inf, logits)}
    return {"costs": jnp.where(positive(), 0.0, jax.nn.relu(self.margin + logits - anchor))}

  def reductions(self, aligned: bool) -> dict[str, str]:
    return {"hardest": "max"} if self.reduce == "hardest" else {"costs": "sum"}

  def loss(self, stats: Values, positive, count) -> jax.Array:
    if self.reduce == "hardest":
      return jax.nn.relu(self.margin + stats["hardest"] - positive)
    return stats["costs"]


@dataclass(frozen=True)
class ReverseKL(Criterion):
  """KL(p || q) of each anchor's softmax p to its target q, made to sum to one.

  The SDM loss of IRRA (Jiang and Ye 2023, arXiv:2303.12501), which adds up both directions: give
  the term weight 2, `target="same_id"`, `direction="both"` and its temperature 0.02.

  floor: added to q inside the logarithm; what a column that is no positive costs, -log(floor).
  """

  floor: float = 1e-8
  default_temperature: ClassVar[float] = 0.02
  first_reductions: ClassVar[Mapping[str, str]] = {"lse": "logsumexp", "mass": "sum"}

  def __post_init__(self):
    if not 0.0 < self.floor < 1.0:
      raise UserError(f"floor: {self.floor} is not in (0, 1); IRRA uses 1e-8")

  def first(self, logits, weights, positive) -> Values:
    return {"lse": logits, "mass": self._weights(logits, weights, positive)}

  def values(self, logits, weights, positive, anchor) -> Values:
    weights = self._weights(logits, weights, positive)
    log_p = logits - anchor["lse"]
    log_p = jnp.where(log_p > 1.0, 0.0, log_p)  # Only in a masked column, which must stay finite.
    log_q = jnp.log(weights / jnp.where(anchor["mass"] > 0, anchor["mass"], 1.0) + self.floor)
    return {"divergence": jnp.exp(log_p) * (log_p - log_q), "mass": weights}

  def reductions(self, aligned: bool) -> dict[str, str]:
    return {"divergence": "sum"} | ({} if aligned else {"mass": "sum"})

  def loss(self, stats: Values, positive, count) -> jax.Array:
    return stats["divergence"]

  def _weights(self, logits, weights, positive) -> jax.Array:
    return positive().astype(logits.dtype) if weights is None else weights


@dataclass(frozen=True)
class EachPositive(Criterion):
  """Each positive apart: -log(e^p / (e^p + sum of e^n over negatives)), then their mean.

  A softmax whose denominator holds one positive at a time: the local losses of TCL (Yang et al.
  2022, arXiv:2202.10401). With one positive it is the softmax.
  """

  first_reductions: ClassVar[Mapping[str, str]] = {"negatives": "logsumexp"}

  def first(self, logits, weights, positive) -> Values:
    return {"negatives": jnp.where(positive(), -jnp.inf, logits)}

  def values(self, logits, weights, positive, anchor) -> Values:
    weights = positive().astype(logits.dtype) if weights is None else weights
    return {"cost": weights * softplus(anchor["negatives"] - logits), "mass": weights}

  def reductions(self, aligned: bool) -> dict[str, str]:
    return {"cost": "sum", "mass": "sum"}

  def loss(self, stats: Values, positive, count) -> jax.Array:
    return stats["cost"] / jnp.where(stats["mass"] > 0, stats["mass"], 1.0)


CRITERIA: dict[str, type[Criterion]] = {
  "softmax": Softmax,
  "decoupled": Decoupled,
  "sigmoid": Sigmoid,
  "hinge": Hinge,
  "reverse_kl": ReverseKL,
  "compositional": Compositional,
  "each_positive": EachPositive,
  "multi_view": MultiView,
  "mv_dhel": MultiViewDecoupled,
}


def build_criterion(config: str | Mapping[str, Any], where: str) -> Criterion:
  """Makes a criterion from a name or {"name": ..., options}; raises UserError naming `where`."""
  return build(CRITERIA, config, where)
