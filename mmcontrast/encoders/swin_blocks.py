"""Blocks of a Swin transformer (Liu et al., arXiv:2103.14030) on maps [B, H, W, C]: attention within windows, and the
merging of patches between stages.

Parameters of a block: norm1, attn/{qkv, proj}, position_bias, norm2, mlp/{fc1, fc2}; of a merging: norm, reduction.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dropout import DropPath
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.lowering import whole
from mmcontrast.encoders.transformer import Attention, Mlp


class WindowBlock(nn.Module):
  """Attention within windows, then an MLP, each added to what goes in (pre-norm).

  A map that is not a multiple of the window is filled up with zeros, which are attended to; one that is no larger than
  the window is one window, and not shifted.

  Attributes:
    window: side of a window, in cells. The bias of attention is learned for each distance within it (`position_bias`
      [(2 window - 1)^2, heads], rows of the vertical distance first).
    shifted: whether windows begin half a window further, and cells of the map's opposite ends do not see each other.
  """

  IS_LAYER: ClassVar = True

  heads: int
  hidden: int
  window: int
  shifted: bool
  activation: str
  qkv_bias: bool
  dropout: float
  drop_path: float
  norm_epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, C]."""
    batch, height, width, channels = x.shape
    norm = lambda name: LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)  # noqa: E731

    def added(x, y):
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
      return x + (DropPath()(y, self.drop_path) if train and self.drop_path else y)

    tokens = x.reshape(batch, -1, channels)
    y = self._attended(norm("norm1")(x)).reshape(tokens.shape)
    tokens = added(tokens, y)
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    return added(tokens, mlp(norm("norm2")(tokens), train=train)).reshape(batch, height, width, channels)

  def _attended(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    side = min(self.window, height, width)
    shift = self.window // 2 if self.shifted and min(height, width) > self.window else 0
    x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
    if shift:
      x = jnp.roll(x, (-shift, -shift), (1, 2))
    rows, columns = x.shape[1] // side, x.shape[2] // side
    mask = jnp.tile(jnp.asarray(same_region(x.shape[1], x.shape[2], side, shift)), (batch, 1, 1)) if shift else None
    y = x.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3).reshape(-1, side * side, channels)
    y = Attention(self.heads, dtype=self.dtype, qkv_bias=self.qkv_bias, name="attn")(y, mask, bias=self._bias(side))
    y = y.reshape(batch, rows, columns, side, side, channels).swapaxes(2, 3).reshape(x.shape)
    if shift:
      y = jnp.roll(y, (shift, shift), (1, 2))
    return y[:, :height, :width]

  def _bias(self, side: int) -> jax.Array:
    """[heads, side^2, side^2], by the distances between the cells of a window of `side`."""
    rows = (2 * self.window - 1) ** 2
    table = self.param("position_bias", nn.initializers.normal(0.02), (rows, self.heads), jnp.float32)
    picked = jnp.take(whole(table), distances(side, self.window).reshape(-1), axis=0)
    return picked.T.reshape(self.heads, side * side, side * side)


def distances(side: int, window: int) -> np.ndarray:
  """int [side^2, side^2]: the row of `position_bias`, for windows up to `window`, of each pair of cells of one."""
  at = np.indices((side, side)).reshape(2, -1)
  vertical, horizontal = at[:, :, None] - at[:, None, :] + window - 1
  return vertical * (2 * window - 1) + horizontal


def same_region(height: int, width: int, side: int, shift: int) -> np.ndarray:
  """bool [windows, side^2, side^2]: which cells of a window of a map that was rolled by `shift` were beside each other
  before, and not at opposite ends."""
  along = [(np.arange(size) >= size - side).astype(int) + (np.arange(size) >= size - shift) for size in (height, width)]
  region = along[0][:, None] * 3 + along[1]
  region = region.reshape(height // side, side, width // side, side).swapaxes(1, 2).reshape(-1, side * side)
  return region[:, :, None] == region[:, None, :]


class Merging(nn.Module):
  """Two by two cells become one, of twice the width: their values side by side, normalised, times a matrix. A map of an
  odd side is filled up with zeros."""

  norm_epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 2 C]."""
    channels = x.shape[-1]
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    x = jnp.concatenate([x[:, row::2, column::2] for column in range(2) for row in range(2)], axis=-1)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")(x)
    return Dense(2 * channels, use_bias=False, dtype=self.dtype, name="reduction")(x)
