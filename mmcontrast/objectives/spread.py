"""The spread of a batch's similarities, of which a temperature can be a function (`Temperature.spread`).

Ours: CLSR (Luo et al., arXiv:2309.08839) adapts the temperature to the data by a rule that could not be obtained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.pair_tile import reductions_of, seen
from mmcontrast.objectives.reductions import Values
from mmcontrast.objectives.side import Side
from mmcontrast.objectives.sides import Sides


def standard_deviation(term: Edge, matrix: Callable[..., Values], sides: Sides) -> jax.Array:
  """The standard deviation of all scores that the term's anchors see, positives too, without gradient: a scalar.

  A pair that is seen from both sides counts twice. A second pass over the matrix, forward only.

  Args:
    matrix: `pair_matrix.reduce_matrix` of the term.
    sides: not scaled by a temperature.
  """
  kinds = {"score": "sum", "square": "sum", "count": "sum"}
  stats = matrix(partial(_tile, term), reductions_of(term.axes, kinds), lax.stop_gradient(sides), None)

  def total(name: str) -> jax.Array:
    sums = 0.0
    for axis in term.axes:
      of_anchors, mask = stats[f"{axis}:{name}"], sides.of(axis).mask
      sums += jnp.sum(of_anchors if mask is None else jnp.where(mask, of_anchors, 0.0))
    return sums

  count = jnp.maximum(total("count"), 1.0)
  mean = total("score") / count
  return jnp.sqrt(jnp.maximum(total("square") / count - mean**2, 0.0))


def _tile(term: Edge, axes: tuple[str, ...], rows: Side, columns: Side, bias: None) -> tuple[Values, jax.Array | None]:
  scores = term.score.tile(rows.x, columns.x)
  values = {"score": scores, "square": scores**2, "count": jnp.ones_like(scores)}
  return {f"{axis}:{name}": value for axis in axes for name, value in values.items()}, seen(term, rows, columns)
