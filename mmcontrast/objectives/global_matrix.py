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
softmax (Dao et al. 2022) and Inf-CL for a contrastive loss (Cheng et al. 2024). A sum over all
pairs ("all": sigmoid, hinge) needs no statistic for its gradient, which is therefore found in the
forward pass: three products, as many as the dense form. Gradients of anything shared are summed
over devices here, so take gradients outside, as for any function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from mmcontrast.errors import choose
from mmcontrast.objectives.column_movement import MOVEMENTS
from mmcontrast.objectives.reductions import Reduction, Values, masked, reduce_values, side_mask
from mmcontrast.objectives.tile_loop import REDUCED_AXIS, Block, State, TileLoop

Tree = Any
Tile = Callable[[Tree, Tree, Tree], tuple[Values, jax.Array | None]]

IMPLEMENTATIONS = ("auto", "dense", "rows", "ring")
PRECISIONS = ("highest", "high", "default")
BATCH_AXES = ("data", "fsdp")
# Tiles are of `size` rows at most and this many times as many columns; where rows are cut to equal lengths, r of them
# may be little more than size / 2, beside up to 8 * r columns.
COLUMNS_PER_ROW = 4
DENSE_BYTES = 64 << 20
GATHER_BYTES = 64 << 20


def choose_impl(rows: int, columns: int, dim: int, devices: int, cells: int = 1) -> str:
  """The rule of `impl="auto"`, in bytes a device of float32.

  dense while its four matrices (logits, two softmaxes, their gradient; `cells` numbers a pair)
  stay under DENSE_BYTES;
  then rows while the gathered columns and their gradients stay under GATHER_BYTES (one gather has
  less latency than a ring); else ring. On one device rows and ring are the same tiled loop.
  """
  if 4 * rows * columns * cells * 4 <= DENSE_BYTES * devices:
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
  cells: int = 1,
  precision: str = "highest",
) -> Values:
  """Reduces the [N, M] matrix that `tile` describes.

  Args:
    tile: makes the values of any part of the matrix (module docstring).
    reductions: name -> what to keep; at most one over "all".
    rows: tree of [N, ...].
    columns: tree of [M, ...].
    shared: tree of arrays.
    row_mask: bool [N]; a False row is absent from every column statistic.
    column_mask: bool [M]; a False column is absent from every row statistic.
    impl: one of IMPLEMENTATIONS.
    mesh: devices; None for one.
    axes: mesh axes over which rows and columns are split; by default those of BATCH_AXES.
    size: rows in a tile; it has up to COLUMNS_PER_ROW times as many columns.
    cells: numbers that the tile function holds for each pair; more of them make smaller tiles.
    precision: one of PRECISIONS, of float32 products where a device multiplies in bfloat16 (TPU: six, three or one
      product for each): `jax.lax.Precision`. A CPU has one.

  Returns:
    name -> [N], [M] or, over "all", a scalar: -inf for a log-sum-exp or maximum over nothing.
  """
  axes = batch_axes(mesh) if axes is None else tuple(axes)
  devices = math.prod(mesh.shape[name] for name in axes) if axes else 1
  n, m = _length(rows), _length(columns)
  if choose(impl, IMPLEMENTATIONS, "global matrix: impl") == "auto":
    widths = [math.prod(x.shape[1:]) for x in jax.tree.leaves(columns) if _is_float(x)]
    impl = choose_impl(n, m, max(widths, default=1), devices, cells)
  size = max(1, math.isqrt(size * size // cells))
  dtype = jnp.result_type(*(x for x in jax.tree.leaves((rows, columns)) if _is_float(x)))
  tile = _cast(tile, dtype, choose(precision, PRECISIONS, "global matrix: precision"))
  if impl == "dense":
    return _dense(tile, reductions, rows, columns, shared, row_mask, column_mask)
  row_length, row_count = _split(-(-n // devices), size)
  column_length, column_count = _split(-(-m // devices), COLUMNS_PER_ROW * size)
  rows, row_mask = _pad(rows, row_mask, devices * row_length * row_count)
  columns, column_mask = _pad(columns, column_mask, devices * column_length * column_count)
  if impl == "rows":  # All columns meet the rows at once, so tiles may hold several blocks.
    several = range(1, devices * column_count + 1)
    column_length *= max(
      k for k in several if devices * column_count % k == 0 and (k == 1 or k * column_length <= COLUMNS_PER_ROW * size)
    )
  axes = axes if devices > 1 else ()
  matrix = _TiledMatrix(tile, reductions, impl, mesh, axes, (row_length, column_length), dtype)
  stats = matrix.function()((rows, row_mask), (columns, column_mask), shared)
  ends = {"row": slice(n), "column": slice(m), "all": ...}
  return {name: stats[name][ends[r.axis]] for name, r in reductions.items()}


def _dense(tile, reductions, rows, columns, shared, row_mask, column_mask) -> Values:
  values, mask = tile(rows, columns, shared)
  stats = {}
  for name, (value, axis, kind) in reductions.items():
    by_row = None if axis == "row" else side_mask(row_mask, 1)
    by_column = None if axis == "column" else side_mask(column_mask, 0)
    stats[name] = reduce_values(kind, masked(values[value], kind, mask, by_row, by_column), REDUCED_AXIS[axis])
  return stats


def _cast(tile: Tile, dtype, precision: str) -> Tile:
  """`tile` with values of one type, and its products in one precision."""

  def cast(rows, columns, shared):
    with jax.default_matmul_precision(precision):
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


@jax.tree_util.register_static
class _Wanted(tuple):
  """Which leaves of (rows, columns, shared) need a gradient."""


class _Residuals(NamedTuple):
  """What the backward pass needs of the forward one.

  inputs: (rows, mask), (columns, mask), shared; states: of all reductions; grads: of the sum over all pairs, found in
  the forward pass, of the leaves of rows, columns and shared; wanted: which leaves need a gradient.
  """

  inputs: tuple[Any, Any, Tree]
  states: State
  grads: list[list[jax.Array]]
  wanted: list[_Wanted]


class _TiledMatrix:
  """Statistics of a matrix in tiles, with their own gradient: `((rows, mask), (columns, mask), shared) -> Values`."""

  def __init__(
    self,
    tile: Tile,
    reductions: Mapping[str, Reduction],
    impl: str,
    mesh: Mesh | None,
    axes: tuple[str, ...],
    lengths: tuple[int, int],
    dtype: Any,
  ):
    """`axes`: of the mesh, that rows and columns are split over; () on one device. `lengths`: of a tile."""
    self._tile, self._reductions, self._mesh, self._axes = tile, reductions, mesh, axes
    self._lengths, self._dtype = lengths, dtype
    self._move = MOVEMENTS[impl if axes else "alone"]
    self._total = next((name for name, r in reductions.items() if r.axis == "all"), None)

  def function(self) -> Callable[[Any, Any, Tree], Values]:
    """The differentiable function."""

    @jax.custom_vjp
    def run(rows, columns, shared):
      return self._values(self._reduce(rows, columns, shared, None)[0])

    run.defvjp(self._forward, self._backward, symbolic_zeros=True)
    return run

  def _forward(self, *arguments: Any) -> tuple[Values, _Residuals]:
    def is_primal(x):
      return hasattr(x, "perturbed")

    wanted = [
      _Wanted(x.perturbed and _is_float(x.value) for x in jax.tree.leaves(a, is_leaf=is_primal))
      for a in (arguments[0][0], arguments[1][0], arguments[2])
    ]
    inputs = jax.tree.map(lambda x: x.value, arguments, is_leaf=is_primal)
    states, grads = self._reduce(*inputs, wanted if self._total else None)
    return self._values(states), _Residuals(inputs, states, grads, wanted)

  def _backward(self, residuals: _Residuals, cotangents: Mapping[str, Any]) -> tuple[Any, Any, Tree]:
    (rows, columns, shared), states, grads, wanted = residuals
    cotangents = {name: g for name, g in cotangents.items() if not isinstance(g, SymbolicZero)}
    sums = None
    if self._total in cotangents:
      sums = [[cotangents[self._total] * x for x in part] for part in grads]
    by_axis = [
      {name: g for name, g in cotangents.items() if self._reductions[name].axis == axis} for axis in ("row", "column")
    ]
    if any(by_axis):
      blocks = [Block(*side, {name: states[name] for name in g}, g) for side, g in zip((rows, columns), by_axis)]
      swept = [part.grads for part in self._sweep(blocks, shared, reduce=False, wanted=wanted)]
      sums = swept if sums is None else jax.tree.map(jnp.add, sums, swept)
    of_rows, of_columns, of_shared = (
      jax.tree.unflatten(jax.tree.structure(tree), _spread(part, flags))
      for tree, part, flags in zip((rows[0], columns[0], shared), sums, wanted)
    )
    return (of_rows, None), (of_columns, None), of_shared

  def _reduce(self, rows: Any, columns: Any, shared: Tree, wanted: list[_Wanted] | None) -> tuple[State, list]:
    """The states of all reductions, and the gradients of the sum over all pairs where any are `wanted`."""
    blocks = [Block(*side, {}, {}) for side in (rows, columns)]
    parts = self._sweep(blocks, shared, reduce=True, wanted=wanted)
    states = {name: state for part in parts for name, state in part.states.items()}
    return states, [part.grads for part in parts]

  def _sweep(self, blocks: list[Block], shared: Tree, *, reduce: bool, wanted: list[_Wanted] | None) -> tuple:
    """What accumulates over all tiles: of the rows, the columns and the whole matrix (tile_loop.Running each)."""
    structures = [jax.tree.structure(tree) for tree in (blocks[0].leaves, blocks[1].leaves, shared)]
    blocks = [block._replace(leaves=jax.tree.leaves(block.leaves)) for block in blocks]

    def flat_tile(*parts):
      return self._tile(*map(jax.tree.unflatten, structures, parts))

    loop = TileLoop(flat_tile, self._reductions, self._lengths, self._dtype, reduce=reduce, wanted=wanted)

    def on_device(rows, columns, shared):
      return self._move(loop, rows, columns, shared, self._axes)

    if self._axes:
      specs = (P(self._axes), P(self._axes), P())
      on_device = jax.shard_map(on_device, mesh=self._mesh, in_specs=specs, out_specs=specs, check_vma=False)
    return on_device(*blocks, jax.tree.leaves(shared))

  @staticmethod
  def _values(states: State) -> Values:
    return {name: state[0] for name, state in states.items()}


def _spread(gradients: list[jax.Array], wanted: Sequence[bool]) -> list[jax.Array | None]:
  """Gradients of the leaves that are wanted -> of all leaves, None of the others."""
  remaining = iter(gradients)
  return [next(remaining) if flag else None for flag in wanted]
