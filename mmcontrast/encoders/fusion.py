"""A transformer over the tokens of several towers: self-attention on the first, cross-attention to the others.

    towers.fusion = dict(name="fusion_transformer", reads=("text", "image"), width=768, depth=6, heads=12, norm="post")

The fusion encoder of ALBEF (arXiv:2107.07651) and, with `causal`, a decoder of captions: CoCa's multimodal half
(arXiv:2205.01917), CapPa's decoder (arXiv:2306.07915). With norm="post" a block is that of BERT with cross-attention.

Parameters: embed (where widths differ), context_0 ... (with several contexts), blocks_0/... (see `transformer.Block`),
norm (pre-norm).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import (
  ACTIVATIONS,
  NORMS,
  REMAT,
  Block,
  Context,
  apply_blocks,
  check_heads,
  masked_mean,
  seen_in_parallel,
)
from mmcontrast.errors import UserError

ORDERS = {
  "self_cross_mlp": ("attn", "cross_attn", "mlp"),
  "self_mlp_cross_mlp": ("attn", "mlp", "cross_attn", "cross_mlp"),
}


class FusionTransformer(nn.Module):
  """Tokens of the first tower that it reads go through the blocks, and attend to the tokens of the others.

  Padding is neither attended to nor pooled, in the first as in the others. Where the first has another width, a
  linear layer brings it to `width`; several others are brought to it too, and stand one after the other.

  Attributes:
    causal: a token sees itself and those before it (a decoder), and all that the other towers made. In examples that
      are predicted in parallel (`Encoded.parallel`) it sees all of both, padding too.
    norm: "pre" or "post" (BERT, ALBEF).
    order: of a block: "self_cross_mlp" (BERT), or "self_mlp_cross_mlp", a block of self-attention and one of
      cross-attention, each with an MLP, as open_clip has CoCa's.
    context_norm: whether each block normalises what it attends to of the other towers.
    scan: whether the blocks are one loop, which compiles once whatever the depth.
    pool: "first", the first token, or "last", the last real one (with `causal`), or "mean" of the real tokens.
    remat: what of a block is not kept for the backward pass.
  """

  READS: ClassVar = 2  # towers at least, the first of them the one whose tokens go through
  POOLS_ALONE: ClassVar = True  # see `Model.encode`
  CHOICES: ClassVar = {
    "norm": NORMS, "order": tuple(ORDERS), "pool": ("first", "last", "mean"), "activation": tuple(ACTIVATIONS),
    "attention": ATTENTION, "dtype": DTYPES, "remat": REMAT,
  }  # fmt: skip

  width: int = 512
  depth: int = 6
  heads: int = 8
  mlp_ratio: float = 4.0
  causal: bool = False
  norm: str = "pre"
  pool: str = "first"
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  norm_epsilon: float = 1e-6
  remat: str = "none"
  attention: str = "xla"
  dtype: str = "float32"
  order: str = "self_cross_mlp"
  context_norm: bool = False
  scan: bool = False

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.causal and self.pool == "first":
      raise UserError("pool 'first' takes the first token, which sees no other when causal=True; use pool='last'")

  @nn.compact
  def __call__(self, first: Encoded, *others: Encoded, train: bool, pooled_only: bool = False) -> Encoded:
    """first: tokens [B, L, C0], others: tokens [B, Si, Ci], each with its mask -> pooled [B, D], tokens [B, L, D] with
    the first's mask and grid; or only pooled, for which the last block computes the first token alone where that is
    what is pooled. No others: those that are in the cache."""
    dtype, x, mask, causal = jnp.dtype(self.dtype), first.tokens, first.mask, self.causal
    if x.shape[-1] != self.width:
      x = Dense(self.width, dtype=dtype, name="embed")(x)
    if causal and first.parallel is not None:
      mask, causal = seen_in_parallel(first.parallel, mask, x.shape[1]), False
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, causal, self.dropout,
      norm_epsilon=self.norm_epsilon, dtype=dtype, attention=self.attention, branches=ORDERS[self.order],
      norm=self.norm, context_norm=self.context_norm,
    )  # fmt: skip
    context = context_of(others, self.width, dtype) if others else None
    at = 0 if pooled_only and self.pool == "first" else None
    x = apply_blocks(block, self.depth, x, mask, context=context, train=train, scan=self.scan, remat=self.remat, at=at)
    if self.norm == "pre":
      x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    if at is not None:
      return Encoded(x[:, 0])
    return Encoded(self._pooled(x, first.mask), x, first.mask, grid=first.grid)

  def _pooled(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    if self.pool == "mean":
      return masked_mean(x, mask)
    if self.pool == "first":
      return x[:, 0]
    last = jnp.full(len(x), x.shape[1] - 1) if mask is None else jnp.max(jnp.where(mask, jnp.arange(x.shape[1]), 0), 1)
    return jnp.take_along_axis(x, last[:, None, None], 1)[:, 0]


def context_of(others: Sequence[Encoded], width: int, dtype: Any) -> Context:
  """The tokens of several towers, one tower after the other, and which of them are real. Where they are several, each
  is brought to `width` by a layer of the module that calls this: context_0 ..."""
  if len(others) == 1:
    return Context(others[0].tokens, others[0].mask)
  tokens = [Dense(width, dtype=dtype, name=f"context_{i}")(other.tokens) for i, other in enumerate(others)]
  masks = [jnp.ones(x.tokens.shape[:2], bool) if x.mask is None else x.mask for x in others]
  return Context(jnp.concatenate(tokens, 1), jnp.concatenate(masks, 1))
