"""The loop over the tiles of one block of the matrix on one device.

One tile serves both directions: what is of the rows accumulates over blocks, what is of the columns
belongs to the block. A loop reduces (forward), differentiates (backward), or does both at once: the
gradient of a sum over all pairs needs no statistic, so it is found while the sum is.
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
  merge_devices,
  merge_state,
  side_mask,
  tile_state,
)

State = dict[str, tuple[jax.Array, ...]]
AXES = {"row": 1, "column": 0, "all": None}  # Which axis of a tile each kind of reduction sums over.


class Side(NamedTuple):
  """One side of the matrix on one device; every leaf [n, ...].

  final, g: statistics of the whole matrix and their cotangents, of those that have one: backward.
  """

  leaves: list[jax.Array]
  mask: jax.Array | None
  final: State
  g: dict[str, jax.Array]


class Running(NamedTuple):
  """What accumulates while tiles go by, of the rows, the columns or the whole matrix.

  grads: those of the leaves that want one (of what is shared, for the whole matrix).
  """

  states: State
  grads: list[jax.Array]


class TileLoop:
  """Goes over the tiles of one block of the matrix, on one device."""

  def __init__(self, tile, reductions: dict[str, Reduction], lengths: tuple[int, int], dtype, *, reduce: bool, wanted):
    """`reduce`: whether to make statistics. `wanted`: which leaves of (rows, columns, shared) want
    the gradient, of what sides have cotangents for and of the sum over all pairs; None for none."""
    self._tile, self._reductions, self.lengths, self._dtype = tile, reductions, lengths, dtype
    self._reduce, self._wanted = reduce, wanted

  def start(self, axis: str, leaves: list[jax.Array]) -> Running:
    """Nothing seen yet. `leaves`: of that side, or what is shared."""
    shape = () if axis == "all" else leaves[0].shape[:1]
    states = {
      name: (jnp.full(shape, IDENTITY[r.kind], self._dtype),)
      + ((jnp.zeros(shape, self._dtype),) if r.kind == "max" else ())
      for name, r in self._reduced(axis).items()
    }
    flags = self._wanted[list(AXES).index(axis)] if self._wanted else ()
    return Running(states, [jnp.zeros_like(x) for x, flag in zip(leaves, flags) if flag])

  def merge(self, axis: str, a: Running, b: Running) -> Running:
    """Joins what two sets of tiles gave."""
    states = {name: merge_state(r.kind, a.states[name], b.states[name]) for name, r in self._reduced(axis).items()}
    return Running(states, [x + y for x, y in zip(a.grads, b.grads)])

  def merge_devices(self, axis: str, running: Running, axes: tuple[str, ...]) -> Running:
    """Joins what the devices gave for the same columns, or for the whole matrix."""
    states = {name: merge_devices(r.kind, running.states[name], axes) for name, r in self._reduced(axis).items()}
    return Running(states, [lax.psum(x, axes) for x in running.grads])

  def visit(
    self, row_side: Side, column_side: Side, shared, rows: Running, whole: Running
  ) -> tuple[tuple[Running, Running], Running]:
    """Adds the block's tiles to `rows` and `whole`; returns them and what is of the block's columns."""
    r, c = self.lengths
    row_count, column_count = row_side.leaves[0].shape[0] // r, column_side.leaves[0].shape[0] // c

    def step(carry, k):
      i, j = (k % row_count) * r, (k // row_count) * c
      found = self._visit_tile(_cut(row_side, i, r), _cut(column_side, j, c), shared)
      new = {}
      for axis, at, length in (("row", i, r), ("column", j, c)):
        old = _cut(carry[axis], at, length)
        new[axis] = _put(carry[axis], self.merge(axis, old, found[axis]), at)
      return {**new, "all": self.merge("all", carry["all"], found["all"])}, None

    start = {"row": rows, "column": self.start("column", column_side.leaves), "all": whole}
    end = lax.scan(step, start, jnp.arange(row_count * column_count))[0]
    return (end["row"], end["all"]), end["column"]

  def _reduced(self, axis: str) -> dict[str, Reduction]:
    return {name: r for name, r in self._reductions.items() if self._reduce and r.axis == axis}

  def _visit_tile(self, rows: Side, columns: Side, shared) -> dict[str, Running]:
    """What one tile gives."""
    parts = (rows.leaves, columns.leaves, shared)
    if self._wanted is None:
      values, mask = self._tile(*parts)
    else:
      active, function = _only(self._wanted, parts, self._tile)
      values, pull, mask = jax.vjp(function, *active, has_aux=True)
    by_row, by_column = side_mask(rows.mask, 1), side_mask(columns.mask, 0)
    masks = {"row": (mask, by_column), "column": (mask, by_row), "all": (mask, by_row, by_column)}
    states = {
      axis: {
        name: tile_state(r.kind, masked(values[r.value], r.kind, *masks[axis]), AXES[axis])
        for name, r in self._reduced(axis).items()
      }
      for axis in AXES
    }
    grads = ([], [], [])
    if self._wanted is not None:
      cotangents = {name: jnp.zeros((), x.dtype) for name, x in values.items()}
      for axis, side in (("row", rows), ("column", columns)):
        for name, g in side.g.items():
          value, _, kind = self._reductions[name]
          seen = masked(values[value], kind, *masks[axis])
          g = cotangent(kind, seen, side.final[name], g, AXES[axis])
          # exp(-inf) is zero already.
          cotangents[value] += g if kind == "logsumexp" else masked(g, "sum", *masks[axis])
      for value, *_ in self._reduced("all").values():
        cotangents[value] += masked(jnp.ones_like(values[value]), "sum", *masks["all"])
      grads = pull({name: jnp.broadcast_to(g, values[name].shape) for name, g in cotangents.items()})
    return {axis: Running(states[axis], list(own)) for axis, own in zip(AXES, grads)}


def _cut(tree, start, length: int):
  return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), tree)


def _put(tree, part, start):
  return jax.tree.map(lambda x, y: lax.dynamic_update_slice_in_dim(x, y, start, 0), tree, part)


def _only(wanted, groups, tile):
  """The leaves to differentiate, and the tile as a function of them alone."""

  def function(*active):
    full = []
    for leaves, flags, chosen in zip(groups, wanted, active):
      chosen = iter(chosen)
      full.append([next(chosen) if flag else x for x, flag in zip(leaves, flags)])
    return tile(*full)

  return [[x for x, flag in zip(leaves, flags) if flag] for leaves, flags in zip(groups, wanted)], function
