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
  Values,
  cotangent,
  masked,
  merge_devices,
  merge_state,
  side_mask,
  tile_state,
)

State = dict[str, tuple[jax.Array, ...]]
REDUCED_AXIS = {"row": 1, "column": 0, "all": None}
"""Which axis of a tile a reduction along rows, along columns, or over all of it sums over."""


class Block(NamedTuple):
  """Rows, or columns, of the matrix on one device; every leaf [n, ...].

  Attributes:
    mask: bool [n], which of them count; None: all.
    final: name -> state of the statistics that have a cotangent, over the whole matrix; {} in the forward pass.
    g: name -> that cotangent, [n].
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
    """
    Args:
      tile: (leaves of rows, leaves of columns, shared leaves) -> (values, mask), of r rows and c columns.
      lengths: (r, c).
      reduce: whether to make statistics.
      wanted: flags of the leaves of (rows, columns, shared) that need a gradient: that of the sum over all pairs, and
        of the statistics that the blocks have cotangents of. None: no gradient is computed.
    """
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
    flags = self._wanted[list(REDUCED_AXIS).index(axis)] if self._wanted else ()
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
    self, row_block: Block, column_block: Block, shared, rows: Running, whole: Running
  ) -> tuple[tuple[Running, Running], Running]:
    """Goes over the tiles of all rows and one block of columns.

    Args:
      rows, whole: what has accumulated so far, of the rows and of the whole matrix.
    Returns:
      ((rows, whole) with these tiles added, what accumulated of the block's columns).
    """
    r, c = self.lengths
    row_count, column_count = row_block.leaves[0].shape[0] // r, column_block.leaves[0].shape[0] // c

    def step(carry, k):
      i, j = (k % row_count) * r, (k // row_count) * c
      tile = self._visit_tile(_cut(row_block, i, r), _cut(column_block, j, c), shared)
      new = {}
      for axis, at, length in (("row", i, r), ("column", j, c)):
        old = _cut(carry[axis], at, length)
        new[axis] = _put(carry[axis], self.merge(axis, old, tile[axis]), at)
      return {**new, "all": self.merge("all", carry["all"], tile["all"])}, None

    start = {"row": rows, "column": self.start("column", column_block.leaves), "all": whole}
    end = lax.scan(step, start, jnp.arange(row_count * column_count))[0]
    return (end["row"], end["all"]), end["column"]

  def _reduced(self, axis: str) -> dict[str, Reduction]:
    return {name: r for name, r in self._reductions.items() if self._reduce and r.axis == axis}

  def _visit_tile(self, rows: Block, columns: Block, shared) -> dict[str, Running]:
    """What the tile of r rows and c columns gives: axis -> states and gradients."""
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
        name: tile_state(r.kind, masked(values[r.value], r.kind, *masks[axis]), REDUCED_AXIS[axis])
        for name, r in self._reduced(axis).items()
      }
      for axis in REDUCED_AXIS
    }
    grads = ([], [], []) if self._wanted is None else pull(self._cotangents(values, masks, rows, columns))
    return {axis: Running(states[axis], list(of_axis)) for axis, of_axis in zip(REDUCED_AXIS, grads)}

  def _cotangents(self, values: Values, masks, rows: Block, columns: Block) -> Values:
    """Of each value of a tile, [r, c]: of the statistics of rows and columns, and of the sum over all pairs."""
    cotangents = {name: jnp.zeros((), x.dtype) for name, x in values.items()}
    for axis, block in (("row", rows), ("column", columns)):
      for name, g in block.g.items():
        value, _, kind = self._reductions[name]
        seen = masked(values[value], kind, *masks[axis])
        g = cotangent(kind, seen, block.final[name], g, REDUCED_AXIS[axis])
        # exp(-inf) is zero already.
        cotangents[value] += g if kind == "logsumexp" else masked(g, "sum", *masks[axis])
    for value, *_ in self._reduced("all").values():
      cotangents[value] += masked(jnp.ones_like(values[value]), "sum", *masks["all"])
    return {name: jnp.broadcast_to(g, values[name].shape) for name, g in cotangents.items()}


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
