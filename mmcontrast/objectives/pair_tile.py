"""The tile function of a pairwise term: what any part of its matrix holds (global_matrix.py reduces it)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.side import Side, apart, same

Positive = Callable[[], jax.Array]
"""Makes the bool mask [r, c] of positives, for those who need one."""


def term_tile(
  term: Edge, finds_positives: bool, axes: tuple[str, ...], rows: Side, columns: Side, bias: jax.Array | None
) -> tuple[Values, jax.Array | None]:
  """What the criterion keeps of a tile along `axes`, "row:denominator" and so on, and what the metrics do.

  Args:
    finds_positives: whether metrics take positives from the matrix.
    rows, columns: r and c of them.
    bias: added to logits; None without.
  Returns:
    (values [r, c] by name, where a row and a column are not one and the same embedding).
  """
  logits, values = logits_of(term, rows, columns, bias), {}
  for axis in axes:
    weights, positive = target_weights(term, axis, rows, columns)
    of_axis = _criterion_values(term, axis, logits, weights, positive, rows, columns)
    if term.criterion.additive:
      (value,) = of_axis.values()
      anchors, across = anchors_of(axis, rows, columns)
      values["loss"] = values.get("loss", 0.0) + jnp.expand_dims(anchors.mean_weight, across) * value
    else:
      values |= {f"{axis}:{name}": value for name, value in of_axis.items()}
  if term.axes[0] in axes:
    values |= _metric_values(term, finds_positives, logits, positive())
  return values, seen(term, rows, columns)


def term_reductions(term: Edge, finds_positives: bool) -> dict[str, Reduction]:
  """What is kept of the values of `term_tile`."""
  if term.criterion.additive:
    reductions = {"loss": Reduction("loss", "all", "sum")}
  else:
    reductions = reductions_of(term.axes, term.criterion.reductions(term.is_aligned))
  kinds = {"best_negative": "max"}
  if finds_positives:
    kinds |= {"best_positive": "max", "positive_sum": "sum", "positive_count": "sum"}
  if term.score.total is None:
    kinds |= {"all_sum": "sum", "all_count": "sum"}
  return reductions | {name: Reduction(name, term.axes[0], kind) for name, kind in kinds.items()}


def first_tile(
  term: Edge, axes: tuple[str, ...], rows: Side, columns: Side, bias: jax.Array | None
) -> tuple[Values, jax.Array | None]:
  """As `term_tile`, for the first pass of a criterion of two."""
  logits, values = logits_of(term, rows, columns, bias), {}
  for axis in axes:
    first = term.criterion.first(logits, *target_weights(term, axis, rows, columns))
    values |= {f"{axis}:{name}": value for name, value in first.items()}
  return values, seen(term, rows, columns)


def reductions_of(axes: tuple[str, ...], kinds: dict[str, str]) -> dict[str, Reduction]:
  """Of each value along each axis: "row:NAME" -> its reduction."""
  return {f"{axis}:{name}": Reduction(f"{axis}:{name}", axis, kind) for axis in axes for name, kind in kinds.items()}


def anchors_of(axis: str, rows: Side, columns: Side) -> tuple[Side, int]:
  """The anchors of a tile, and the axis of it that their arrays are broadcast along."""
  return (rows, 1) if axis == "row" else (columns, 0)


def logits_of(term: Edge, rows: Side, columns: Side, bias: jax.Array | None) -> jax.Array:
  """[r, c]; of hard negatives with the logarithm of their weight."""
  logits = term.score.tile(rows.x, columns.x)
  if rows.origin is not None or columns.origin is not None:  # hard negatives on this side, anchors on the other
    of_rows, of_columns = _examples_of(rows, columns)
    for_its_example, for_others = (math.log(weight) if weight else 0.0 for weight in term.negative_weights)
    logits = logits + jnp.where(same(of_rows, of_columns), for_its_example, for_others)
  return logits if bias is None else logits + bias


def seen(term: Edge, rows: Side, columns: Side) -> jax.Array | None:
  """Where a row and a column meet, bool [r, c]: not as one and the same embedding, nor as a hard negative that weighs
  nothing; None: everywhere."""
  mask = apart(rows, columns)
  if (rows.origin is None and columns.origin is None) or all(term.negative_weights):
    return mask
  own = same(*_examples_of(rows, columns))
  meets = own if term.negative_weights[0] else ~own
  return meets if mask is None else mask & meets


def _examples_of(rows: Side, columns: Side) -> list[jax.Array]:
  """The examples that rows and columns are of, of hard negatives too."""
  return [side.position if side.origin is None else side.origin for side in (rows, columns)]


def target_weights(term: Edge, axis: str, rows: Side, columns: Side) -> tuple[jax.Array | None, Positive]:
  """The target's weights of a tile (None: aligned), and what makes its mask of positives."""
  weights = None if term.is_aligned else term.target.weights(axis, rows, columns)
  if weights is not None and rows.negative is not None:
    weights = jnp.where(rows.negative[:, None], 0.0, weights)
  if weights is not None and columns.negative is not None:
    weights = jnp.where(columns.negative[None, :], 0.0, weights)
  return weights, partial(_positive, term, weights, rows, columns)


def _positive(term: Edge, weights: jax.Array | None, rows: Side, columns: Side) -> jax.Array:
  """Which pairs of a tile are positive; of soft weights, which make all a little so, those of one example."""
  return weights > 0 if term.target.kind == "set" else same(rows.position, columns.position)


def _criterion_values(
  term: Edge, axis: str, logits: jax.Array, weights: jax.Array | None, positive: Positive, rows: Side, columns: Side
) -> Values:
  """What the criterion keeps of a tile for the anchors of one axis."""
  anchors, across = anchors_of(axis, rows, columns)
  anchor = jax.tree.map(lambda x: jnp.expand_dims(x, across), anchors.anchor)
  views: dict[str, Any] = {"same_view": partial(same, rows.view, columns.view)} if term.criterion.joins_views else {}
  return term.criterion.values(logits, weights, positive, anchor, **views)


def _metric_values(term: Edge, finds_positives: bool, logits: jax.Array, positive: jax.Array) -> Values:
  values = {"best_negative": jnp.where(positive, -jnp.inf, logits)}
  if finds_positives:
    values["best_positive"] = jnp.where(positive, logits, -jnp.inf)
    values["positive_sum"] = jnp.where(positive, logits, 0.0)
    values["positive_count"] = positive.astype(logits.dtype)
  if term.score.total is None:
    values |= {"all_sum": logits, "all_count": jnp.ones_like(logits)}
  return values
