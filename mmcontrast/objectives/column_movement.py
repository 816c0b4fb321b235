"""How the columns of other devices reach a device's rows.

Each way is a forward and a backward function, run on every device inside `jax.shard_map`:

    forward(loop, row side, column side, shared, axes) -> (row state, column state)
    backward(loop, row side, column side, shared, wanted, axes) -> gradients of (rows, columns,
      shared), those of shared summed over devices

where both sides, and what is returned of them, are the device's own part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.reductions import merge_devices, merge_state
from mmcontrast.objectives.tile_loop import chosen, no_gradients


class Movement(NamedTuple):
  """One way for columns to reach rows (module docstring)."""

  forward: Callable
  backward: Callable


# ---- One device: there is one block -------------------------------------------------------------


def _alone_forward(loop, row_side, column_side, shared, axes):
  return loop.forward(row_side, column_side, shared)


def _alone_backward(loop, row_side, column_side, shared, wanted, axes):
  start = no_gradients(row_side, shared, wanted)
  return loop.backward(row_side, column_side, shared, wanted, start)


# ---- All columns are gathered on every device; what belongs to them is reduced back --------------


def _gather(column_side, axes):
  return jax.tree.map(lambda x: lax.all_gather(x, axes, tiled=True), column_side)


def _rows_forward(loop, row_side, column_side, shared, axes):
  n = column_side.leaves[0].shape[0]
  row_state, state = loop.forward(row_side, _gather(column_side, axes), shared)
  start = lax.axis_index(axes) * n
  merged = {
    name: merge_devices(r.kind, state[name], axes) for name, r in loop.by_axis["column"].items()
  }
  return row_state, jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, n), merged)


def _rows_backward(loop, row_side, column_side, shared, wanted, axes):
  start = no_gradients(row_side, shared, wanted)
  rows, columns, totals = loop.backward(row_side, _gather(column_side, axes), shared, wanted, start)
  columns = [lax.psum_scatter(x, axes, tiled=True) for x in columns]
  return rows, columns, [lax.psum(x, axes) for x in totals]


# ---- Blocks of columns go round -----------------------------------------------------------------
#
# At each stop, what a block has gathered catches up with it. A step first sends the block on, and
# fetches what the block now here had gathered at its last stop; neither depends on the tiles of
# this step, so both can overlap with computing them. A block is one tile wide: a device's columns
# go round one block after another.


def _shift(tree, axes):
  devices = lax.axis_size(axes)
  ring = [(k, (k + 1) % devices) for k in range(devices)]
  return jax.tree.map(lambda x: lax.ppermute(x, axes, ring), tree)


def _each_block(loop, round_trip, carry, column_side):
  """Scans `round_trip(carry, block) -> carry, what it gathered` over the device's blocks."""
  width = loop.lengths[1]
  blocks = jax.tree.map(lambda x: x.reshape(-1, width, *x.shape[1:]), column_side)
  carry, gathered = lax.scan(round_trip, carry, blocks)
  return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), gathered)


def _ring_forward(loop, row_side, column_side, shared, axes):
  def step(carry, _):
    block, gathered, row_state = carry
    following, gathered = _shift((block, gathered), axes)
    row_state, here = loop.forward(row_side._replace(state=row_state), block, shared)
    gathered = {
      name: merge_state(r.kind, gathered[name], here[name])
      for name, r in loop.by_axis["column"].items()
    }
    return (following, gathered, row_state), None

  def round_trip(row_state, block):
    start = (block, loop.identity("column", block.leaves), row_state)
    (_, gathered, row_state), _ = lax.scan(step, start, length=lax.axis_size(axes))
    return row_state, _shift(gathered, axes)

  return _each_block(loop, round_trip, row_side.state, column_side)


def _ring_backward(loop, row_side, column_side, shared, wanted, axes):
  def step(carry, _):
    block, gathered, *grads = carry
    following, gathered = _shift((block, gathered), axes)
    rows, here, totals = loop.backward(row_side, block, shared, wanted, grads)
    return (following, [a + b for a, b in zip(gathered, here)], rows, totals), None

  def round_trip(grads, block):
    gathered = [jnp.zeros_like(x) for x in chosen(block.leaves, wanted[1])]
    start = (block, gathered, *grads)
    (_, gathered, *grads), _ = lax.scan(step, start, length=lax.axis_size(axes))
    return tuple(grads), _shift(gathered, axes)

  start = no_gradients(row_side, shared, wanted)
  (rows, totals), columns = _each_block(loop, round_trip, start, column_side)
  return rows, columns, [lax.psum(x, axes) for x in totals]


MOVEMENTS = {
  "alone": Movement(_alone_forward, _alone_backward),
  "rows": Movement(_rows_forward, _rows_backward),
  "ring": Movement(_ring_forward, _ring_backward),
}
