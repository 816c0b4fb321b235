"""A small convolutional network on spectrograms, in the manner of PANNs' (Kong et al., arXiv:1912.10211).

Parameters: stem, stages_0/{conv1, norm1, conv2, norm2}, ...
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.conv import LOWERINGS, Conv, average_pool
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import masked_mean
from mmcontrast.errors import UserError


class Stage(nn.Module):
  """Two 3x3 convolutions, each with a norm; cells beyond the sound stay zero, as at any border."""

  IS_LAYER: ClassVar = True

  width: int
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array, real: jax.Array) -> jax.Array:
    """[B, T, N, C], [B, T, 1, 1] -> [B, T, N, width]."""
    for i in (1, 2):
      x = nn.relu(self.norm(name=f"norm{i}")(self.conv(self.width, name=f"conv{i}")(x)))
      x = jnp.where(real, x, 0)
    return x


class AudioConvNet(nn.Module):
  """Spectrograms [B, F, M] and the mask of their frames to a feature map, its mean, and its cells as tokens.

  Channels are normalised at each cell by itself (LayerNorm, as ConvNeXt does), where PANNs has batch norm: the
  statistics of a batch would see padding. Between stages means are taken over 2 x 2 cells, of the real ones. So padded
  frames change nothing, neither by their values nor by their number.

  Attributes:
    stages: how many, each of two convolutions and with twice the channels of the one before.
    width: channels of the first stage.
    stem: cells on a side of the patches that the first convolution reads, which do not overlap; 1: it is a 3x3
      convolution. Twice the side costs a quarter of the time.
    lowering: of convolutions, see `conv.Conv`.
  """

  CHOICES: ClassVar = {"pool": ("gap",), "lowering": LOWERINGS, "dtype": DTYPES}

  stages: int = 4
  width: int = 32
  stem: int = 2
  pool: str = "gap"
  dropout: float = 0.0
  norm_epsilon: float = 1e-6
  lowering: str = "auto"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    for name in ("stages", "width", "stem"):
      if not isinstance(value := getattr(self, name), int) or value < 1:
        raise UserError(f"{name}={value!r}: give a whole number over 0")

  @nn.compact
  def __call__(self, spectrograms: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """spectrograms [B, F, M] normalised, mask [B, F] bool or None -> pooled [B, D], tokens [B, L, D] in `dtype`, their
    mask [B, L] (None without a mask) and grid (places in time, in frequency)."""
    dtype = jnp.dtype(self.dtype)
    side = self.stem * 2 ** (self.stages - 1)
    whole = mask is None
    mask = jnp.ones(spectrograms.shape[:2], bool) if whole else mask
    edges = [-size % side for size in spectrograms.shape[1:]]  # so that no pool leaves a cell out
    x = jnp.where(mask[..., None], spectrograms, 0).astype(dtype)
    x = jnp.pad(x, ((0, 0), (0, edges[0]), (0, edges[1])))[..., None]
    frames = mask.sum(1)
    real = _real(frames, 1, x.shape[1])
    conv = functools.partial(Conv, dtype=dtype, lowering=self.lowering)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    if self.stem > 1:
      x = conv(self.width, self.stem, self.stem, padding=0, use_bias=True, name="stem")(x)
      real = _real(frames, self.stem, x.shape[1])
      x = jnp.where(real, x, 0)  # not its bias
    for i in range(self.stages):
      if i:
        x, real = _pooled(x, real), _real(frames, self.stem * 2**i, x.shape[1] // 2)
      x = Stage(self.width * 2**i, conv, norm, name=f"stages_{i}")(x, real)
      x = nn.Dropout(self.dropout)(x, deterministic=not train)
    grid = x.shape[1:3]
    tokens = x.reshape(len(x), -1, x.shape[-1])
    mask = jnp.repeat(real[:, :, 0, 0], grid[1], axis=1)
    return Encoded(masked_mean(tokens, mask), tokens, None if whole else mask, grid=grid)


def _real(frames: jax.Array, size: int, count: int) -> jax.Array:
  """bool [B, count, 1, 1]: which cells of `size` frames have a real one."""
  return (jnp.arange(count) * size < frames[:, None])[..., None, None]


def _pooled(x: jax.Array, real: jax.Array) -> jax.Array:
  """[B, T, N, C], zero where not `real` -> [B, T / 2, N / 2, C], means over the real cells."""
  share = average_pool(jnp.broadcast_to(real, (*x.shape[:2], 2, 1)).astype(x.dtype), 2)
  return average_pool(x, 2) / jnp.maximum(share, 0.5)
