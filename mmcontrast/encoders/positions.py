"""Where a token is: fixed and learned positions that are added, and rotations of queries and keys (RoPE)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.errors import UserError


def sincos2d(height: int, width: int, dim: int, temperature: float = 10_000.0) -> np.ndarray:
  """Fixed positions [height * width, dim] as in MoCo v3: sines and cosines of x, then of y."""
  y, x = np.mgrid[:height, :width]
  return sincos2d_at(y.reshape(-1), x.reshape(-1), dim, temperature, np)


def sincos2d_at(y: Any, x: Any, dim: int, temperature: float = 10_000.0, library: Any = jnp) -> Any:
  """`sincos2d` of rows y and columns x [...]: float32 [..., dim], by numpy or JAX."""
  if dim % 4:
    raise UserError(f"positions 'sincos2d' need a width that is a multiple of 4, not {dim}")
  omega = temperature ** -(np.arange(dim // 4) / max(dim // 4 - 1, 1))
  x, y = x[..., None] * omega, y[..., None] * omega
  waves = [library.sin(x), library.cos(x), library.sin(y), library.cos(y)]
  return library.concatenate(waves, axis=-1).astype(np.float32)


def sincos1d(length: int, dim: int, temperature: float = 10_000.0) -> np.ndarray:
  """Fixed positions [length, dim] of places in time: sines, then cosines (Vaswani et al., arXiv:1706.03762)."""
  if dim % 2:
    raise UserError(f"positions in time need a width that is a multiple of 2, not {dim}")
  omega = temperature ** -(np.arange(dim // 2) / max(dim // 2 - 1, 1))
  angles = np.arange(length)[:, None] * omega
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def resize_positions(position: jax.Array, grid: tuple[int, int], extra: int, antialias: bool = False) -> jax.Array:
  """Learned positions for a grid of patches other than the square one they were made for.

  Cubic interpolation: without smoothing as in DINO (Caron et al., arXiv:2104.14294) and DINOv2, which do so at
  every call, by PyTorch's kernel; with it as in timm and open_clip when they load weights for another image size.

  Args:
    position: [1, extra + n * n, D].
    grid: rows and columns of patches.
    extra: positions that are no patch's, at the front.
    antialias: whether a smaller grid is smoothed first.
  Returns:
    [1, extra + rows * columns, D]; `position` itself where it has one for each patch.
  """
  patches = position[:, extra:]
  if patches.shape[1] == math.prod(grid):
    return position
  side = math.isqrt(patches.shape[1])
  if side * side != patches.shape[1]:
    raise UserError(
      f"{patches.shape[1]} learned positions are not a square of patches, so they cannot be resized to "
      f"{grid[0]}x{grid[1]}; use positions='sincos2d'"
    )
  square = patches.reshape(side, side, -1)
  if antialias:
    resized = jax.image.resize(square, (*grid, square.shape[-1]), "cubic", antialias=True)
  else:
    rows, columns = (cubic_weights(side, size).astype(position.dtype) for size in grid)
    resized = jnp.einsum("iy,jx,yxd->ijd", rows, columns, square, precision="highest")
  return jnp.concatenate([position[:, :extra], resized.reshape(1, -1, square.shape[-1])], axis=1)


def stretched(position: np.ndarray, length: int, keep: int = 20) -> np.ndarray:
  """Learned positions [L, D] of a text as those of a longer one, [length, D].

  The first `keep` stay, for these are well trained; those behind are stretched by linear interpolation, and where they
  end continue as they went. Source: Long-CLIP (Zhang et al., arXiv:2403.15378, section 3.1), whose 248 of 77 these are.

  Raises UserError for fewer than two positions behind those that stay.
  """
  behind = len(position) - keep
  if behind < 2:
    raise UserError(
      f"{len(position)} learned positions are not stretched to {length}: the first {keep} stay as they are, and two or "
      "more are needed behind them"
    )
  at = np.arange(length - keep) * behind / (length - keep)
  low = np.minimum(at.astype(int), behind - 2)
  share = (at - low)[:, None]
  rest = position[keep:].astype(np.float64)
  made = rest[low] * (1 - share) + rest[low + 1] * share
  return np.concatenate([position[:keep], made.astype(position.dtype)])


def cubic_weights(old: int, new: int, a: float = -0.75) -> np.ndarray:
  """[new, old]: the weights by which PyTorch's interpolate(mode="bicubic") makes `new` points of `old`.

  Keys' kernel with -0.75 for its parameter, where `jax.image` and Pillow have -0.5; the edges are repeated.
  """
  at = (np.arange(new) + 0.5) * old / new - 0.5
  taps = np.floor(at)[:, None] + np.arange(-1, 3)
  far = np.abs(at[:, None] - taps)
  near = (a + 2) * far**3 - (a + 3) * far**2 + 1
  weights = np.where(far <= 1, near, a * (far**3 - 5 * far**2 + 8 * far - 4))
  table = np.zeros((new, old))
  np.add.at(table, (np.arange(new)[:, None], np.clip(taps, 0, old - 1).astype(int)), weights)
  return table


def rope1d(length: int, dim: int, base: float = 10_000.0) -> np.ndarray:
  """Angles [length, dim / 2] of the places of a text (Su et al., arXiv:2104.09864), for heads of `dim`."""
  if dim % 2:
    raise UserError(f"positions 'rope' need heads of an even size, not {dim}")
  return np.outer(np.arange(length), base ** -(np.arange(0, dim, 2) / dim)).astype(np.float32)


def rope2d(rows: int, columns: int, dim: int, base: float = 100.0) -> np.ndarray:
  """Angles [rows * columns, dim / 2] of a grid of patches, for heads of `dim`: half for y, half for x.

  As in DINOv3 (Siméoni et al., arXiv:2508.10104): both axes of an image run from -1 to 1, so that a
  larger image has more places between, not places never seen.
  """
  y, x = np.meshgrid(*(2 * (np.arange(n) + 0.5) / n - 1 for n in (rows, columns)), indexing="ij")
  return angles2d(y.reshape(-1), x.reshape(-1), dim, base, np)


def angles2d(y: Any, x: Any, dim: int, base: float = 100.0, library: Any = jnp) -> Any:
  """`rope2d` of places y and x [...] from -1 to 1: float32 [..., dim / 2], by numpy or JAX."""
  if dim % 4:
    raise UserError(f"positions 'rope' of images need heads of a multiple of 4, not {dim}")
  frequency = 2 * np.pi * base ** -(np.arange(dim // 4) / (dim // 4))
  return library.concatenate([y[..., None] * frequency, x[..., None] * frequency], axis=-1).astype(np.float32)


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
  """Turns each pair of a head's numbers, i and i + d / 2, by its angle.

  Args:
    x: queries or keys [B, L, heads, d].
    angles: [B or 1, L, d / 2], radians; zero leaves a token as it is.
  """
  cos, sin = (f(angles.astype(jnp.float32))[:, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
