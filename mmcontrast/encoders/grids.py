"""Positions of images that keep their ratio: each has rows and columns of patches of its own (NaFlex, SigLIP 2).

A batch of them is padded to one length. Patches go row after row; what is behind the last one is padding, whose
positions are finite and mean nothing.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from mmcontrast.encoders.positions import angles2d, sincos2d_at
from mmcontrast.errors import UserError


def places(grid: jax.Array, length: int) -> tuple[jax.Array, jax.Array]:
  """The row and the column of each of `length` patches, int [B, length] each, of grids [B, 2] of rows and columns."""
  columns, at = jnp.maximum(grid[:, 1:], 1), jnp.arange(length)
  return at // columns, at % columns


def resized_to(position: jax.Array, grid: jax.Array, length: int) -> jax.Array:
  """Learned positions of a square of patches for images of other grids, [B, length, D].

  Linear interpolation, which is smoothed along an axis that has fewer patches than the square: torch's
  interpolate(mode="bilinear", antialias=True), as SigLIP 2 has it (Tschannen et al., arXiv:2502.14786, section 2.4.2).

  Args:
    position: [n * n, D].
    grid: int [B, 2], rows and columns of each image.
  Raises UserError where the positions are no square's.
  """
  side = math.isqrt(len(position))
  if side * side != len(position):
    raise UserError(
      f"{len(position)} learned positions are not a square of patches, so they cannot be resized for images of any "
      "ratio; use positions='sincos2d'"
    )
  rows, columns = (
    _linear_weights(at, grid[:, axis, None], side) for axis, at in enumerate(places(grid, length))
  )  # [B, length, side] each
  weights = (rows[..., :, None] * columns[..., None, :]).reshape(*rows.shape[:2], -1)
  return jnp.einsum("blp,pd->bld", weights, position.astype(jnp.float32), precision="highest")


def _linear_weights(at: jax.Array, count: jax.Array, side: int) -> jax.Array:
  """[B, L, side]: what each of `side` points weighs at place `at` [B, L] of `count` [B, 1] places along an axis."""
  scale = side / jnp.maximum(count, 1).astype(jnp.float32)
  centre = (at + 0.5) * scale
  reach = jnp.maximum(scale, 1.0)[..., None]
  weights = jnp.maximum(0.0, 1 - jnp.abs(jnp.arange(side) + 0.5 - centre[..., None]) / reach)
  return weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-6)


def fixed(grid: jax.Array, length: int, dim: int) -> jax.Array:
  """`positions.sincos2d` of each image's grid: [B, length, dim]."""
  return sincos2d_at(*places(grid, length), dim)


def angles(grid: jax.Array, length: int, dim: int) -> jax.Array:
  """`positions.rope2d` of each image's grid: [B, length, dim / 2]."""
  axes = zip(places(grid, length), (grid[:, :1], grid[:, 1:]))
  return angles2d(*(2 * (at + 0.5) / jnp.maximum(count, 1) - 1 for at, count in axes), dim)
