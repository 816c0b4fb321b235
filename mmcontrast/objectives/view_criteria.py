"""Criteria of whole examples: the statistics of an example's views are joined before the loss.

The anchors are the V views of N examples, each compared with all the others ("query" and "key" the
same list). Such a criterion is called as those of criteria.py, and is also told which pairs are of
one view; `loss` sees an example's views together:

    values(logits [r, c], weights [r, c], positive(), anchor, same_view()) -> {name: [r, c]}
    loss(statistics {name: [n, V]}, positive, count) -> [n]

MV-InfoNCE and MV-DHEL are of Koromilas et al. 2025 (arXiv:2507.06979), DHEL of Koromilas et al. 2024
(arXiv:2405.18045), all as their public code computes them, whose usual temperature is 0.5. Sums
over views are kept as logarithms: the product in that code overflows at small temperatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError
from mmcontrast.objectives.criterion import Criterion
from mmcontrast.objectives.reductions import Values, reduce_values


@dataclass(frozen=True)
class MultiView(Criterion):
  """MV-InfoNCE: one fraction an example, all pairs of its views over all pairs they are in.

      -log  sum_{l != m} exp(s(il, im))  /  sum_l sum_{(j, m) != (i, l)} exp(s(il, jm))

  same_view: whether the denominator holds pairs of one view (the published code) or only pairs of
    different ones (its README).
  """

  same_view: bool = True
  default_temperature: ClassVar[float] = 0.5
  joins_views: ClassVar[bool] = True

  def values(self, logits, weights, positive, anchor, same_view) -> Values:
    denominator = logits if self.same_view else jnp.where(same_view(), -jnp.inf, logits)
    return {"denominator": denominator, "positives": jnp.where(weights > 0, logits, -jnp.inf)}

  def reductions(self, aligned: bool) -> dict[str, str]:
    return {"denominator": "logsumexp", "positives": "logsumexp"}

  def loss(self, stats: Values, positive, count) -> jax.Array:
    denominator = reduce_values("logsumexp", stats["denominator"], 1)
    return _difference(denominator, reduce_values("logsumexp", stats["positives"], 1))

  def check(self, term: Any, where: str) -> None:
    one_list = term.query == term.key and len(term.query) > 1 and term.target.kind == "itself"
    others = term.negatives != "batch" or term.negative_keys or term.negative_queries or term.prototypes
    if not one_list or others:
      raise UserError(
        f"{where}.criterion: it joins the views of an example; make query and key the same list of two or more views, "
        "target 'identity', negatives 'batch', and leave negative_keys, negative_queries and prototypes out"
      )


@dataclass(frozen=True)
class MultiViewDecoupled(MultiView):
  """MV-DHEL: the negatives of a view are the same view of other examples; with two views, DHEL.

      -log  sum_{l < m} exp(s(il, im))  +  sum_l log sum_{j != i} exp(s(il, jl))

  ordered: sums the numerator over l != m (the README of the published code), log 2 less.
  """

  same_view: ClassVar[bool] = True
  ordered: bool = False

  def values(self, logits, weights, positive, anchor, same_view) -> Values:
    values = super().values(logits, weights, positive, anchor, same_view)
    return values | {"denominator": jnp.where(same_view(), logits, -jnp.inf)}

  def loss(self, stats: Values, positive, count) -> jax.Array:
    pairs = reduce_values("logsumexp", stats["positives"], 1)
    return _difference(jnp.sum(stats["denominator"], 1), pairs if self.ordered else pairs - jnp.log(2.0))


def _difference(denominator: jax.Array, numerator: jax.Array) -> jax.Array:
  """`denominator - numerator`; zero, with no gradient, without negatives. NaN stays NaN."""
  some = (denominator != -jnp.inf) & (numerator != -jnp.inf)
  return jnp.where(some, jnp.where(some, denominator, 0.0) - jnp.where(some, numerator, 0.0), 0.0)
