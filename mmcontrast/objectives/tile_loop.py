"""The loop over the tiles of one block of the matrix on one device, forward and backward.

One tile serves both directions: row statistics accumulate over blocks, column statistics (and
column gradients) belong to the block.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.reductions import (
  IDENTITY,
  Reduction,
  cotangent,
  masked,
  merge_state,
  side_mask,
  tile_state,
)

State = dict[str, tuple[jax.Array, ...]]


class Side(NamedTuple):
  """One side of the matrix on one device; every leaf [n, ...]."""

  leaves: list[jax.Array]
  mask: jax.Array | None
  state: State  # Forward: statistics so far. Backward: the final ones.
  g: Values  # Backward: cotangents of the statistics, of those that have one.


class TileLoop:
  """Goes over the tiles of one block of the matrix, on one device."""

  def __init__(
    self, tile, by_axis: dict[str, dict[str, Reduction]], lengths: tuple[int, int], dtype
  ):
    self.tile, self.by_axis, self.lengths, self.dtype = tile, by_axis, lengths, dtype

  def identity(self, axis: str, leaves: list[jax.Array]) -> State:
    """The statistics of no columns (or rows), [n] each."""
    n = leaves[0].shape[0]
    return {
      name: (jnp.full(n, IDENTITY[r.kind], self.dtype),)
      + ((jnp.zeros(n, self.dtype),) if r.kind == "max" else ())
      for name, r in self.by_axis[axis].items()
    }

  def _over_tiles(self, body, carry, row_side: Side, column_side: Side):
    """Scans `body(carry, i, j, row tile, column tile)` over all tiles, rows fastest."""
    r, c = self.lengths
    row_count, column_count = row_side.leaves[0].shape[0] // r, column_side.leaves[0].shape[0] // c

    def step(carry, k):
      i, j = (k % row_count) * r, (k // row_count) * c
      return body(carry, i, j, _cut(row_side, i, r), _cut(column_side, j, c)), None

    return lax.scan(step, carry, jnp.arange(row_count * column_count))[0]

  def forward(self, row_side: Side, column_side: Side, shared) -> tuple[State, State]:
    """Adds the block's columns to the row statistics; returns them and the columns' own."""

    def body(carry, i, j, rows: Side, columns: Side):
      values, mask = self.tile(rows.leaves, columns.leaves, shared)
      states = []
      for state, axis, at, side in (
        (carry[0], "row", i, side_mask(columns.mask, 0)),
        (carry[1], "column", j, side_mask(rows.mask, 1)),
      ):
        new = {}
        for name, (value, _, kind) in self.by_axis[axis].items():
          seen = masked(values[value], kind, mask, side)
          part = tile_state(kind, seen, 1 if axis == "row" else 0)
          old = tuple(lax.dynamic_slice_in_dim(x, at, part[0].shape[0]) for x in state[name])
          merged = merge_state(kind, old, part)
          new[name] = tuple(
            lax.dynamic_update_slice_in_dim(x, y, at, 0) for x, y in zip(state[name], merged)
          )
        states.append(new)
      return tuple(states)

    start = (row_side.state, self.identity("column", column_side.leaves))
    return self._over_tiles(body, start, row_side, column_side)

  def backward(self, row_side: Side, column_side: Side, shared, wanted, grads):
    """Adds the block's gradients to `grads` (rows, shared); returns them and the columns' own."""

    def body(carry, i, j, rows: Side, columns: Side):
      active, tile = _only(wanted, (rows.leaves, columns.leaves, shared), self.tile)
      values, pull, mask = jax.vjp(tile, *active, has_aux=True)
      cotangents = {name: jnp.zeros((), x.dtype) for name, x in values.items()}
      for axis, own, side in (
        ("row", rows, side_mask(columns.mask, 0)),
        ("column", columns, side_mask(rows.mask, 1)),
      ):
        for name, (value, _, kind) in self.by_axis[axis].items():
          seen = masked(values[value], kind, mask, side)
          g = cotangent(kind, seen, own.state[name], own.g[name], 1 if axis == "row" else 0)
          if kind != "logsumexp":  # exp(-inf) is zero already.
            g = masked(g, "sum", mask, side)
          cotangents[value] += g
      cotangents = {name: jnp.broadcast_to(g, values[name].shape) for name, g in cotangents.items()}
      found = pull(cotangents)
      return (
        [_add_at(total, x, i) for total, x in zip(carry[0], found[0])],
        [_add_at(total, x, j) for total, x in zip(carry[1], found[1])],
        [total + x for total, x in zip(carry[2], found[2])],
      )

    columns = [jnp.zeros_like(x) for x in chosen(column_side.leaves, wanted[1])]
    return self._over_tiles(body, (grads[0], columns, grads[1]), row_side, column_side)


def _cut(side: Side, start, length: int) -> Side:
  return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), side)


def _add_at(total: jax.Array, x: jax.Array, start) -> jax.Array:
  old = lax.dynamic_slice_in_dim(total, start, x.shape[0])
  return lax.dynamic_update_slice_in_dim(total, old + x, start, 0)


def chosen(leaves, wanted) -> list[jax.Array]:
  """The leaves that want a gradient."""
  return [x for x, flag in zip(leaves, wanted) if flag]


def _only(wanted, groups, tile):
  """The leaves to differentiate, and the tile as a function of them alone."""

  def function(*active):
    full = []
    for leaves, flags, chosen in zip(groups, wanted, active):
      chosen = iter(chosen)
      full.append([next(chosen) if flag else x for x, flag in zip(leaves, flags)])
    return tile(*full)

  return [chosen(leaves, flags) for leaves, flags in zip(groups, wanted)], function


def no_gradients(row_side: Side, shared, wanted) -> tuple[list, list]:
  """Gradients of rows and of what is shared, before the first tile."""
  return (
    [jnp.zeros_like(x) for x in chosen(row_side.leaves, wanted[0])],
    [jnp.zeros_like(x) for x in chosen(shared, wanted[2])],
  )
