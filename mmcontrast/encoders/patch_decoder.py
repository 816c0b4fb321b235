"""A light transformer that puts hidden patches back where they were (MAE, He et al., arXiv:2111.06377).

    towers.decoder = dict(name="patch_decoder", reads=("image",), width=64, depth=2, heads=4)
    towers.decoder = dict(name="patch_decoder", reads=("image", "text"), ...)      # with the help of a text

Parameters: embed, mask_token, context_0 ... (of several other towers), blocks_0/... (see `transformer.Block`), norm.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.fusion import context_of
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.positions import sincos2d
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, Block, apply_blocks, check_heads
from mmcontrast.errors import UserError


class PatchDecoder(nn.Module):
  """The tokens of an image's seen patches, and a learned one in the place of each that was left out, through blocks.

  Where it reads further towers, each block attends to their tokens after self-attention, as SyCoCa's (arXiv:2401.02137)
  to those of a text. Positions are fixed ("sincos2d") and added to all. Where no patch was left out, as in evaluation,
  none is put back.

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
    if len(grid or ()) != 2:
      raise UserError("reads patches of an image, and these tokens are in no grid; let it read a ViT")
    x = Dense(self.width, dtype=dtype, name="embed")(first.tokens)
    token = self.param("mask_token", nn.initializers.normal(0.02), (self.width,), jnp.float32).astype(dtype)
    if first.places is not None:
      rows = jnp.arange(len(x))[:, None]
      x = jnp.broadcast_to(token, (len(x), math.prod(grid), self.width)).at[rows, first.places].set(x)
    x = x + jnp.asarray(sincos2d(*grid, self.width)[None], dtype)
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, norm_epsilon=self.norm_epsilon,
      dtype=dtype, attention=self.attention, branches=("attn", "cross_attn", "mlp") if others else ("attn", "mlp"),
    )  # fmt: skip
    context = context_of(others, self.width, dtype) if others else None
    x = apply_blocks(block, self.depth, x, context=context, train=train, scan=self.scan, remat=self.remat)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    return Encoded(x.mean(1), x, places=first.places, grid=grid)
