"""A vision transformer of tubelets, boxes of pixels and time, which may see few of them (VideoMAE, arXiv:2203.12602).

Parameters: patch_embed, blocks_0/... (transformer.py), norm or fc_norm, or neither.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.sizes import nearest_multiples
from mmcontrast.encoders.token_transformer import through_blocks
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads
from mmcontrast.errors import UserError


class TubeletViT(nn.Module):
  """Videos [B, T, H, W, 3] to one vector and the tokens of their tubelets, time first, then rows.

  Positions are fixed sines and cosines of the place in that order. All tubelets attend to each other.

  Attributes:
    tubelet: frames, and pixels a side.
    mlp_ratio: hidden width of an MLP over `width`.
    leave_out: share of the tubelets that views with a mask leave out in training (`video_masked`): that of
      config.data.video.masked.
    norm_after_pool: the last norm is of the mean ("fc_norm"), not of the tokens ("norm").
    last_norm: whether there is a last norm at all.
    pool_epsilon: of the norm of the mean; None: `norm_epsilon`.
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES}

  width: int = 384
  depth: int = 12
  heads: int = 6
  tubelet: tuple[int, int] = (2, 16)
  mlp_ratio: float = 4.0
  leave_out: float = 0.0
  norm_after_pool: bool = False
  last_norm: bool = True
  pool_epsilon: float | None = None
  activation: str = "gelu"
  norm_epsilon: float = 1e-6
  drop_path: float = 0.0
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if len(self.tubelet) != 2 or min(self.tubelet) < 1:
      raise UserError(f"tubelet={self.tubelet}: give (frames, pixels a side), such as (2, 16)")

  @nn.compact
  def __call__(self, videos: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """videos [B, T, H, W, 3] normalised, mask [B, L] bool, False where a tubelet is hidden -> pooled [B, D], tokens
    [B, L or fewer, D], `places` of those that were seen and the grid (times, rows, columns) of all."""
    dtype = jnp.dtype(self.dtype)
    cut, grid = tubelets_of(videos, self.tubelet)
    count = math.prod(grid)
    if mask is not None and mask.shape[1] != count:
      raise UserError(
        f"data.video.masked.tubelet: hides some of {mask.shape[1]} tubelets, and the tower has {count}; set it to "
        f"({self.tubelet[0]}, {self.tubelet[1]}, {self.tubelet[1]})"
      )
    x = Dense(self.width, dtype=dtype, name="patch_embed")(cut.astype(dtype))
    x = x + jnp.asarray(sincos1d(count, self.width)[None], dtype)
    places = None
    if mask is not None and train:
      if not self.leave_out:
        raise UserError("tubelets are hidden from a tower that leaves none out; set its leave_out to the share hidden")
      # As many of each time are hidden, so of all: the rounding is that of one time.
      side = grid[1] * grid[2]
      kept = grid[0] * (side - round(side * self.leave_out))
      places = jnp.argsort(~mask, axis=1, stable=True)[:, :kept]
      x = jnp.take_along_axis(x, places[..., None], axis=1)
    x = through_blocks(self, x, train=train)
    if self.last_norm and not self.norm_after_pool:
      x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    pooled = x.mean(1)
    if self.last_norm and self.norm_after_pool:
      pooled = LayerNorm(epsilon=self.pool_epsilon or self.norm_epsilon, dtype=dtype, name="fc_norm")(pooled)
    return Encoded(pooled, x, places=places, grid=None if places is not None else grid, whole=grid)


def tubelets_of(videos: jax.Array, tubelet: tuple[int, int]) -> tuple[jax.Array, tuple[int, int, int]]:
  """[B, T, H, W, C] -> ([B, L, t * p * p * C], (times, rows, columns)): time first, then rows; each the same way."""
  (frames, side), (batch, times, height, width, channels) = tubelet, videos.shape
  if times % frames or height % side or width % side:
    of_side = height if height % side else width
    key, size, part = ("size", of_side, side) if of_side % side else ("frames", times, frames)
    raise UserError(
      f"clips of {times} frames of {height}x{width} do not split into tubelets of {frames} frames of {side} px; set "
      f"config.data.video.{key} to {nearest_multiples(size, part)}, or tubelet to what divides both"
    )
  grid = (times // frames, height // side, width // side)
  x = videos.reshape(batch, grid[0], frames, grid[1], side, grid[2], side, channels)
  return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, math.prod(grid), -1), grid


def sincos1d(length: int, dim: int, base: float = 10_000.0) -> np.ndarray:
  """float32 [length, dim]: sine and cosine of each place by turns, as in the first transformer (arXiv:1706.03762)."""
  angles = np.arange(length)[:, None] / base ** (2 * (np.arange(dim) // 2) / dim)
  return np.where(np.arange(dim) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
