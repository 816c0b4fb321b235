"""Boxes of views and regions, and feature maps cut along them.

A box is x0, y0, x1, y1 in shares of the sides of the image; x0 > x1: what lies in it is mirrored. A box of a view
says where the view was cut (docs/modalities.md). Of boxes without area nothing is divided by zero.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

LEAST_AREA = 1e-6  # of the image: less is no region


def places(box: jax.Array, grid: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
  """Where the cells of a view's map are in the image.

  Args:
    box: [N, 4], of the view.
    grid: rows and columns of its map.
  Returns:
    (centres [N, rows * columns, 2], x and y; diagonal [N] of a cell).
  """
  rows, columns = grid
  wide, high = (box[:, 2] - box[:, 0]) / columns, (box[:, 3] - box[:, 1]) / rows
  x = box[:, :1] + (jnp.arange(columns) + 0.5) * wide[:, None]
  y = box[:, 1:2] + (jnp.arange(rows) + 0.5) * high[:, None]
  x, y = jnp.broadcast_arrays(x[:, None, :], y[:, :, None])
  return jnp.stack([x, y], -1).reshape(len(box), -1, 2), jnp.sqrt(wide**2 + high**2)


def common(a: jax.Array, b: jax.Array) -> jax.Array:
  """[N, 4], [N, 4] -> [N, 4]: what both boxes hold, not mirrored; x0 >= x1 or y0 >= y1 where that is nothing."""
  a, b = upright(a), upright(b)
  return jnp.concatenate([jnp.maximum(a[:, :2], b[:, :2]), jnp.minimum(a[:, 2:], b[:, 2:])], 1)


def upright(box: jax.Array) -> jax.Array:
  """[N, 4] -> [N, 4], not mirrored."""
  x0, y0, x1, y1 = jnp.moveaxis(box, 1, 0)
  return jnp.stack([jnp.minimum(x0, x1), jnp.minimum(y0, y1), jnp.maximum(x0, x1), jnp.maximum(y0, y1)], 1)


def area(box: jax.Array) -> jax.Array:
  """[N, 4] -> [N], 0 where a side is 0 or less."""
  return jnp.prod(jnp.maximum(box[:, 2:] - box[:, :2], 0.0), 1)


def within(box: jax.Array, view: jax.Array) -> jax.Array:
  """[N, 4], [N, 4] -> [N, 4]: a box of the image in shares of the sides of a view; x0 > x1 where that is mirrored."""
  sides = view[:, 2:] - view[:, :2]
  sides = jnp.where(sides == 0, 1.0, sides)
  return jnp.concatenate([(box[:, :2] - view[:, :2]) / sides, (box[:, 2:] - view[:, :2]) / sides], 1)


def in_view(box: jax.Array, view: jax.Array, seen: float) -> tuple[jax.Array, jax.Array]:
  """What of a region of the image is in a view.

  Args:
    box: [N, 4], the region's, of the image. view: [N, 4], where the view was cut.
    seen: the least share of the region's area that must be in the view.
  Returns:
    (box [N, 4] in shares of the sides of the view, x0 > x1 where that is mirrored, zeros where the region is not in it;
    bool [N], whether it is, which no region without an area is).
  """
  cut = common(box, view)
  some = (area(box) > LEAST_AREA) & (area(cut) >= seen * area(box))
  return jnp.where(some[:, None], within(cut, view), 0.0), some


def roi_align(x: jax.Array, box: jax.Array, size: tuple[int, int], points: int = 1) -> jax.Array:
  """A map resampled within a box, as torchvision's `roi_align(aligned=True)`; mirrored where the box is.

  Args:
    x: [N, rows, columns, D].
    box: [N, 4], in shares of the sides of the map.
    size: rows and columns of the result.
    points: a side, that a cell of the result is the mean of (torchvision, adaptive: the cells of the map that a cell
      of the result covers, rounded up).
  Returns:
    [N, *size, D].
  """
  flat = upright(box)
  down = _line(flat[:, 1], flat[:, 3], x.shape[1], size[0], points).astype(x.dtype)
  across = _line(flat[:, 0], flat[:, 2], x.shape[2], size[1], points).astype(x.dtype)
  across = jnp.where((box[:, 0] > box[:, 2])[:, None, None], across[:, ::-1], across)
  return jnp.einsum("nir,njc,nrcd->nijd", down, across, x)


def sampled(x: jax.Array, at: jax.Array) -> jax.Array:
  """A map [N, rows, columns, D] at points [N, K, 2], x and y in shares of its sides, between cells by straight lines:
  [N, K, D]."""

  def weights(places: jax.Array, cells: int) -> jax.Array:
    near = jnp.clip(places * cells - 0.5, 0, cells - 1)[..., None]
    return jnp.maximum(1 - jnp.abs(near - jnp.arange(cells)), 0.0).astype(x.dtype)

  return jnp.einsum("nkr,nkc,nrcd->nkd", weights(at[..., 1], x.shape[1]), weights(at[..., 0], x.shape[2]), x)


def _line(low: jax.Array, high: jax.Array, cells: int, size: int, points: int) -> jax.Array:
  """Weights [N, size, cells] of the cells of a line in each of `size` parts of it from `low` to `high` [N]."""
  steps = (jnp.arange(size * points) + 0.5) / (size * points)
  at = (low[:, None] + (high - low)[:, None] * steps) * cells - 0.5
  outside = (at < -1) | (at > cells)
  at = jnp.clip(at, 0, cells - 1)[..., None]
  weights = jnp.where(outside[..., None], 0.0, jnp.maximum(1 - jnp.abs(at - jnp.arange(cells)), 0.0))
  return weights.reshape(len(low), size, points, cells).mean(2)
