"""ResNet (He et al., arXiv:1512.03385), version 1.5: the stride is on the 3x3 convolution.

Parameter names are torchvision's with the dots of lists written as underscores:
conv1, bn1, layer1_0/conv1, layer1_0/downsample_0 (convolution), layer1_0/downsample_1 (norm).
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.conv import LOWERINGS, Conv, max_pool
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.norm import BatchNorm

# name -> kernel size, stride, padding of the first convolution
STEMS = {"imagenet": (7, 2, 3), "small": (3, 1, 1), "patch2": (2, 2, 0), "patch4": (4, 4, 0)}


class Block(nn.Module):
  """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels."""

  IS_LAYER: ClassVar = True

  width: int
  stride: int
  bottleneck: bool
  zero_init: bool
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H / stride, W / stride, width or 4 width]."""
    features = self.width * 4 if self.bottleneck else self.width
    if self.bottleneck:
      plan = ((self.width, 1, 1), (self.width, 3, self.stride), (features, 1, 1))
    else:
      plan = ((self.width, 3, self.stride), (features, 3, 1))
    y = x
    for i, (channels, size, stride) in enumerate(plan, start=1):
      last = i == len(plan)
      scale_init = nn.initializers.zeros if last and self.zero_init else nn.initializers.ones
      y = self.conv(channels, size, stride, name=f"conv{i}")(y)
      y = self.norm(scale_init=scale_init, name=f"bn{i}")(y, train=train)
      y = y if last else nn.relu(y)
    if x.shape != y.shape:
      x = self.conv(features, 1, self.stride, name="downsample_0")(x)
      x = self.norm(name="downsample_1")(x, train=train)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """Images [B, H, W, 3] to a feature map, its mean, and its cells as tokens.

  Attributes:
    stages: blocks in each stage.
    bottleneck: 1x1, 3x3, 1x1 blocks instead of two 3x3.
    stem: "imagenet" (7x7, stride 2, then a 3x3 max-pool of stride 2); "small" (3x3, no
      pool), for images of 64 px or less; "patch2" and "patch4" (2x2 or 4x4, the stride the same,
      as ConvNeXt's), which cost a CPU a fraction of the others for a map of the same size.
    width: channels of the first stage, doubled at each next one.
    stem_width: channels of the stem; None: `width`.
    zero_init_residual: the last norm of each block starts at zero (Goyal et al., 2017).
    lowering: of convolutions and pooling, see `conv.Conv`.
  """

  OF_IMAGES: ClassVar = True  # see `Frames`
  CHOICES: ClassVar = {
    "stem": tuple(STEMS), "pool": ("gap",), "lowering": LOWERINGS, "dtype": DTYPES,
  }  # fmt: skip

  stages: tuple[int, ...]
  bottleneck: bool
  stem: str = "imagenet"
  width: int = 64
  stem_width: int | None = None
  pool: str = "gap"
  zero_init_residual: bool = False
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5
  lowering: str = "auto"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, images: jax.Array, mask: None = None, *, train: bool) -> Encoded:
    """images [B, H, W, 3] normalised -> pooled [B, D], tokens [B, h w, D] in `dtype`."""
    del mask
    dtype = jnp.dtype(self.dtype)
    conv = functools.partial(Conv, dtype=dtype, lowering=self.lowering)
    norm = functools.partial(BatchNorm, momentum=self.bn_momentum, epsilon=self.bn_epsilon, dtype=dtype)
    x = images.astype(dtype)
    x = conv(self.stem_width or self.width, *STEMS[self.stem], name="conv1")(x)
    x = nn.relu(norm(name="bn1")(x, train=train))
    if self.stem == "imagenet":
      x = max_pool(x, 3, 2, ((1, 1), (1, 1)), self.lowering)
    for i, depth in enumerate(self.stages):
      for j in range(depth):
        block = Block(
          self.width * 2**i, 2 if i and not j else 1, self.bottleneck, self.zero_init_residual,
          conv, norm, name=f"layer{i + 1}_{j}",
        )  # fmt: skip
        x = block(x, train=train)
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    return Encoded(tokens.mean(1), tokens, grid=x.shape[1:3])


resnet18 = functools.partial(ResNet, stages=(2, 2, 2, 2), bottleneck=False)
resnet34 = functools.partial(ResNet, stages=(3, 4, 6, 3), bottleneck=False)
resnet50 = functools.partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True)
resnet101 = functools.partial(ResNet, stages=(3, 4, 23, 3), bottleneck=True)
resnet152 = functools.partial(ResNet, stages=(3, 8, 36, 3), bottleneck=True)
