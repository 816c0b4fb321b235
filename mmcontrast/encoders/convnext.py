"""ConvNeXt (Liu et al., arXiv:2201.03545).

Parameter names are timm's with the dots of lists written as underscores: stem_0 (convolution), stem_1
(norm), stages_0/{downsample_0 (norm), downsample_1 (convolution)}, stages_0/blocks_0/{conv_dw, norm,
mlp/fc1, mlp/fc2, gamma}, head/norm.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.conv import LOWERINGS, Conv
from mmcontrast.encoders.depthwise import DepthwiseConv
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import ACTIVATIONS, Mlp

INITIAL = nn.initializers.truncated_normal(0.02)


class Block(nn.Module):
  """x + gamma * mlp(norm(depthwise 7x7(x)))."""

  IS_LAYER: ClassVar = True

  layer_scale: float
  drop_path: float
  activation: str
  norm: Any
  lowering: str
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, C]."""
    width = x.shape[-1]
    y = DepthwiseConv(7, lowering=self.lowering, dtype=self.dtype, kernel_init=INITIAL, name="conv_dw")(x)
    y = Mlp(4 * width, self.activation, dtype=self.dtype, name="mlp")(self.norm(name="norm")(y), train=train)
    gamma = self.param("gamma", nn.initializers.constant(self.layer_scale), (width,), jnp.float32)
    y = y * gamma.astype(y.dtype)
    return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3))(y, deterministic=not train)


class Stage(nn.Module):
  """Blocks at one resolution; before them, but in the first stage, a norm and a 2x2 convolution of stride 2."""

  width: int
  downsample: bool
  drop_paths: tuple[float, ...]
  conv: Any
  block: Any
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H / 2, W / 2, width], or [B, H, W, width] without `downsample`."""
    if self.downsample:
      x = self.conv(self.width, 2, 2, name="downsample_1")(self.norm(name="downsample_0")(x))
    for j, drop_path in enumerate(self.drop_paths):
      x = self.block(drop_path=drop_path, name=f"blocks_{j}")(x, train=train)
    return x


class Head(nn.Module):
  """The norm after pooling; a module of its own because of its published name."""

  norm: Any

  @nn.compact
  def __call__(self, pooled: jax.Array) -> jax.Array:
    """[B, D] -> [B, D]."""
    return self.norm(name="norm")(pooled)


class ConvNeXt(nn.Module):
  """Images [B, H, W, 3] to a feature map, its normalised mean, and its cells as tokens.

  Attributes:
    stages: blocks in each stage.
    width: channels of the first stage, doubled at each next one.
    layer_scale: initial value of gamma.
    drop_path: of the last block, rising linearly from zero at the first.
    lowering: of convolutions, see `conv.Conv`.
  """

  OF_IMAGES: ClassVar = True  # see `Frames`
  CHOICES: ClassVar = {
    "pool": ("gap",), "activation": tuple(ACTIVATIONS), "lowering": LOWERINGS, "dtype": DTYPES,
  }  # fmt: skip

  stages: tuple[int, ...] = (3, 3, 9, 3)
  width: int = 96
  pool: str = "gap"
  activation: str = "gelu"
  layer_scale: float = 1e-6
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  lowering: str = "auto"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, images: jax.Array, mask: None = None, *, train: bool) -> Encoded:
    """images [B, H, W, 3] normalised -> pooled [B, D], tokens [B, h w, D] in `dtype`."""
    del mask
    dtype = jnp.dtype(self.dtype)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    conv = functools.partial(Conv, padding=0, use_bias=True, dtype=dtype, lowering=self.lowering, kernel_init=INITIAL)
    block = functools.partial(
      Block, self.layer_scale, activation=self.activation, norm=norm, lowering=self.lowering, dtype=dtype
    )
    x = norm(name="stem_1")(conv(self.width, 4, 4, name="stem_0")(images.astype(dtype)))
    first, last = 0, max(sum(self.stages) - 1, 1)
    for i, depth in enumerate(self.stages):
      drop_paths = tuple(self.drop_path * k / last for k in range(first, first + depth))
      first += depth
      x = Stage(self.width * 2**i, i > 0, drop_paths, conv, block, norm, name=f"stages_{i}")(x, train=train)
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    return Encoded(Head(norm, name="head")(tokens.mean(1)), tokens, grid=x.shape[1:3])


convnext_tiny = functools.partial(ConvNeXt, stages=(3, 3, 9, 3), width=96)
convnext_small = functools.partial(ConvNeXt, stages=(3, 3, 27, 3), width=96)
convnext_base = functools.partial(ConvNeXt, stages=(3, 3, 27, 3), width=128)
convnext_large = functools.partial(ConvNeXt, stages=(3, 3, 27, 3), width=192)
