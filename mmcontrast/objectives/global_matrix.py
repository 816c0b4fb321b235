"""The global contrastive matrix: statistics of its rows and columns, never the matrix itself.

A pairwise loss over N rows and M columns needs only O(N + M) numbers of its [N, M] matrix: the
log-sum-exp, a sum or the maximum of some value along a row or a column. `reduce_tiles` computes
them, differentiably, from a *tile function* that makes any [r, c] part of the matrix:

    tile(rows, columns, shared) -> (values: {name: [r, c]}, mask: bool [r, c] | None)

`rows` and `columns` are trees of arrays with a leading axis, `shared` a tree of arrays all tiles
see. Floating leaves are differentiated, unless nothing asks for their gradient (momentum keys, a
queue, frozen features): then none is computed. The tile function must close over no traced array.

Implementations, all with the same value and gradients (the dense one is the truth):
  dense  the whole matrix at once; across devices, the compiler shards it. Memory N * M.
  rows   each device its rows against all columns, gathered once; tiles inside.
  ring   each device its rows; blocks of columns travel round the devices, together with their
         statistics (forward) or their gradients (backward); tiles inside. Memory (N + M) / devices.
  auto   `choose_impl`.

rows and ring keep O(N + M) residuals and recompute each tile once in the backward pass, where one
tile serves both directions: four products of N * M * D in all, as flash attention does for a
softmax (Dao et al. 2022) and Inf-CL for a contrastive loss (Cheng et al. 2024). Gradients of
anything shared are summed over devices here, so take gradients outside, as for any function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmcontrast.errors import choose

Tree = Any
Values = dict[str, jax.Array]
Tile = Callable[[Tree, Tree, Tree], tuple[Values, jax.Array | None]]
State = dict[str, tuple[jax.Array, ...]]

IMPLEMENTATIONS = ("auto", "dense", "rows", "ring")
BATCH_AXES = ("data", "fsdp")
COLUMNS_PER_ROW = 4  # A tile of r rows has up to 8 * r columns.
DENSE_BYTES = 64 << 20
GATHER_BYTES = 64 << 20


class Reduction(NamedTuple):
  """What to keep of one value: over each "row" or "column", by "logsumexp", "sum" or "max"."""

  value: str
  axis: str
  kind: str


# ---- One reduction: identity, reduce a tile, merge two states, the tile's cotangent -------------

_IDENTITY = {"logsumexp": -jnp.inf, "sum": 0.0, "max": -jnp.inf}


def _log_sum(terms: jax.Array, peak: jax.Array, axis: int) -> jax.Array:
  """`log(sum(exp(terms)))` along `axis`, -inf (gradient zero) where there is nothing to sum."""
  peak = lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
  total = jnp.sum(jnp.exp(terms - jnp.expand_dims(peak, axis)), axis)
  some = total > 0
  return jnp.where(some, peak + jnp.log(jnp.where(some, total, 1.0)), -jnp.inf)


def reduce_values(kind: str, values: jax.Array, axis: int) -> jax.Array:
  """Reduces a whole matrix along `axis`, in plain differentiable operations."""
  if kind == "sum":
    return jnp.sum(values, axis)
  peak = jnp.max(values, axis)
  return peak if kind == "max" else _log_sum(values, peak, axis)


def merge(kind: str, a: jax.Array, b: jax.Array) -> jax.Array:
  """Joins the statistics of two disjoint sets of columns (or rows); associative, differentiable."""
  if kind == "sum":
    return a + b
  if kind == "max":
    return jnp.maximum(a, b)
  return _log_sum(jnp.stack([a, b], -1), jnp.maximum(a, b), -1)


def _tile_state(kind: str, values: jax.Array, axis: int) -> tuple[jax.Array, ...]:
  """As `reduce_values`; a maximum also counts its ties, among which its gradient is split."""
  result = reduce_values(kind, values, axis)
  if kind != "max":
    return (result,)
  return result, jnp.sum(values == jnp.expand_dims(result, axis), axis, dtype=values.dtype)


def _merge_state(kind: str, a: tuple, b: tuple) -> tuple[jax.Array, ...]:
  peak = merge(kind, a[0], b[0])
  if kind != "max":
    return (peak,)
  return peak, a[1] * (a[0] == peak) + b[1] * (b[0] == peak)


def _merge_devices(kind: str, state: tuple, axes: tuple[str, ...]) -> tuple[jax.Array, ...]:
  """Merges the states that the devices hold for the same rows or columns."""
  if kind == "sum":
    return (lax.psum(state[0], axes),)
  peak = lax.pmax(state[0], axes)
  if kind == "max":
    return peak, lax.psum(state[1] * (state[0] == peak), axes)
  shift = jnp.where(jnp.isfinite(peak), peak, 0.0)
  return (shift + jnp.log(lax.psum(jnp.exp(state[0] - shift), axes)),)


def _cotangent(kind: str, values: jax.Array, state: tuple, g: jax.Array, axis: int) -> jax.Array:
  """The gradient of one reduction with respect to (masked) values of a tile."""
  state = tuple(jnp.expand_dims(part, axis) for part in state)
  g = jnp.expand_dims(g, axis)
  if kind == "logsumexp":  # An empty sum (-inf) has no gradient: exp(values - inf) = 0.
    return g * jnp.exp(values - jnp.where(state[0] == -jnp.inf, jnp.inf, state[0]))
  if kind == "max":
    return jnp.where(values == state[0], g / jnp.maximum(state[1], 1.0), 0.0)
  return jnp.broadcast_to(g, values.shape)


def _masked(values: jax.Array, kind: str, *masks: jax.Array | None) -> jax.Array:
  for mask in masks:
    if mask is not None:
      values = jnp.where(mask, values, _IDENTITY[kind])
  return values


def _side(mask: jax.Array | None, axis: int) -> jax.Array | None:
  return None if mask is None else jnp.expand_dims(mask, axis)


# ---- The entrance ------------------------------------------------------------------------------


def choose_impl(rows: int, columns: int, dim: int, devices: int) -> str:
  """The rule of `impl="auto"`, in bytes a device of float32.

  dense while its four matrices (logits, two softmaxes, their gradient) stay under DENSE_BYTES;
  then rows while the gathered columns and their gradients stay under GATHER_BYTES (one gather has
  less latency than a ring); else ring. On one device rows and ring are the same tiled loop.
  """
  if 4 * rows * columns * 4 <= DENSE_BYTES * devices:
    return "dense"
  if devices > 1 and 2 * columns * dim * 4 <= GATHER_BYTES:
    return "rows"
  return "ring"


def batch_axes(mesh: Mesh | None) -> tuple[str, ...]:
  """The axes of `mesh` over which a batch is split."""
  return () if mesh is None else tuple(name for name in mesh.axis_names if name in BATCH_AXES)


def reduce_tiles(
  tile: Tile,
  reductions: Mapping[str, Reduction],
  rows: Tree,
  columns: Tree,
  shared: Tree = (),
  *,
  row_mask: jax.Array | None = None,
  column_mask: jax.Array | None = None,
  impl: str = "dense",
  mesh: Mesh | None = None,
  axes: Sequence[str] | None = None,
  size: int = 512,
) -> Values:
  """Reduces the [N, M] matrix that `tile` describes.

  Args:
    tile: makes the values of any part of the matrix (module docstring).
    reductions: name -> what to keep.
    rows: tree of [N, ...].
    columns: tree of [M, ...].
    shared: tree of arrays.
    row_mask: bool [N]; a False row is absent from every column statistic.
    column_mask: bool [M]; a False column is absent from every row statistic.
    impl: one of IMPLEMENTATIONS.
    mesh: devices; None for one.
    axes: mesh axes over which rows and columns are split; by default those of BATCH_AXES.
    size: rows in a tile; it has up to COLUMNS_PER_ROW times as many columns.

  Returns:
    name -> [N] or [M]: -inf for a log-sum-exp or maximum over nothing.
  """
  axes = batch_axes(mesh) if axes is None else tuple(axes)
  devices = math.prod(mesh.shape[name] for name in axes) if axes else 1
  n, m = _length(rows), _length(columns)
  if choose(impl, IMPLEMENTATIONS, "global matrix: impl") == "auto":
    widths = [math.prod(x.shape[1:]) for x in jax.tree.leaves(columns) if _is_float(x)]
    impl = choose_impl(n, m, max(widths, default=1), devices)
  dtype = jnp.result_type(*(x for x in jax.tree.leaves((rows, columns)) if _is_float(x)))
  tile = _in_one_dtype(tile, dtype)
  if impl == "dense":
    return _dense(tile, reductions, rows, columns, shared, row_mask, column_mask)
  row_length, row_count = _split(-(-n // devices), size)
  column_length, column_count = _split(-(-m // devices), COLUMNS_PER_ROW * size)
  rows, row_mask = _pad(rows, row_mask, devices * row_length * row_count)
  columns, column_mask = _pad(columns, column_mask, devices * column_length * column_count)
  if impl == "rows":  # All columns meet the rows at once, so tiles may hold several blocks.
    several = range(1, devices * column_count + 1)
    column_length *= max(
      k for k in several
      if devices * column_count % k == 0 and (k == 1 or k * column_length <= COLUMNS_PER_ROW * size)
    )
  axes = axes if devices > 1 else ()
  run = _tiled(tile, reductions, impl, mesh, axes, (row_length, column_length), dtype)
  stats = run((rows, row_mask), (columns, column_mask), shared)
  return {name: stats[name][: n if r.axis == "row" else m] for name, r in reductions.items()}


def _dense(tile, reductions, rows, columns, shared, row_mask, column_mask) -> Values:
  values, mask = tile(rows, columns, shared)
  stats = {}
  for name, (value, axis, kind) in reductions.items():
    side = _side(column_mask, 0) if axis == "row" else _side(row_mask, 1)
    masked = _masked(values[value], kind, mask, side)
    stats[name] = reduce_values(kind, masked, 1 if axis == "row" else 0)
  return stats


def _in_one_dtype(tile: Tile, dtype) -> Tile:
  def cast(rows, columns, shared):
    values, mask = tile(rows, columns, shared)
    return {name: value.astype(dtype) for name, value in values.items()}, mask

  return cast


def _length(tree: Tree) -> int:
  return jax.tree.leaves(tree)[0].shape[0]


def _is_float(x: jax.Array) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating)


def _split(length: int, size: int) -> tuple[int, int]:
  """Tiles of equal length, at most `size`: (their length, how many hold `length`)."""
  count = -(-length // size)
  return -(-length // count), count


def _pad(tree: Tree, mask: jax.Array | None, length: int) -> tuple[Tree, jax.Array | None]:
  extra = length - _length(tree)
  if not extra:
    return tree, mask
  mask = jnp.ones(length - extra, bool) if mask is None else mask
  return jax.tree.map(lambda x: jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)), (tree, mask))


# ---- Tiles with a backward pass of their own ----------------------------------------------------


@jax.tree_util.register_static
class _Wanted(tuple):
  """Which leaves of (rows, columns, shared) need a gradient."""


class _Side(NamedTuple):
  """One side of the matrix on one device; every leaf [n, ...]."""

  leaves: list[jax.Array]
  mask: jax.Array | None
  state: State  # Forward: statistics so far. Backward: the final ones.
  g: Values  # Backward: cotangents of the statistics, of those that have one.


def _tiled(tile, reductions, impl, mesh, axes, lengths, dtype):
  """The custom-VJP function `((rows, mask), (columns, mask), shared) -> statistics`."""
  by_axis = {
    axis: {name: r for name, r in reductions.items() if r.axis == axis}
    for axis in ("row", "column")
  }
  spec, everywhere = P(axes or None), P()
  move = {"rows": _gathered, "ring": _ring}[impl] if axes else _alone

  def distribute(function, in_specs, out_specs):
    if not axes:
      return function
    return jax.shard_map(
      function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )

  def flat(*trees):
    leaves, structures = zip(*(jax.tree.flatten(tree) for tree in trees))
    return leaves, lambda *parts: tile(*map(jax.tree.unflatten, structures, parts))

  def forward(rows, columns, shared):
    (row_leaves, column_leaves, shared_leaves), flat_tile = flat(rows[0], columns[0], shared)
    loop = _Loop(flat_tile, by_axis, lengths, dtype)

    def local(row_leaves, row_mask, column_leaves, column_mask, shared_leaves):
      row_side = _Side(row_leaves, row_mask, loop.identity("row", row_leaves), {})
      column_side = _Side(column_leaves, column_mask, {}, {})
      return move.forward(loop, row_side, column_side, shared_leaves, axes)

    run = distribute(local, (spec, spec, spec, spec, everywhere), (spec, spec))
    return run(row_leaves, rows[1], column_leaves, columns[1], shared_leaves)

  @jax.custom_vjp
  def run(rows, columns, shared):
    row_state, column_state = forward(rows, columns, shared)
    return {name: state[0] for name, state in {**row_state, **column_state}.items()}

  def run_forward(*arguments):
    is_primal = lambda x: hasattr(x, "perturbed")
    wanted = [
      _Wanted(x.perturbed and _is_float(x.value) for x in jax.tree.leaves(a, is_leaf=is_primal))
      for a in (arguments[0][0], arguments[1][0], arguments[2])
    ]
    rows, columns, shared = jax.tree.map(lambda x: x.value, arguments, is_leaf=is_primal)
    row_state, column_state = forward(rows, columns, shared)
    out = {name: state[0] for name, state in {**row_state, **column_state}.items()}
    return out, (rows, columns, shared, row_state, column_state, wanted)

  def run_backward(residuals, cotangents):
    rows, columns, shared, row_state, column_state, wanted = residuals
    asked = {name: g for name, g in cotangents.items() if not isinstance(g, SymbolicZero)}
    (row_leaves, column_leaves, shared_leaves), flat_tile = flat(rows[0], columns[0], shared)
    kept = {axis: {k: r for k, r in by_axis[axis].items() if k in asked} for axis in by_axis}
    loop = _Loop(flat_tile, kept, lengths, dtype)

    def pick(state):
      return {name: state[name] for name in state if name in asked}

    def local(row_side, column_side, shared_leaves):
      return move.backward(loop, row_side, column_side, shared_leaves, wanted, axes)

    sides = [
      _Side(leaves, mask, pick(state), {name: asked[name] for name in pick(state)})
      for leaves, mask, state in (
        (row_leaves, rows[1], row_state),
        (column_leaves, columns[1], column_state),
      )
    ]
    run_local = distribute(local, (spec, spec, everywhere), (spec, spec, everywhere))
    found = run_local(*sides, shared_leaves)
    grads = [
      jax.tree.unflatten(jax.tree.structure(tree), _spread(grad, flags))
      for tree, grad, flags in zip((rows[0], columns[0], shared), found, wanted)
    ]
    return (grads[0], None), (grads[1], None), grads[2]

  run.defvjp(run_forward, run_backward, symbolic_zeros=True)
  return run


def _spread(found: list[jax.Array], wanted: Sequence[bool]) -> list[jax.Array | None]:
  """Puts the gradients found back among the leaves that wanted none."""
  remaining = iter(found)
  return [next(remaining) if flag else None for flag in wanted]


class _Loop:
  """Goes over the tiles of one block of the matrix, on one device."""

  def __init__(self, tile, by_axis: dict[str, dict[str, Reduction]], lengths: tuple[int, int], dtype):
    self.tile, self.by_axis, self.lengths, self.dtype = tile, by_axis, lengths, dtype

  def identity(self, axis: str, leaves: list[jax.Array]) -> State:
    """The statistics of no columns (or rows), [n] each."""
    n = leaves[0].shape[0]
    return {
      name: (jnp.full(n, _IDENTITY[r.kind], self.dtype),)
      + ((jnp.zeros(n, self.dtype),) if r.kind == "max" else ())
      for name, r in self.by_axis[axis].items()
    }

  def _over_tiles(self, body, carry, row_side: _Side, column_side: _Side):
    """Scans `body(carry, i, j, row tile, column tile)` over all tiles, rows fastest."""
    r, c = self.lengths
    row_count, column_count = row_side.leaves[0].shape[0] // r, column_side.leaves[0].shape[0] // c

    def step(carry, k):
      i, j = (k % row_count) * r, (k // row_count) * c
      return body(carry, i, j, _cut(row_side, i, r), _cut(column_side, j, c)), None

    return lax.scan(step, carry, jnp.arange(row_count * column_count))[0]

  def forward(self, row_side: _Side, column_side: _Side, shared) -> tuple[State, State]:
    """Adds the block's columns to the row statistics; returns them and the columns' own."""

    def body(carry, i, j, rows: _Side, columns: _Side):
      values, mask = self.tile(rows.leaves, columns.leaves, shared)
      states = []
      for state, axis, at, side in (
        (carry[0], "row", i, _side(columns.mask, 0)),
        (carry[1], "column", j, _side(rows.mask, 1)),
      ):
        new = {}
        for name, (value, _, kind) in self.by_axis[axis].items():
          masked = _masked(values[value], kind, mask, side)
          part = _tile_state(kind, masked, 1 if axis == "row" else 0)
          old = tuple(lax.dynamic_slice_in_dim(x, at, part[0].shape[0]) for x in state[name])
          merged = _merge_state(kind, old, part)
          new[name] = tuple(
            lax.dynamic_update_slice_in_dim(x, y, at, 0) for x, y in zip(state[name], merged)
          )
        states.append(new)
      return tuple(states)

    start = (row_side.state, self.identity("column", column_side.leaves))
    return self._over_tiles(body, start, row_side, column_side)

  def backward(self, row_side: _Side, column_side: _Side, shared, wanted, grads):
    """Adds the block's gradients to `grads` (rows, shared); returns them and the columns' own."""

    def body(carry, i, j, rows: _Side, columns: _Side):
      active, tile = _only(wanted, (rows.leaves, columns.leaves, shared), self.tile)
      values, pull, mask = jax.vjp(tile, *active, has_aux=True)
      cotangents = {name: jnp.zeros((), x.dtype) for name, x in values.items()}
      for axis, own, side in (
        ("row", rows, _side(columns.mask, 0)),
        ("column", columns, _side(rows.mask, 1)),
      ):
        for name, (value, _, kind) in self.by_axis[axis].items():
          masked = _masked(values[value], kind, mask, side)
          g = _cotangent(kind, masked, own.state[name], own.g[name], 1 if axis == "row" else 0)
          if kind != "logsumexp":  # exp(-inf) is zero already.
            g = _masked(g, "sum", mask, side)
          cotangents[value] += g
      cotangents = {name: jnp.broadcast_to(g, values[name].shape) for name, g in cotangents.items()}
      found = pull(cotangents)
      return (
        [_add_at(total, x, i) for total, x in zip(carry[0], found[0])],
        [_add_at(total, x, j) for total, x in zip(carry[1], found[1])],
        [total + x for total, x in zip(carry[2], found[2])],
      )

    columns = [jnp.zeros_like(x) for x in _chosen(column_side.leaves, wanted[1])]
    return self._over_tiles(body, (grads[0], columns, grads[1]), row_side, column_side)


def _cut(side: _Side, start, length: int) -> _Side:
  return jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, length), side)


def _add_at(total: jax.Array, x: jax.Array, start) -> jax.Array:
  old = lax.dynamic_slice_in_dim(total, start, x.shape[0])
  return lax.dynamic_update_slice_in_dim(total, old + x, start, 0)


def _chosen(leaves, wanted) -> list[jax.Array]:
  return [x for x, flag in zip(leaves, wanted) if flag]


def _only(wanted, groups, tile):
  """The leaves to differentiate, and the tile as a function of them alone."""

  def function(*active):
    full = []
    for leaves, flags, chosen in zip(groups, wanted, active):
      chosen = iter(chosen)
      full.append([next(chosen) if flag else x for x, flag in zip(leaves, flags)])
    return tile(*full)

  return [_chosen(leaves, flags) for leaves, flags in zip(groups, wanted)], function


# ---- How columns reach the rows -----------------------------------------------------------------


def _zeros(row_side, shared, wanted):
  return (
    [jnp.zeros_like(x) for x in _chosen(row_side.leaves, wanted[0])],
    [jnp.zeros_like(x) for x in _chosen(shared, wanted[2])],
  )


class _alone:
  """One device: there is one block."""

  @staticmethod
  def forward(loop, row_side, column_side, shared, axes):
    return loop.forward(row_side, column_side, shared)

  @staticmethod
  def backward(loop, row_side, column_side, shared, wanted, axes):
    return loop.backward(
      row_side, column_side, shared, wanted, _zeros(row_side, shared, wanted)
    )


class _gathered:
  """All columns are gathered on every device; what belongs to them is reduced back."""

  @staticmethod
  def forward(loop, row_side, column_side, shared, axes):
    n = column_side.leaves[0].shape[0]
    column_side = jax.tree.map(lambda x: lax.all_gather(x, axes, tiled=True), column_side)
    row_state, state = loop.forward(row_side, column_side, shared)
    start = lax.axis_index(axes) * n
    merged = {
      name: _merge_devices(r.kind, state[name], axes)
      for name, r in loop.by_axis["column"].items()
    }
    return row_state, jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, n), merged)

  @staticmethod
  def backward(loop, row_side, column_side, shared, wanted, axes):
    column_side = jax.tree.map(lambda x: lax.all_gather(x, axes, tiled=True), column_side)
    rows, columns, shared = loop.backward(
      row_side, column_side, shared, wanted, _zeros(row_side, shared, wanted)
    )
    columns = [lax.psum_scatter(x, axes, tiled=True) for x in columns]
    return rows, columns, [lax.psum(x, axes) for x in shared]


class _ring:
  """Blocks of columns go round; at each stop, what they have gathered catches up with them.

  A step first sends the block on, and fetches what the block now here had gathered at its last
  stop; neither depends on the tiles of this step, so both can overlap with computing them. A
  block is one tile wide: a device's columns go round one block after another.
  """

  @staticmethod
  def _shift(tree, axes):
    devices = lax.axis_size(axes)
    ring = [(k, (k + 1) % devices) for k in range(devices)]
    return jax.tree.map(lambda x: lax.ppermute(x, axes, ring), tree)

  @staticmethod
  def _each_block(loop, round_trip, carry, column_side):
    """Scans `round_trip(carry, block) -> carry, what it gathered` over the device's blocks."""
    width = loop.lengths[1]
    blocks = jax.tree.map(lambda x: x.reshape(-1, width, *x.shape[1:]), column_side)
    carry, gathered = lax.scan(round_trip, carry, blocks)
    return carry, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), gathered)

  @classmethod
  def forward(cls, loop, row_side, column_side, shared, axes):
    def round_trip(row_state, block):
      def step(carry, _):
        block, gathered, row_state = carry
        following, gathered = cls._shift((block, gathered), axes)
        row_state, here = loop.forward(row_side._replace(state=row_state), block, shared)
        gathered = {
          name: _merge_state(r.kind, gathered[name], here[name])
          for name, r in loop.by_axis["column"].items()
        }
        return (following, gathered, row_state), None

      start = (block, loop.identity("column", block.leaves), row_state)
      (_, gathered, row_state), _ = lax.scan(step, start, length=lax.axis_size(axes))
      return row_state, cls._shift(gathered, axes)

    return cls._each_block(loop, round_trip, row_side.state, column_side)

  @classmethod
  def backward(cls, loop, row_side, column_side, shared, wanted, axes):
    def round_trip(grads, block):
      def step(carry, _):
        block, gathered, *grads = carry
        following, gathered = cls._shift((block, gathered), axes)
        rows, here, totals = loop.backward(row_side, block, shared, wanted, grads)
        return (following, [a + b for a, b in zip(gathered, here)], rows, totals), None

      gathered = [jnp.zeros_like(x) for x in _chosen(block.leaves, wanted[1])]
      (_, gathered, *grads), _ = lax.scan(step, (block, gathered, *grads), length=lax.axis_size(axes))
      return tuple(grads), cls._shift(gathered, axes)

    start = _zeros(row_side, shared, wanted)
    (rows, totals), columns = cls._each_block(loop, round_trip, start, column_side)
    return rows, columns, [lax.psum(x, axes) for x in totals]
