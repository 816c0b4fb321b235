"""Swin (Liu et al., arXiv:2103.14030): a transformer within windows that shift from block to block, of images; and
HTS-AT (Chen et al., arXiv:2202.00874), the same on folded spectrograms, which is CLAP's audio encoder.

Parameters: input_norm (of spectrograms), patch_embed, patch_norm, stages_0/{blocks_0/... (see swin_blocks.py), merge},
norm.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.conv import Conv
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.folded_spectrogram import folded, strips_of, unfolded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.norm import BatchNorm
from mmcontrast.encoders.swin_blocks import Merging, WindowBlock
from mmcontrast.encoders.transformer import ACTIVATIONS, check_heads, masked_mean
from mmcontrast.errors import UserError


class Swin(nn.Module):
  """Images [B, H, W, 3], or spectrograms [B, F, M], to the cells of the last map and their mean.

  A spectrogram is batch-normalised by filter, stretched to a square of `fold` and cut into strips that lie one below
  the other. So frames that are padded are zeros that a tower sees, unless the front end fills them
  (data.audio.log_mel.padding="repeat_whole" is CLAP's): their values change nothing, their number does; cells of
  padding alone are not pooled.

  Attributes:
    stages: blocks in each stage; every second one has its windows shifted.
    width: channels of the first stage, doubled at each next one.
    heads: of attention, in each stage.
    patch: side of a patch.
    stride: from one patch to the next; None: `patch`.
    window: side of the windows, in cells.
    fold: side of the square of a spectrogram, which is as many strips as its filters fit in; 0: for images.
    qkv_bias: whether queries, keys and values have biases.
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    bn_momentum: share of the old running statistic of the batch norm of spectrograms that is kept.
  """

  OF_IMAGES: ClassVar = True  # see `Frames`
  CHOICES: ClassVar = {"pool": ("gap",), "activation": tuple(ACTIVATIONS), "dtype": DTYPES}

  stages: tuple[int, ...] = (2, 2, 6, 2)
  width: int = 96
  heads: tuple[int, ...] = (3, 6, 12, 24)
  patch: int = 4
  stride: int | None = None
  window: int = 7
  fold: int = 0
  mlp_ratio: float = 4.0
  pool: str = "gap"
  activation: str = "gelu"
  qkv_bias: bool = True
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-5
  bn_momentum: float = 0.9
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if len(self.stages) != len(self.heads) or not all(isinstance(n, int) and n > 0 for n in self.stages):
      raise UserError(
        f"stages={tuple(self.stages)}, heads={tuple(self.heads)}: give the blocks, 1 or more, and the heads of each "
        "stage, such as (2, 2, 6, 2) and (3, 6, 12, 24)"
      )
    for number, heads in enumerate(self.heads):
      check_heads(self.width * 2**number, heads)
    if self.window < 2:
      raise UserError(f"window={self.window}: attention within windows of one cell; give 2 or more (Swin: 7)")
    if self.stride is not None and not 0 < self.stride <= self.patch:
      raise UserError(
        f"stride={self.stride} leaves pixels out between patches of {self.patch}; it is at most the patch"
      )

  @nn.compact
  def __call__(self, inputs: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """images [B, H, W, 3] normalised; or spectrograms [B, F, M] and the mask of their frames [B, F] -> pooled [B, D],
    tokens [B, L, D] in `dtype`, of spectrograms those of the first moment first with their mask (None without one), and
    grid: rows and columns, or places in time and in frequency."""
    if (inputs.ndim == 3) != (self.fold > 0):
      raise UserError(
        "fold=0 is a tower of images, and these are spectrograms; set fold to the side of the square that they become "
        "(CLAP: 256)"
        if inputs.ndim == 3
        else f"fold={self.fold} is a tower of spectrograms, and these are images; leave it out"
      )
    if inputs.ndim == 4:
      x = self._through_stages(inputs, train)
      tokens = x.reshape(len(x), -1, x.shape[-1])
      return Encoded(tokens.mean(1), tokens, grid=x.shape[1:3])
    frames, filters = inputs.shape[1:]
    strips = strips_of(self.fold, filters, frames)
    hidden = None if mask is None else ~mask[..., None]
    x = inputs if mask is None else jnp.where(hidden, 0, inputs)
    x = BatchNorm(self.bn_momentum, name="input_norm")(x, mask, train=train)
    x = x if mask is None else jnp.where(hidden, 0, x)
    x = unfolded(self._through_stages(folded(x, self.fold), train), strips)
    times, places = x.shape[1:3]
    tokens = x.reshape(len(x), -1, x.shape[-1])
    if mask is not None:
      real = jnp.arange(times) * frames < mask.sum(1, keepdims=True) * times
      mask = jnp.repeat(real, places, axis=1)
    return Encoded(masked_mean(tokens, mask), tokens, mask, grid=(times, places))

  def _through_stages(self, x: jax.Array, train: bool) -> jax.Array:
    """[B, H, W, channels] -> [B, h, w, D], normalised."""
    dtype, stride = jnp.dtype(self.dtype), self.stride or self.patch
    if stride == self.patch and (x.shape[1] % stride or x.shape[2] % stride):
      raise UserError(f"images of {x.shape[1]}x{x.shape[2]} do not split into patches of {self.patch} px")
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    x = Conv(
      self.width, self.patch, stride, padding=(self.patch - stride) // 2, use_bias=True, dtype=dtype,
      kernel_init=nn.initializers.lecun_normal(), name="patch_embed",
    )(x.astype(dtype))  # fmt: skip
    x = nn.Dropout(self.dropout)(norm(name="patch_norm")(x), deterministic=not train)
    first, last = 0, max(sum(self.stages) - 1, 1)
    for number, (depth, heads) in enumerate(zip(self.stages, self.heads)):
      width = self.width * 2**number
      block = functools.partial(
        WindowBlock, heads, round(width * self.mlp_ratio), self.window, activation=self.activation,
        qkv_bias=self.qkv_bias, dropout=self.dropout, norm_epsilon=self.norm_epsilon, dtype=dtype,
      )  # fmt: skip
      merging = functools.partial(Merging, self.norm_epsilon, dtype) if number < len(self.stages) - 1 else None
      drop_paths = tuple(self.drop_path * place / last for place in range(first, first + depth))
      x = _Stage(block, drop_paths, merging, name=f"stages_{number}")(x, train=train)
      first += depth
    return norm(name="norm")(x)


class _Stage(nn.Module):
  """The blocks of one resolution, one for each of `drop_paths`, and the merging of patches behind them, if any."""

  block: Any
  drop_paths: tuple[float, ...]
  merging: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H / 2, W / 2, 2 C]; without merging [B, H, W, C]."""
    for number, drop_path in enumerate(self.drop_paths):
      x = self.block(shifted=number % 2 == 1, drop_path=drop_path, name=f"blocks_{number}")(x, train=train)
    return x if self.merging is None else self.merging(name="merge")(x)


swin_small = functools.partial(Swin, stages=(2, 2, 18, 2))
swin_base = functools.partial(Swin, stages=(2, 2, 18, 2), width=128, heads=(4, 8, 16, 32))
htsat = functools.partial(Swin, heads=(4, 8, 16, 32), window=8, fold=256)
