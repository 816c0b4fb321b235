"""Other examples of the global batch: one drawn for each example, and what is gathered of those that were drawn.

Both go round a ring of devices in blocks, so that a device holds its own block and one more, and never the batch:

    index = draw_others(logits, rows, columns, seeds, ids, candidates, mesh=mesh)     # [N]
    theirs = take_others(tree, index, mesh)                                           # row i is that of index[i]

A draw belongs to the examples, not to their places: it is the same on any number of devices and in any order.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmcontrast.objectives.global_matrix import batch_axes

Tree = Any
Logits = Callable[[Tree, Tree], jax.Array]
"""([r, ...] of those that draw, [c, ...] of those that may be drawn) -> [r, c]."""
WIDTH = 1024
"""Candidates that are looked at at once, at most, where this divides those of a block."""


def draw_others(
  logits: Logits | None,
  rows: Tree,
  columns: Tree,
  seeds: jax.Array,
  ids: jax.Array,
  candidates: jax.Array,
  *,
  stream: int = 0,
  mesh: Mesh | None = None,
) -> jax.Array:
  """For each example another one, with the probabilities softmax(logits) over those that it may draw.

  The largest of logits plus Gumbel noise (Gumbel, 1954), which is a function of both examples' seeds. Nothing is
  differentiated.

  Args:
    logits: None: all are equally probable.
    rows, columns: trees of [N, ...] that `logits` is called with, by blocks.
    seeds: uint32 [N].
    ids: int [N]; one of the same id is never drawn, and so never the example itself.
    candidates: bool [N], which may be drawn.
    stream: another one draws independently.
    mesh: the devices that the batch is cut over; None for one.
  Returns:
    int32 [N], places in the batch; that of the example itself where there is none to draw.
  """
  rows, columns = lax.stop_gradient((rows, columns))
  place = jnp.arange(len(seeds), dtype=jnp.int32)
  row_side, column_side = (rows, seeds, ids, place), (columns, seeds, ids, place, candidates)
  axes, devices = _axes(mesh)
  if devices == 1:
    return _draw(logits, stream, (), row_side, column_side)
  draw = functools.partial(_draw, logits, stream, axes)
  cut = P(axes)
  return jax.shard_map(draw, mesh=mesh, in_specs=(cut, cut), out_specs=cut, check_vma=False)(row_side, column_side)


def take_others(tree: Tree, index: jax.Array, mesh: Mesh | None = None) -> Tree:
  """[N, ...] -> [N, ...]: row i is row `index[i]`; the gradient goes back to that row.

  Each device picks its rows out of the blocks that pass it.
  """
  axes, devices = _axes(mesh)
  if devices == 1:
    return jax.tree.map(lambda x: x[index], tree)
  cut = P(axes)
  take = functools.partial(_take, axes)
  return jax.shard_map(take, mesh=mesh, in_specs=(cut, cut), out_specs=cut, check_vma=False)(tree, index)


def _axes(mesh: Mesh | None) -> tuple[tuple[str, ...], int]:
  """The axes of a mesh that the batch is cut over, and into how many blocks."""
  axes = batch_axes(mesh)
  return axes, math.prod(mesh.shape[name] for name in axes) if axes else 1


def _draw(logits: Logits | None, stream: int, axes: tuple[str, ...], row_side: Tree, column_side: Tree) -> jax.Array:
  """The draws of this device's rows: int32 [n]."""
  rows, seeds, ids, place = row_side
  keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), stream))(seeds)

  def look(best, part):
    columns, other_seeds, other_ids, other_place, candidates = part
    noisy = _gumbel(keys, other_seeds)
    noisy = noisy if logits is None else noisy + logits(rows, columns)
    noisy = jnp.where(candidates & (ids[:, None] != other_ids), noisy, -jnp.inf)
    here = jnp.argmax(noisy, 1)
    value, index = jnp.take_along_axis(noisy, here[:, None], 1)[:, 0], other_place[here]
    better = value > best[0]
    return (jnp.where(better, value, best[0]), jnp.where(better, index, best[1])), None

  def visit(carry, _):
    best, block = carry
    following = _shift(block, axes)
    width = _width(len(block[1]))
    parts = jax.tree.map(lambda x: x.reshape(-1, width, *x.shape[1:]), block)
    return (lax.scan(look, best, parts)[0], following), None

  value = jax.eval_shape(lambda: look((jnp.zeros(len(seeds)), place), column_side)[0][0])
  start = (jnp.full(len(seeds), -jnp.inf, value.dtype), place), column_side
  return lax.scan(visit, start, length=lax.axis_size(axes) if axes else 1)[0][0][1]


def _gumbel(keys: jax.Array, seeds: jax.Array) -> jax.Array:
  """float32 [r, c]: noise of each pair, a function of the row's key and the column's seed."""
  folded = jax.vmap(lambda key: jax.vmap(functools.partial(jax.random.fold_in, key))(seeds))(keys)
  bits = jax.random.key_data(folded)[..., 0] >> 9  # the hash itself is as good as numbers drawn by it
  uniform = (bits.astype(jnp.float32) + 0.5) / (1 << 23)  # never 0, never 1
  return -jnp.log(-jnp.log(uniform))


def _take(axes: tuple[str, ...], tree: Tree, index: jax.Array) -> Tree:
  count, devices, me = len(index), lax.axis_size(axes), lax.axis_index(axes)

  def visit(carry, step):
    block, taken = carry
    local = index - (me - step) % devices * count  # the block here came from `step` devices back
    is_here, local = (local >= 0) & (local < count), jnp.clip(local, 0, count - 1)
    taken = jax.tree.map(lambda x, y: jnp.where(is_here.reshape(-1, *[1] * (x.ndim - 1)), x[local], y), block, taken)
    return (_shift(block, axes), taken), None

  start = tree, jax.tree.map(jnp.zeros_like, tree)
  return lax.scan(visit, start, jnp.arange(devices))[0][1]


def _shift(tree: Tree, axes: tuple[str, ...]) -> Tree:
  """Every block to the next device."""
  if not axes:
    return tree
  devices = lax.axis_size(axes)
  return jax.tree.map(lambda x: lax.ppermute(x, axes, [(k, (k + 1) % devices) for k in range(devices)]), tree)


def _width(length: int) -> int:
  """The largest divisor of a block's length that is not above WIDTH."""
  return next(width for width in range(min(length, WIDTH), 0, -1) if length % width == 0)
