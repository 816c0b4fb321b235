"""How the columns of other devices reach a device's rows.

Each way is a function run on every device, inside `jax.shard_map` where there are several:

    move(loop, row block, column block, shared, axes) -> what accumulated of (rows, columns, whole)

Both sides, and what is returned of them, are the device's own part; the whole is of all devices.
"""

from __future__ import annotations

import jax
from jax import lax

from mmcontrast.objectives.tile_loop import Block, Running, TileLoop

Moved = tuple[Running, Running, Running]


def alone(loop: TileLoop, row_block: Block, column_block: Block, shared, axes) -> Moved:
  """One device: there is one block."""
  start = loop.start("row", row_block.leaves), loop.start("all", shared)
  (rows, whole), columns = loop.visit(row_block, column_block, shared, *start)
  return rows, columns, whole


def gather(loop: TileLoop, row_block: Block, column_block: Block, shared, axes) -> Moved:
  """All columns are gathered on every device; what belongs to them is reduced back."""
  n = column_block.leaves[0].shape[0]
  everything = jax.tree.map(lambda x: lax.all_gather(x, axes, tiled=True), column_block)
  rows, columns, whole = alone(loop, row_block, everything, shared, axes)
  at = lax.axis_index(axes) * n
  states = loop.merge_devices("column", columns._replace(grads=[]), axes).states
  states = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, at, n), states)
  grads = [lax.psum_scatter(x, axes, tiled=True) for x in columns.grads]
  return rows, Running(states, grads), loop.merge_devices("all", whole, axes)


def ring(loop: TileLoop, row_block: Block, column_block: Block, shared, axes) -> Moved:
  """Blocks of columns go round.

  At each stop, what a block has gathered catches up with it. A step first sends the block on, and
  fetches what the block now here had gathered at its last stop; neither depends on the tiles of
  this step, so both can overlap with computing them. A block is one tile wide: a device's columns
  go round one block after another.
  """
  width = loop.lengths[1]

  def step(carry, _):
    block, gathered, running = carry
    following, gathered = _shift((block, gathered), axes)
    running, of_block = loop.visit(row_block, block, shared, *running)
    return (following, loop.merge("column", gathered, of_block), running), None

  def round_trip(running, block):
    start = (block, loop.start("column", block.leaves), running)
    (_, gathered, running), _ = lax.scan(step, start, length=lax.axis_size(axes))
    return running, _shift(gathered, axes)

  start = loop.start("row", row_block.leaves), loop.start("all", shared)
  blocks = jax.tree.map(lambda x: x.reshape(-1, width, *x.shape[1:]), column_block)
  (rows, whole), columns = lax.scan(round_trip, start, blocks)
  columns = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), columns)
  return rows, columns, loop.merge_devices("all", whole, axes)


def _shift(tree, axes):
  devices = lax.axis_size(axes)
  return jax.tree.map(lambda x: lax.ppermute(x, axes, [(k, (k + 1) % devices) for k in range(devices)]), tree)


MOVEMENTS = {"alone": alone, "rows": gather, "ring": ring}
