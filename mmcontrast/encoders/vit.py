"""Vision transformer (Dosovitskiy et al., arXiv:2010.11929), of any shape.

Parameter names are timm's with the dots of lists written as underscores: patch_embed, cls_token,
reg_token, pos_embed, norm_pre, blocks_0/... (see transformer.py), norm or fc_norm,
attn_pool/{latent, q, kv, proj, norm, mlp}, pooler/{query, norm_q, norm_k, q, k, v, proj}.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders import flexible_patches
from mmcontrast.encoders import grids as of_grids
from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.attention_pool import AttentionPool, QueryPool
from mmcontrast.encoders.conv import Conv
from mmcontrast.encoders.dropout import PatchDrop
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.experts import check_experts
from mmcontrast.encoders.flexible_patches import check_patches
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.lowering import lowering
from mmcontrast.encoders.positions import resize_positions, rope2d, sincos2d
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, Block, apply_blocks, check_heads, masked_mean
from mmcontrast.errors import UserError


class ViT(nn.Module):
  """Images [B, H, W, 3] to patch tokens and one vector.

  Images that keep their ratio (config.data.native.patches) come as rows of patches, padded to one length, with
  the grid that each is of: NaFlex (SigLIP 2, arXiv:2502.14786). Positions are those of the image's own grid, and
  padding is neither attended to nor pooled, so that an image gives the same in any batch and at any length.

  Attributes:
    patch: side of a patch in pixels; H and W must be multiples of it.
    patches: sides of patches, of which each step has one, drawn for each view; parameters are of `patch`, and resized
      (FlexiViT, arXiv:2212.08013: 32, for patches of 8 to 48 of 240 px). (): only `patch`.
    evaluation_patch: the one of `patches` that all but training has; 0: the first.
    cut_edges: allows other sizes; pixels after the last whole patch are ignored (SigLIP's 384 px in patches of 14).
    mlp_ratio: hidden width of an MLP over `width`; of each half under mlp="swiglu".
    pool: "gap" (mean of the patch tokens), "cls" (a learned token), "map" (attention pool), "queries" (the first
      of `pool_queries` attention pools of width `pool_dim`, over a learned token too; the others are the tokens).
    positions: "learned" (for the image size at initialisation; resized for another), "sincos2d"
      (fixed), "rope" (rotary, of both axes), "none".
    position_side: rows and columns of the learned positions of a tower that is made for images which keep their ratio,
      or with `patches`.
    cls_position: whether the learned token of pool="cls" and "queries" has a learned position too.
    position_antialias: whether learned positions are resized with antialiasing, as timm and open_clip do on loading.
    registers: learned tokens in addition to the patches, which are not pooled (Darcet et al., arXiv:2309.16588).
    activation: of the MLPs; "gelu_tanh" is the approximation, "gelu" the exact form; "swiglu" MLPs have SiLU.
    pre_norm: a norm before the blocks, as in CLIP.
    norm_after_pool: the last norm is applied to the pooled vector ("fc_norm") instead of the tokens ("norm").
    qkv_bias: whether the projections to queries, keys and values have biases.
    qk_norm: whether queries and keys are normalised, each head by itself (Dehghani et al., arXiv:2302.05442).
    layer_scale: initial value of the factors of each branch; None: no factors.
    drop_path: probability of leaving out the last block, rising linearly from zero at the first.
    patch_drop: share of each image's patches that training leaves out, after positions are added (FLIP,
      arXiv:2212.00794).
    mask_token: a learned token that stands for hidden patches, of views with a mask (`image_masked`); iBOT,
      arXiv:2111.07832.
    leave_out: share of the patches that views with a mask leave out in training, instead of a token for each (MAE,
      arXiv:2111.06377): that of config.data.masked.
    experts: MLPs in each block in the place of one (experts.py); losses["routing"] says where tokens went. 0: one MLP.
    top_experts: to how many of them a gate sends each token.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass. Neither it nor `attention` changes an output.
  """

  OF_IMAGES: ClassVar = True  # see `Frames`
  POOLS_ALONE: ClassVar = True  # see `Model.encode`
  CHOICES: ClassVar = {
    "pool": ("gap", "cls", "map", "queries"), "positions": ("learned", "sincos2d", "rope", "none"),
    "mlp": ("plain", "swiglu"),
    "activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES,
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
  mlp: str = "plain"
  cls_position: bool = True
  position_side: int = 16
  position_antialias: bool = False
  registers: int = 0
  pre_norm: bool = False
  norm_after_pool: bool = False
  qkv_bias: bool = True
  qk_norm: bool = False
  layer_scale: float | None = None
  patch_bias: bool = True
  cut_edges: bool = False
  pool_queries: int = 256
  pool_heads: int = 8
  pool_dim: int | None = None
  mask_token: bool = False
  leave_out: float = 0.0
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  experts: int = 0
  top_experts: int = 2
  patches: tuple[int, ...] = ()
  evaluation_patch: int = 0

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    check_patches(self.patches, self.evaluation_patch)
    check_experts(self.experts, self.top_experts, self.scan, self.remat)

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    mask: jax.Array | None = None,
    grids: jax.Array | None = None,
    *,
    train: bool,
    pooled_only: bool = False,
  ) -> Encoded:
    """images [B, H, W, 3] normalised -> pooled [B, D], patch tokens [B, L, D] in `dtype`; or only pooled, for which
    the last block of pool="cls" computes only the learned token. `mask` [B, L]: False where a patch is hidden.

    With `grids`, int [B, 2], rows and columns of each image, images are rows of patches [B, L, patch * patch * 3], and
    `mask` is False where there is none. With `patches` tokens of training are padded, and have a mask."""
    if not self.patches:
      return self._encode(images, mask, grids, train, pooled_only)
    if mask is not None:
      raise UserError("patches: hidden patches, and images that keep their ratio, are of one size; set patches=()")
    if self.is_initializing():
      side = self.position_side * self.patch
      self._encode(jnp.zeros((1, side, side, 3)), None, None, False, False)
    return flexible_patches.encode(self, images, train=train, pooled_only=pooled_only)

  def _encode(
    self, images: jax.Array, mask: jax.Array | None, grids: jax.Array | None, train: bool, pooled_only: bool
  ) -> Encoded:
    """`__call__` at one size of patches."""
    dtype = jnp.dtype(self.dtype)
    hidden = round(self.width * self.mlp_ratio)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=dtype)
    patches = self._embedded(images, grids)
    if grids is None:
      real, grid = None, patches.shape[1:3]
      left_out = mask if self.leave_out and train else None
      patches = self._shown(patches, None if self.leave_out else mask)
    else:
      real, grid, left_out = mask, None, None
      if self.patch_drop:
        raise UserError(f"patch_drop={self.patch_drop}: images that keep their ratio keep all patches; set it to 0")
    x, front, angles = self._placed(patches, grids)
    x, angles, places = self._seen(x, angles, left_out)
    x, angles = self._dropped(x, front, angles, train)
    attended = None if real is None else jnp.pad(real, ((0, 0), (front.shape[1], 0)), constant_values=True)
    x = jnp.concatenate([front, x], axis=1) if front.shape[1] else x
    x = norm(name="norm_pre")(x) if self.pre_norm else x
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    block = functools.partial(
      Block, self.heads, hidden, "silu" if self.mlp == "swiglu" else self.activation, dropout=self.dropout,
      drop_path=self.drop_path, norm_epsilon=self.norm_epsilon, dtype=dtype, gated=self.mlp == "swiglu",
      qkv_bias=self.qkv_bias, qk_norm=self.qk_norm, layer_scale=self.layer_scale, attention=self.attention,
      experts=self.experts, top_experts=self.top_experts,
    )  # fmt: skip
    cls_only = pooled_only and self.pool == "cls"
    went: list[jax.Array] = []
    x = apply_blocks(
      block, self.depth, x, attended, angles, train=train, scan=self.scan, remat=self.remat,
      at=0 if cls_only else None, went=went,
    )  # fmt: skip
    losses = {"routing": sum(went)} if went else {}
    if self.pool == "queries":
      dim = self.pool_dim or self.width
      pool = QueryPool(self.pool_queries, dim, self.pool_heads, self.norm_epsilon, dtype, name="pooler")
      x = norm(name="norm")(pool(x, attended))
      return Encoded(x[:, 0], x[:, 1:], losses=losses)
    x = x if self.norm_after_pool else norm(name="norm")(x)
    tokens = None if cls_only else x[:, front.shape[1] :]
    if self.pool == "map":
      pool = AttentionPool(self.heads, hidden, self.activation, self.norm_epsilon, dtype, name="attn_pool")
      pooled = pool(tokens, real, train=train)
    else:
      pooled = x[:, 0] if self.pool == "cls" else masked_mean(tokens, real)
    pooled = norm(name="fc_norm")(pooled) if self.norm_after_pool else pooled
    if grid is None:
      return Encoded(pooled, tokens, None if tokens is None else real, losses=losses)
    is_whole = tokens is not None and tokens.shape[1] == grid[0] * grid[1]  # no patch was dropped
    return Encoded(pooled, tokens, places=places, grid=grid if is_whole else None, whole=grid, losses=losses)

  def _embedded(self, images: jax.Array, grids: jax.Array | None) -> jax.Array:
    """Images [B, H, W, 3] as patches [B, rows, columns, D]; rows of patches [B, L, patch * patch * 3] as [B, L, D]."""
    embed = Conv(
      self.width, self.patch, self.patch, padding=0, use_bias=self.patch_bias, dtype=jnp.dtype(self.dtype),
      lowering=lowering().patches, kernel_init=nn.initializers.lecun_normal(), name="patch_embed",
    )  # fmt: skip
    if grids is None:
      height, width = images.shape[1:3]
      if (height % self.patch or width % self.patch) and not self.cut_edges:
        raise UserError(
          f"images of {height}x{width} do not split into patches of {self.patch} px; to leave the last "
          "pixels out set cut_edges=True"
        )
      return embed(images)
    if images.shape[2] != self.patch * self.patch * 3:
      raise UserError(
        f"patches of {math.isqrt(images.shape[2] // 3)} px do not go with a tower of patch={self.patch}; set "
        f"config.data.native.patch to {self.patch}"
      )
    return embed(images.reshape(-1, self.patch, self.patch, 3)).reshape(*images.shape[:2], -1)

  def _shown(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """Patches [B, rows, columns, D], of which `mask` [B, L] hides some behind the token."""
    if not self.mask_token:
      if mask is not None:
        raise UserError("patches are hidden from a tower that has no token for them; set its mask_token=True")
      return x
    token = self.param("mask_token", nn.initializers.zeros, (1, 1, self.width), jnp.float32).astype(x.dtype)
    if mask is None:
      return x
    count = x.shape[1] * x.shape[2]
    if mask.shape[1] != count:
      raise UserError(
        f"data.masked.patch: hides some of {mask.shape[1]} patches, and the tower has {count}, of {self.patch} px; set "
        f"it to {self.patch}"
      )
    return jnp.where(mask.reshape(*x.shape[:3], 1), x, token)

  def _seen(
    self, x: jax.Array, angles: jax.Array | None, mask: jax.Array | None
  ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """Patches [B, L, D] without those that `mask` [B, L] hides, their angles, and where they were, [B, kept]."""
    if mask is None:
      return x, angles, None
    kept = x.shape[1] - round(x.shape[1] * self.leave_out)
    places = jnp.argsort(~mask, axis=1, stable=True)[:, :kept]  # those that are seen come first, in their order
    x, angles = (y if y is None else jnp.take_along_axis(y, places[..., None], axis=1) for y in (x, angles))
    return x, angles, places

  def _dropped(
    self, x: jax.Array, front: jax.Array, angles: jax.Array | None, train: bool
  ) -> tuple[jax.Array, jax.Array | None]:
    """Patches [B, L, D] of which `patch_drop` left some out, and the angles of `front` and what is left."""
    drop = PatchDrop(self.patch_drop, name="patch_drop")
    if angles is None:
      return drop(x, train=train), None
    x, angles = drop(x, angles, train=train)
    return x, jnp.pad(angles, ((0, 0), (front.shape[1], 0), (0, 0)))

  def _placed(self, x: jax.Array, grids: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Patches [B, rows, columns, D], or of images of such grids [B, L, D], with their positions [B, L, D]; the learned
    tokens that go before them [B, F, D]; and the angles of rope [B or 1, L, d / 2]."""
    batch, grid, dtype = x.shape[0], x.shape[1:3], x.dtype
    x, normal = x.reshape(batch, -1, self.width), nn.initializers.normal(0.02)
    length, front, head = x.shape[1], [], self.width // self.heads
    if self.pool in ("cls", "queries"):
      front.append(self.param("cls_token", normal, (1, 1, self.width), jnp.float32).astype(dtype))
    extra = int(bool(front) and self.cls_position)
    if self.positions == "learned":
      fresh = jnp.zeros((1, extra + (length if grids is None else self.position_side**2), 1))  # at initialisation
      made = self.get_variable("params", "pos_embed", default=fresh).shape[1]
      position = self.param("pos_embed", normal, (1, made, self.width), jnp.float32)
      if grids is None:
        position = resize_positions(position, grid, extra, self.position_antialias)
        front_position, position = position[:, :1], position[:, extra:]
      else:
        front_position, position = position[:, :1], of_grids.resized_to(position[0, extra:], grids, length)
      front = [token + front_position.astype(dtype) for token in front] if extra else front
      x = x + position.astype(dtype)
    elif self.positions == "sincos2d":
      fixed = sincos2d(*grid, self.width)[None] if grids is None else of_grids.fixed(grids, length, self.width)
      x = x + jnp.asarray(fixed, dtype)
    if self.registers:
      front.append(self.param("reg_token", normal, (1, self.registers, self.width), jnp.float32).astype(dtype))
    front = jnp.concatenate([jnp.zeros((1, 0, self.width), dtype), *front], axis=1)
    front = jnp.broadcast_to(front, (batch, *front.shape[1:]))
    if self.positions != "rope":
      return x, front, None
    angles = jnp.asarray(rope2d(*grid, head))[None] if grids is None else of_grids.angles(grids, length, head)
    return x, front, angles


# Shapes of the papers; the patch, and for another image size the positions, are options.
vit_tiny = functools.partial(ViT, width=192, depth=12, heads=3)
vit_small = functools.partial(ViT, width=384, depth=12, heads=6)
vit_base = functools.partial(ViT, width=768, depth=12, heads=12)
vit_large = functools.partial(ViT, width=1024, depth=24, heads=16)
vit_so400m = functools.partial(ViT, width=1152, depth=27, heads=16, mlp_ratio=4304 / 1152)  # arXiv:2305.13035
vit_huge = functools.partial(ViT, width=1280, depth=32, heads=16)
vit_giant = functools.partial(ViT, width=1408, depth=40, heads=16, mlp_ratio=6144 / 1408)  # arXiv:2106.04560
vit_giant_opt = functools.partial(ViT, width=1536, depth=40, heads=16)  # SigLIP 2, arXiv:2502.14786
