"""A vision transformer over the patches of several maps of an image at once (MultiMAE, arXiv:2204.01678).

Parameters: patch_embed of the colours, patch_embed_1 ... of the other maps, global_token, blocks_0/... (see
`transformer.Block`), norm.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.conv import Conv
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.lowering import lowering
from mmcontrast.encoders.positions import sincos2d
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, Block, apply_blocks, check_heads
from mmcontrast.errors import UserError

COLOURS = 3  # the channels of the first map; each of the others has one


class MapViT(nn.Module):
  """Colours [B, H, W, 3], or colours and maps [B, H, W, 3 + maps], to patch tokens and one vector.

  Each map has a layer of its own that makes tokens of its patches; all go through the same blocks, with a learned
  token that is at no place. Positions are fixed ("sincos2d"). Of views with a mask (`image_maps`) training leaves out
  what is not seen.

  Attributes:
    patch: side of a patch in pixels; H and W must be multiples of it.
    maps: how many maps there may be beside the colours; the default is that of config.data.maps.
    seen: share of the patches of all maps that is seen; the same.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass.
  """

  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES}

  width: int = 768
  depth: int = 12
  heads: int = 12
  patch: int = 16
  maps: int = 2
  seen: float = 1 / 6
  mlp_ratio: float = 4.0
  activation: str = "gelu"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, images: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """images as above, `mask` [B, maps * L]: True where a patch is seen, map after map -> pooled [B, D], the mean of
    the patches; tokens [B, K, D] of patches at `places` of all maps, and, where some were left out, the learned token
    behind them."""
    dtype, (height, width, channels) = jnp.dtype(self.dtype), images.shape[1:]
    if height % self.patch or width % self.patch:
      raise UserError(f"images of {height}x{width} do not split into patches of {self.patch} px")
    parts, most = 1 + channels - COLOURS, 1 + self.maps
    if parts not in (1, most):
      raise UserError(f"views of colours and {parts - 1} maps do not go with maps={self.maps}; leave `maps` out")
    grid = height // self.patch, width // self.patch
    position = jnp.asarray(sincos2d(*grid, self.width)[None], dtype)
    made = [
      self._embedded(images, number, dtype) + position for number in range(most if self.is_initializing() else parts)
    ]
    x = jnp.concatenate(made[:parts], 1)
    places = jnp.broadcast_to(jnp.arange(x.shape[1]), x.shape[:2])
    left_out = train and mask is not None
    if mask is not None and mask.shape[1] != x.shape[1]:
      raise UserError(
        f"data.maps.patch: shows some of {mask.shape[1] // parts} patches, and the tower has {x.shape[1] // parts}, of "
        f"{self.patch} px; set it to {self.patch}"
      )
    if left_out:
      places = jnp.argsort(~mask, axis=1, stable=True)[:, : round(self.seen * x.shape[1])]
      x = jnp.take_along_axis(x, places[..., None], axis=1)
    kept = x.shape[1]
    token = self.param("global_token", nn.initializers.normal(0.02), (1, 1, self.width), jnp.float32).astype(dtype)
    x = jnp.concatenate([x, jnp.broadcast_to(token, (len(x), 1, self.width))], 1)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, dropout=self.dropout,
      drop_path=self.drop_path, norm_epsilon=self.norm_epsilon, dtype=dtype, attention=self.attention,
    )  # fmt: skip
    x = apply_blocks(block, self.depth, x, train=train, scan=self.scan, remat=self.remat)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    tokens = x if left_out else x[:, :kept]
    is_map = parts == 1 and not left_out
    return Encoded(x[:, :kept].mean(1), tokens, places=places, grid=grid if is_map else None, whole=(most, *grid))

  def _embedded(self, images: jax.Array, number: int, dtype: jnp.dtype) -> jax.Array:
    """The tokens [B, L, D] of the patches of a map, by its number; of one that is not there, of zeros."""
    first, last = (0, COLOURS) if not number else (COLOURS + number - 1, COLOURS + number)
    channels = images[..., first:last] if last <= images.shape[-1] else jnp.zeros((*images.shape[:3], 1), images.dtype)
    embed = Conv(
      self.width, self.patch, self.patch, padding=0, dtype=dtype, lowering=lowering().patches,
      kernel_init=nn.initializers.lecun_normal(), name="patch_embed" if not number else f"patch_embed_{number}",
    )  # fmt: skip
    return embed(channels).reshape(len(images), -1, self.width)
