"""CLIP's ResNet (Radford et al., arXiv:2103.00020, section 2.4).

Against ResNet-50: a stem of three 3x3 convolutions and an average pool; an average pool before each
convolution that would have a stride; and attention in place of the mean over the last map.

Parameter names are CLIP's with the dots of lists written as underscores: conv1 to conv3, bn1 to bn3,
layer1_0/{conv1, bn1, ..., downsample_0, downsample_1}, attnpool/{positional_embedding, q_proj, k_proj,
v_proj}. CLIP's attnpool.c_proj maps into the joint space, so here it is a head: `linear` with `bias`.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.conv import LOWERINGS, Conv, average_pool
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.norm import BatchNorm
from mmcontrast.encoders.positions import resize_positions
from mmcontrast.encoders.transformer import check_heads


class Block(nn.Module):
  """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is that of average pools."""

  IS_LAYER: ClassVar = True

  width: int
  stride: int
  zero_init: bool
  conv: Any
  norm: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, H, W, C] -> [B, H / stride, W / stride, 4 width]."""
    features = 4 * self.width
    y = nn.relu(self.norm(name="bn1")(self.conv(self.width, 1, name="conv1")(x), train=train))
    y = nn.relu(self.norm(name="bn2")(self.conv(self.width, 3, name="conv2")(y), train=train))
    y = self.conv(features, 1, name="conv3")(average_pool(y, self.stride))
    scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
    y = self.norm(scale_init=scale_init, name="bn3")(y, train=train)
    if self.stride > 1 or x.shape[-1] != features:
      x = self.conv(features, 1, name="downsample_0")(average_pool(x, self.stride))
      x = self.norm(name="downsample_1")(x, train=train)
    return nn.relu(x + y)


class Projection(nn.Module):
  """The parameters of `nn.Dense`, D to D, for a product that is not input times kernel."""

  @nn.compact
  def __call__(self, width: int) -> tuple[jax.Array, jax.Array]:
    """Kernel [D, D] and bias [D]."""
    kernel = self.param("kernel", nn.initializers.normal(width**-0.5), (width, width), jnp.float32)
    return kernel, self.param("bias", nn.initializers.zeros, (width,), jnp.float32)


class AttentionPool(nn.Module):
  """Attention of the mean of all cells to itself and the cells, without the projection of its output.

  With one query the keys and values of the cells need not be made: the query goes through the keys'
  matrix instead, and the weighted mean of the cells through the values'. This is the same sum in another
  order, and a cell costs O(heads D) instead of O(D^2). The bias of the keys adds one number to all
  scores of a head, so it has no effect and no gradient.
  """

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, cells: jax.Array) -> jax.Array:
    """[B, H, W, D] -> [B, D]."""
    batch, *grid, width = cells.shape
    made = self.get_variable("params", "positional_embedding")
    length = math.prod(grid) + 1 if made is None else len(made)  # at initialisation: for this grid
    normal = nn.initializers.normal(width**-0.5)
    position = self.param("positional_embedding", normal, (length, width), jnp.float32)
    cells = cells.reshape(batch, -1, width)
    x = jnp.concatenate([cells.mean(1, keepdims=True), cells], axis=1)
    x = x + resize_positions(position[None], tuple(grid), 1).astype(self.dtype)
    (wq, bq), (wk, _), (wv, bv) = (
      tuple(p.astype(self.dtype) for p in Projection(name=f"{name}_proj")(width)) for name in "qkv"
    )
    by_head = (width, self.heads, width // self.heads)
    q = (x[:, 0] @ wq + bq).reshape(batch, *by_head[1:])
    seen = jnp.einsum("bhd,chd->bhc", q, wk.reshape(by_head))  # q.(x wk) = (q wk^T).x
    scores = jnp.einsum("bhc,blc->bhl", seen, x) * by_head[2] ** -0.5
    weights = nn.softmax(scores.astype(jnp.promote_types(self.dtype, jnp.float32)), axis=-1)
    mean = jnp.einsum("bhl,blc->bhc", weights.astype(self.dtype), x)
    return jnp.einsum("bhc,chd->bhd", mean, wv.reshape(by_head)).reshape(batch, width) + bv


class ClipResNet(nn.Module):
  """Images [B, H, W, 3] to a feature map, its attention pool, and its cells as tokens.

  Attributes:
    stages: blocks in each stage.
    width: channels after the stem; the last map has 32 times as many (with four stages).
    head_width: channels of one head of the attention pool.
    zero_init_residual: the last norm of each block starts at zero, as CLIP's do.
    lowering: of convolutions, see `conv.Conv`.
  """

  OF_IMAGES: ClassVar = True  # see `Frames`
  CHOICES: ClassVar = {"pool": ("attention",), "lowering": LOWERINGS, "dtype": DTYPES}

  stages: tuple[int, ...] = (3, 4, 6, 3)
  width: int = 64
  head_width: int = 64
  pool: str = "attention"
  zero_init_residual: bool = True
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5
  lowering: str = "auto"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.features, self.heads)

  @property
  def features(self) -> int:
    """Channels of the last map."""
    return self.width * 4 * 2 ** (len(self.stages) - 1)

  @property
  def heads(self) -> int:
    """Heads of the attention pool."""
    return max(self.features // self.head_width, 1)

  @nn.compact
  def __call__(self, images: jax.Array, mask: None = None, *, train: bool) -> Encoded:
    """images [B, H, W, 3] normalised -> pooled [B, D], tokens [B, h w, D] in `dtype`."""
    del mask
    dtype = jnp.dtype(self.dtype)
    conv = functools.partial(Conv, dtype=dtype, lowering=self.lowering)
    norm = functools.partial(BatchNorm, momentum=self.bn_momentum, epsilon=self.bn_epsilon, dtype=dtype)
    x = images.astype(dtype)
    for i, (channels, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), start=1):
      x = nn.relu(norm(name=f"bn{i}")(conv(channels, 3, stride, name=f"conv{i}")(x), train=train))
    x = average_pool(x, 2)
    for i, depth in enumerate(self.stages):
      for j in range(depth):
        stride = 2 if i and not j else 1
        block = Block(self.width * 2**i, stride, self.zero_init_residual, conv, norm, name=f"layer{i + 1}_{j}")
        x = block(x, train=train)
    pooled = AttentionPool(self.heads, dtype, name="attnpool")(x)
    return Encoded(pooled, x.reshape(x.shape[0], -1, x.shape[-1]), grid=x.shape[1:3])


clip_resnet50 = functools.partial(ClipResNet, stages=(3, 4, 6, 3))
clip_resnet101 = functools.partial(ClipResNet, stages=(3, 4, 23, 3))
clip_resnet50x4 = functools.partial(ClipResNet, stages=(4, 6, 10, 6), width=80)  # made for images of 288 px
clip_resnet50x16 = functools.partial(ClipResNet, stages=(6, 8, 18, 8), width=96)  # 384 px
clip_resnet50x64 = functools.partial(ClipResNet, stages=(3, 15, 36, 10), width=128)  # 448 px
