"""A term's tile function, and its reductions over the global matrix and over what anchors see beside it."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from mmcontrast.objectives.edge import AXES, Edge
from mmcontrast.objectives.global_matrix import Values, reduce_tiles
from mmcontrast.objectives.reductions import Reduction, merge, reduce_values
from mmcontrast.objectives.sides import Side, Sides, is_aligned, own_alone, tuple_side
from mmcontrast.objectives.targets import Facts, same
from mmcontrast.objectives.tuple_negatives import Combinations, reduce_parts
from mmcontrast.objectives.view_criteria import MultiView


def apart(rows: Facts, columns: Facts) -> jax.Array | None:
  """Where a row and a column are not one and the same embedding; None when they never are."""
  return ~same(rows, columns, "slot") if "slot" in rows and "slot" in columns else None


def _positive(term: Edge, weights, rows: Facts, columns: Facts) -> jax.Array:
  """Which pairs of a tile are positive: for soft weights, which all are a little, the own ones."""
  return weights > 0 if term.target.kind == "set" else same(rows, columns)


def logits_of(term: Edge, rows: Facts, columns: Facts, shared) -> jax.Array:
  logits = term.score.tile(rows["x"], columns["x"])
  if "origin" in rows or "origin" in columns:  # Hard negatives on this side, anchors on the other.
    one, another = (side.get("origin", side["position"]) for side in (rows, columns))
    own, other = map(math.log, term.negative_weights)
    logits = logits + jnp.where(one[:, None] == another[None, :], own, other)
  return logits if isinstance(shared, tuple) else logits + shared


def target_weights(term: Edge, axis: str, rows: Facts, columns: Facts):
  """The target's weights of a tile (None: aligned), and what makes its mask of positives."""
  weights = None if is_aligned(term) else term.target.weights(axis, rows, columns)
  if weights is not None and "negative" in rows:
    weights = jnp.where(rows["negative"][:, None], 0.0, weights)
  if weights is not None and "negative" in columns:
    weights = jnp.where(columns["negative"][None, :], 0.0, weights)
  return weights, partial(_positive, term, weights, rows, columns)


def term_tile(term: Edge, counted, axes, rows: Facts, columns: Facts, shared):
  """The tile function of a term (global_matrix) along `axes`: its criterion's values, its metrics'."""
  logits, values = logits_of(term, rows, columns, shared), {}
  for axis in axes:
    weights, positive = target_weights(term, axis, rows, columns)
    side, across = (rows, 1) if axis == "row" else (columns, 0)
    anchor = jax.tree.map(lambda x, a=across: jnp.expand_dims(x, a), side.get("anchor"))
    joined = isinstance(term.criterion, MultiView)
    same_view = {"same_view": partial(same, rows, columns, "view")} if joined else {}
    found = term.criterion.values(logits, weights, positive, anchor, **same_view)
    if term.criterion.additive:
      (value,) = found.values()
      values["loss"] = values.get("loss", 0.0) + jnp.expand_dims(side["in_mean"], across) * value
    else:
      values |= {f"{axis}:{name}": value for name, value in found.items()}
  if AXES[term.direction][0] not in axes:
    return values, apart(rows, columns)
  positive = positive()
  values["best_negative"] = jnp.where(positive, -jnp.inf, logits)
  if counted:
    values["best_positive"] = jnp.where(positive, logits, -jnp.inf)
    values["positive_sum"] = jnp.where(positive, logits, 0.0)
    values["positive_count"] = positive.astype(logits.dtype)
  if term.score.total is None:
    values["all_sum"], values["all_count"] = logits, jnp.ones_like(logits)
  return values, apart(rows, columns)


def reductions_of(term: Edge, axes, aligned: bool, counted: bool) -> dict[str, Reduction]:
  if term.criterion.additive:
    found = {"loss": Reduction("loss", "all", "sum")}
  else:
    found = {
      f"{axis}:{name}": Reduction(f"{axis}:{name}", axis, kind)
      for axis in axes
      for name, kind in term.criterion.reductions(aligned).items()
    }
  found["best_negative"] = Reduction("best_negative", axes[0], "max")
  if counted:
    found["best_positive"] = Reduction("best_positive", axes[0], "max")
    for name in ("positive_sum", "positive_count"):
      found[name] = Reduction(name, axes[0], "sum")
  if term.score.total is None:
    for name in ("all_sum", "all_count"):
      found[name] = Reduction(name, axes[0], "sum")
  return found


def reduce_matrix(term: Edge, function, reductions, sides: Sides, shared, **options) -> Values:
  """Statistics over what the term's anchors see; `function(axes, ...)` is the tile along `axes`."""
  rows, columns, more = sides
  axes = AXES[term.direction]
  if own_alone(term):
    stats = _own_pairs(partial(function, axes), reductions, rows, columns, shared)
  else:
    stats = _reduce(partial(function, axes), reductions, rows, columns, shared, **options)
  for axis in axes:
    kept = {name: r for name, r in reductions.items() if r.axis in (axis, "all")}
    for side in more[axis]:
      if isinstance(side, Combinations):
        found = _combined(term, partial(function, (axis,)), kept, rows, side, shared, **options)
      else:
        pair = (rows, side) if axis == "row" else (side, columns)
        found = _reduce(partial(function, (axis,)), kept, *pair, shared, **options)
      stats |= {name: merge(r.kind, stats[name], found[name]) for name, r in kept.items()}
  return stats


def _reduce(function, reductions, rows: Side, columns: Side, shared, **options) -> Values:
  masks = {"row_mask": rows.mask, "column_mask": columns.mask}
  return reduce_tiles(function, reductions, rows.facts, columns.facts, shared, **masks, **options)


def _combined(term: Edge, function, reductions, rows: Side, columns: Combinations, shared, **options) -> Values:
  """Statistics of rows over all combinations of keys, a part of them at a time."""

  def reduce(arguments, number):
    rows, columns, shared = arguments
    side = tuple_side(term, *columns.part(number))
    return _reduce(function, reductions, rows, side, shared, **options)

  kinds = {name: r.kind for name, r in reductions.items()}
  return reduce_parts(reduce, kinds, columns.parts, (rows, columns, shared))


def _own_pairs(function, reductions, rows: Side, columns: Side, shared) -> Values:
  """Statistics of anchors with one other each: their own."""
  one = jax.tree.map(lambda x: x[:, None], (rows.facts, columns.facts))
  values, _ = jax.vmap(function, (0, 0, None))(*one, shared)
  return {
    name: reduce_values(r.kind, values[r.value][:, 0, 0], 0) if r.axis == "all" else values[r.value][:, 0, 0]
    for name, r in reductions.items()
  }
