"""A light transformer that puts hidden patches back where they were (MAE, He et al., arXiv:2111.06377), or
tubelets (VideoMAE, Tong et al., arXiv:2203.12602).

    towers.decoder = dict(name="patch_decoder", reads=("image",), width=64, depth=2, heads=4)
    towers.decoder = dict(name="patch_decoder", reads=("image", "text"), ...)      # with the help of a text

Parameters: embed, mask_token, context_0 ... (of several other towers), blocks_0/... (see `transformer.Block`), norm.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.fusion import context_of
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.positions import sincos2d
from mmcontrast.encoders.token_transformer import through_blocks
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, check_heads
from mmcontrast.encoders.tubelet_vit import sincos1d
from mmcontrast.errors import UserError


class PatchDecoder(nn.Module):
  """The tokens of an image's seen patches, or a video's tubelets, and a learned one in the place of each that was left
  out, through blocks.

  Where it reads further towers, each block attends to their tokens after self-attention, as SyCoCa's (arXiv:2401.02137)
  to those of a text. Positions are fixed ("sincos2d", or those of a tubelet_vit) and added to all. Where no patch was
  left out, as in evaluation, none is put back.

  Attributes:
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    remat: what of a block is not kept for the backward pass.
  """

  READS: ClassVar = 1
  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "remat": REMAT, "attention": ATTENTION, "dtype": DTYPES}

  width: int = 512
  depth: int = 8
  heads: int = 16
  mlp_ratio: float = 4.0
  activation: str = "gelu_tanh"
  norm_epsilon: float = 1e-6
  scan: bool = False
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, first: Encoded, *others: Encoded, train: bool) -> Encoded:
    """first: tokens [B, K, C] at `places` of a grid, or of all of it, others: tokens [B, S, C'] with their mask ->
    pooled [B, D], the mean, tokens [B, L, D], a map, and the `places` of those that were seen."""
    dtype, grid = jnp.dtype(self.dtype), first.grid or first.whole
    if len(grid or ()) not in (2, 3):
      raise UserError("reads patches, and these tokens are in no grid; let it read a ViT, or a tubelet_vit")
    x = with_hidden(self, first.tokens, first.places, math.prod(grid))[0]
    places = sincos2d(*grid, self.width) if len(grid) == 2 else sincos1d(math.prod(grid), self.width)
    x = x + jnp.asarray(places[None], dtype)
    context = context_of(others, self.width, dtype) if others else None
    branches = ("attn", "cross_attn", "mlp") if others else ("attn", "mlp")
    x = through_blocks(self, x, train=train, context=context, branches=branches)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    return Encoded(x.mean(1), x, places=first.places, grid=grid)


def with_hidden(
  decoder: nn.Module, tokens: jax.Array, places: jax.Array | None, count: int
) -> tuple[jax.Array, jax.Array]:
  """How decoders of hidden patches begin: tokens at the width of `decoder`, and its mask token where none is.

  Called in the module's `__call__`, whose parameters "embed" and "mask_token" these are.

  Args:
    tokens: [B, K + any, C], the first K at `places` [B, K] of `count`; without places all are where they belong.
  Returns:
    [B, count, D], and what stands at no place [B, any, D].
  """
  dtype = jnp.dtype(decoder.dtype)
  x = Dense(decoder.width, dtype=dtype, name="embed")(tokens)
  token = decoder.param("mask_token", nn.initializers.normal(0.02), (decoder.width,), jnp.float32).astype(dtype)
  if places is None:
    return x, x[:, x.shape[1] :]
  kept, rows = places.shape[1], jnp.arange(len(x))[:, None]
  whole = jnp.broadcast_to(token, (len(x), count, decoder.width)).at[rows, places].set(x[:, :kept])
  return whole, x[:, kept:]
