"""Statistics over all that a term's anchors see: the matrix of the batch, and what stands beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax

from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.global_matrix import reduce_tiles
from mmcontrast.objectives.reductions import Reduction, Values, merge, reduce_values
from mmcontrast.objectives.side import Side
from mmcontrast.objectives.sides import Sides, tuple_side
from mmcontrast.objectives.tuple_negatives import Combinations, reduce_parts

Tile = Callable[..., tuple[Values, jax.Array | None]]
"""tile(axes, rows, columns, bias) -> (values [r, c] by name, mask): a tile along some axes."""
Reductions = Mapping[str, Reduction]


def reduce_matrix(
  term: Edge, tile: Tile, reductions: Reductions, sides: Sides, bias: jax.Array | None, **options: Any
) -> Values:
  """Statistics over what the term's anchors see: [n] of rows, [m] of columns, or a scalar.

  Args:
    options: of `global_matrix.reduce_tiles`.
  """
  of_batch = partial(tile, term.axes)
  if term.compares_pairs_only:
    stats = _reduce_pairs(of_batch, reductions, sides.rows, sides.columns, bias)
  else:
    stats = _reduce(of_batch, reductions, sides.rows, sides.columns, bias, **options)
  for axis in term.axes:
    of_axis, kept = partial(tile, (axis,)), {name: r for name, r in reductions.items() if r.axis in (axis, "all")}
    for side in sides.more[axis]:
      rows, columns = (sides.rows, side) if axis == "row" else (side, sides.columns)
      stats |= _merged(kept, stats, _reduce(of_axis, kept, rows, columns, bias, **options))
    if axis == "row" and sides.combinations is not None:
      stats |= _merged(kept, stats, _reduce_combinations(term, of_axis, kept, sides, bias, **options))
  return stats


def _merged(reductions: Reductions, stats: Values, more: Values) -> Values:
  return {name: merge(r.kind, stats[name], more[name]) for name, r in reductions.items()}


def _reduce(tile: Tile, reductions: Reductions, rows: Side, columns: Side, bias, **options: Any) -> Values:
  masks = {"row_mask": rows.mask, "column_mask": columns.mask}
  return reduce_tiles(tile, reductions, rows.replace(mask=None), columns.replace(mask=None), bias, **masks, **options)


def _reduce_combinations(term: Edge, tile: Tile, reductions: Reductions, sides: Sides, bias, **options: Any) -> Values:
  """Statistics of rows over all combinations of keys, a part of them at a time."""

  def reduce(arguments: tuple[Side, Combinations, Any], number: jax.Array) -> Values:
    rows, combinations, bias = arguments
    return _reduce(tile, reductions, rows, tuple_side(term, *combinations.part(number)), bias, **options)

  kinds = {name: r.kind for name, r in reductions.items()}
  return reduce_parts(reduce, kinds, sides.combinations.parts, (sides.rows, sides.combinations, bias))


def _reduce_pairs(tile: Tile, reductions: Reductions, rows: Side, columns: Side, bias) -> Values:
  """Statistics of row i with column i alone."""
  pairs = jax.tree.map(lambda x: x[:, None], (rows.replace(mask=None), columns.replace(mask=None)))
  values, _ = jax.vmap(tile, (0, 0, None))(*pairs, bias)
  of_pairs = {name: values[r.value][:, 0, 0] for name, r in reductions.items()}
  return {
    name: reduce_values(r.kind, of_pairs[name], 0) if r.axis == "all" else of_pairs[name]
    for name, r in reductions.items()
  }
