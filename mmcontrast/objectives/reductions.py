"""Reductions of a matrix along its rows or columns, tile by tile.

Each kind is a commutative monoid: what one tile gives, how two tiles' results merge, and the
gradient of the final result with respect to a tile's values, from that result only. While tiles
go by, a reduction is a state: one array, or for a maximum two (it counts its ties, among which its
gradient is split).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Reduction(NamedTuple):
  """What to keep of one value: over each "row" or "column", by "logsumexp", "sum" or "max"; or its sum over "all"."""

  value: str
  axis: str
  kind: str


Values = dict[str, jax.Array]
"""Name -> the values of a tile, or a statistic of them."""

IDENTITY = {"logsumexp": -jnp.inf, "sum": 0.0, "max": -jnp.inf}


def _log_sum(terms: jax.Array, peak: jax.Array, axis: int) -> jax.Array:
  """`log(sum(exp(terms)))` along `axis`, -inf (gradient zero) where there is nothing to sum."""
  peak = lax.stop_gradient(jnp.where(jnp.isfinite(peak), peak, 0.0))
  total = jnp.sum(jnp.exp(terms - jnp.expand_dims(peak, axis)), axis)
  some = total != 0  # so that NaN stays NaN
  return jnp.where(some, peak + jnp.log(jnp.where(some, total, 1.0)), -jnp.inf)


def reduce_values(kind: str, values: jax.Array, axis: int | None) -> jax.Array:
  """Reduces a whole matrix along `axis` (None: both, of a sum), in plain differentiable operations."""
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


def tile_state(kind: str, values: jax.Array, axis: int | None) -> tuple[jax.Array, ...]:
  """As `reduce_values`; a maximum also counts its ties, among which its gradient is split."""
  result = reduce_values(kind, values, axis)
  if kind != "max":
    return (result,)
  return result, jnp.sum(values == jnp.expand_dims(result, axis), axis, dtype=values.dtype)


def merge_state(kind: str, a: tuple, b: tuple) -> tuple[jax.Array, ...]:
  """As `merge`, ties included."""
  peak = merge(kind, a[0], b[0])
  if kind != "max":
    return (peak,)
  return peak, a[1] * (a[0] == peak) + b[1] * (b[0] == peak)


def merge_devices(kind: str, state: tuple, axes: tuple[str, ...]) -> tuple[jax.Array, ...]:
  """Merges the states that the devices hold for the same rows or columns."""
  if kind == "sum":
    return (lax.psum(state[0], axes),)
  peak = lax.pmax(state[0], axes)
  if kind == "max":
    return peak, lax.psum(state[1] * (state[0] == peak), axes)
  shift = jnp.where(jnp.isfinite(peak), peak, 0.0)
  return (shift + jnp.log(lax.psum(jnp.exp(state[0] - shift), axes)),)


def cotangent(kind: str, values: jax.Array, state: tuple, g: jax.Array, axis: int) -> jax.Array:
  """The gradient of one reduction with respect to (masked) values of a tile."""
  state = tuple(jnp.expand_dims(part, axis) for part in state)
  g = jnp.expand_dims(g, axis)
  if kind == "logsumexp":  # An empty sum (-inf) has no gradient: exp(values - inf) = 0.
    return g * jnp.exp(values - jnp.where(state[0] == -jnp.inf, jnp.inf, state[0]))
  if kind == "max":
    return jnp.where(values == state[0], g / jnp.maximum(state[1], 1.0), 0.0)
  return jnp.broadcast_to(g, values.shape)


def masked(values: jax.Array, kind: str, *masks: jax.Array | None) -> jax.Array:
  """Values with the identity of `kind` where a mask is False."""
  for mask in masks:
    if mask is not None:
      values = jnp.where(mask, values, IDENTITY[kind])
  return values


def side_mask(mask: jax.Array | None, axis: int) -> jax.Array | None:
  """The mask of rows (`axis` 1) or columns (0) as one that broadcasts over a tile."""
  return None if mask is None else jnp.expand_dims(mask, axis)
