"""Vision transformer (Dosovitskiy et al., arXiv:2010.11929), of any shape.

Parameter names are timm's with the dots of lists written as underscores: patch_embed,
cls_token, pos_embed, blocks_0/..., norm, attn_pool/{latent, q, kv, proj, norm, mlp}.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmcontrast.encoders.conv import Conv
from mmcontrast.encoders.dropout import PatchDrop
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.registry import DTYPES
from mmcontrast.encoders.transformer import ACTIVATIONS, Block, Mlp, attend, check_heads, dense
from mmcontrast.errors import UserError


def sincos2d(height: int, width: int, dim: int, temperature: float = 10_000.0) -> np.ndarray:
  """Fixed positions [height * width, dim] as in MoCo v3: sines and cosines of x, then of y."""
  if dim % 4:
    raise UserError(f"positions 'sincos2d' need a width that is a multiple of 4, not {dim}")
  omega = temperature ** -(np.arange(dim // 4) / max(dim // 4 - 1, 1))
  y, x = np.mgrid[:height, :width]
  x, y = x.reshape(-1, 1) * omega, y.reshape(-1, 1) * omega
  return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1).astype(np.float32)


def resize_positions(position: jax.Array, grid: tuple[int, int], extra: int) -> jax.Array:
  """Learned positions for a grid of patches other than the square one they were made for.

  Cubic interpolation without smoothing, as in DINO (Caron et al., arXiv:2104.14294).

  Args:
    position: [1, extra + n * n, D].
    grid: rows and columns of patches.
    extra: positions that are no patch's, at the front.
  Returns:
    [1, extra + rows * columns, D]; `position` itself where it has one for each patch.
  """
  patches = position[:, extra:]
  if patches.shape[1] == math.prod(grid):
    return position
  side = math.isqrt(patches.shape[1])
  if side * side != patches.shape[1]:
    raise UserError(f"{patches.shape[1]} learned positions are of no square of patches, so they cannot be resized to "
                    f"{grid[0]}x{grid[1]}; use positions='sincos2d'")
  square = patches.reshape(1, side, side, -1)
  resized = jax.image.resize(square, (1, *grid, square.shape[-1]), "cubic", antialias=False)
  return jnp.concatenate([position[:, :extra], resized.reshape(1, -1, square.shape[-1])], axis=1)


class AttentionPool(nn.Module):
  """One learned query over all tokens, then an MLP (Zhai et al., arXiv:2106.04560)."""

  heads: int
  hidden: int
  activation: str
  norm_epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, L, D] -> [B, D]."""
    batch, length, width = x.shape
    latent = self.param("latent", nn.initializers.xavier_uniform(), (1, 1, width), jnp.float32)
    latent = jnp.broadcast_to(latent.astype(x.dtype), (batch, 1, width))
    q = dense(width, dtype=self.dtype, name="q")(latent).reshape(batch, 1, self.heads, -1)
    kv = dense(2 * width, dtype=self.dtype, name="kv")(x)
    k, v = jnp.unstack(kv.reshape(batch, length, 2, self.heads, -1), axis=2)
    y = dense(width, dtype=self.dtype, name="proj")(attend(q, k, v, None, causal=False))
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    norm = nn.LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")
    return (y + mlp(norm(y), train=train))[:, 0]


class ViT(nn.Module):
  """Images [B, H, W, 3] to patch tokens and one vector.

  Attributes:
    patch: side of a patch in pixels; H and W must be multiples of it.
    pool: "gap" (mean of the patch tokens), "cls" (a learned token), "map" (attention pool).
    positions: "learned" (for the image size at initialisation; resized for another) or "sincos2d" (fixed).
    activation: of the MLPs; "gelu_tanh" is the approximation, "gelu" the exact form.
    drop_path: of the last block, rising linearly from zero at the first.
    patch_drop: share of each image's patches that training leaves out, positions being added
      before (FLIP, arXiv 2212.00794); the tokens of a step are those that are left.
  """

  CHOICES: ClassVar = {
    "pool": ("gap", "cls", "map"), "positions": ("learned", "sincos2d"),
    "activation": tuple(ACTIVATIONS), "dtype": DTYPES,
  }  # fmt: skip

  width: int = 384
  depth: int = 12
  heads: int = 6
  patch: int = 16
  mlp_ratio: float = 4.0
  pool: str = "gap"
  positions: str = "learned"
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  drop_path: float = 0.0
  patch_drop: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, images: jax.Array, mask: None = None, *, train: bool) -> Encoded:
    """images [B, H, W, 3] normalised -> pooled [B, D], patch tokens [B, L, D] in `dtype`."""
    del mask
    dtype = jnp.dtype(self.dtype)
    batch, height, width, _ = images.shape
    if height % self.patch or width % self.patch:
      raise UserError(f"images of {height}x{width} do not split into patches of {self.patch} px")
    hidden = round(self.width * self.mlp_ratio)
    embed = Conv(
      self.width, self.patch, self.patch, padding=0, use_bias=True, dtype=dtype,
      lowering="matmul", kernel_init=nn.initializers.lecun_normal(), name="patch_embed",
    )  # fmt: skip
    x = embed(images)
    grid = x.shape[1:3]
    x = x.reshape(batch, -1, self.width)
    extra = int(self.pool == "cls")
    normal = nn.initializers.normal(0.02)
    if extra:
      cls = self.param("cls_token", normal, (1, 1, self.width), jnp.float32)
      x = jnp.concatenate([jnp.broadcast_to(cls.astype(dtype), (batch, 1, self.width)), x], axis=1)
    if self.positions == "learned":
      made = self.get_variable("params", "pos_embed", default=x)  # at initialisation: for this grid
      position = self.param("pos_embed", normal, (1, made.shape[1], self.width), jnp.float32)
      position = resize_positions(position, grid, extra)
    else:
      position = np.pad(sincos2d(*grid, self.width), ((extra, 0), (0, 0)))[None]
    x = x + jnp.asarray(position, dtype)
    patches = PatchDrop(self.patch_drop, name="patch_drop")(x[:, extra:], train=train)
    x = jnp.concatenate([x[:, :extra], patches], axis=1) if extra else patches
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    for i in range(self.depth):
      drop_path = self.drop_path * i / max(self.depth - 1, 1)
      block = Block(
        self.heads, hidden, self.activation, dropout=self.dropout, drop_path=drop_path,
        norm_epsilon=self.norm_epsilon, dtype=dtype, name=f"blocks_{i}",
      )  # fmt: skip
      x = block(x, None, train=train)
    x = nn.LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    tokens = x[:, extra:]
    if self.pool == "cls":
      return Encoded(x[:, 0], tokens)
    if self.pool == "gap":
      return Encoded(tokens.mean(1), tokens)
    pool = AttentionPool(
      self.heads, hidden, self.activation, self.norm_epsilon, dtype, name="attn_pool"
    )
    return Encoded(pool(tokens, train=train), tokens)


vit_tiny = functools.partial(ViT, width=192, depth=12, heads=3)
vit_small = functools.partial(ViT, width=384, depth=12, heads=6)
vit_base = functools.partial(ViT, width=768, depth=12, heads=12)
vit_large = functools.partial(ViT, width=1024, depth=24, heads=16)
