"""A transformer over the tokens of several towers: self-attention on the first, cross-attention to the others.

    towers.fusion = dict(name="fusion_transformer", reads=("text", "image"), width=768, depth=6, heads=12, norm="post")

The fusion encoder of ALBEF (arXiv:2107.07651) and, with `causal`, a decoder such as CoCa's multimodal half
(arXiv:2205.01917). With norm="post" a block is that of BERT with cross-attention.

Parameters: embed (where widths differ), context_0 ... (with several contexts), blocks_0/{attn/{qkv, proj}, norm1,
cross_attn/{q, kv, proj}, norm_cross, mlp/{fc1, fc2}, norm2}, norm (pre-norm).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION, attend
from mmcontrast.encoders.dense import Dense, JointDense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import ACTIVATIONS, REMAT, Attention, Mlp, check_heads, masked_mean
from mmcontrast.errors import UserError

NORMS = ("pre", "post")


class CrossAttention(nn.Module):
  """Multi-head attention of queries to the keys and values of a context, which may have another width."""

  heads: int
  dtype: Any = None
  implementation: str = "xla"

  @nn.compact
  def __call__(self, x: jax.Array, context: jax.Array, mask: jax.Array | None) -> jax.Array:
    """x [B, L, D], context [B, S, C], mask [B, S] bool or None -> [B, L, D]."""
    width = x.shape[-1]
    q = Dense(width, dtype=self.dtype, name="q")(x)
    q, k, v = (
      part.reshape(*part.shape[:2], self.heads, -1)
      for part in (q, *JointDense(width, 2, dtype=self.dtype, name="kv")(context))
    )
    y = attend(q, k, v, mask, causal=False, implementation=self.implementation)
    return Dense(width, dtype=self.dtype, name="proj")(y)


class FusionBlock(nn.Module):
  """Self-attention, cross-attention to a context, MLP; each added to what goes in.

  norm="pre": x + f(norm(x)). norm="post": norm(x + f(x)), as in BERT.

  Attributes:
    causal: a position attends to itself and those before it; all attend to all of the context.
  """

  heads: int
  hidden: int
  activation: str = "gelu_tanh"
  causal: bool = False
  norm: str = "pre"
  dropout: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: Any = None
  attention: str = "xla"

  @nn.compact
  def __call__(
    self, x: jax.Array, mask: jax.Array | None, context: jax.Array, context_mask: jax.Array | None, *, train: bool
  ) -> jax.Array:
    """x [B, L, D], mask [B, L] bool or None, context [B, S, C], context_mask [B, S] bool or None -> [B, L, D]."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    attn = Attention(self.heads, self.causal, self.dtype, implementation=self.attention, name="attn")
    cross = CrossAttention(self.heads, self.dtype, self.attention, name="cross_attn")
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    branches = (
      ("norm1", lambda y: attn(y, mask)),
      ("norm_cross", lambda y: cross(y, context, context_mask)),
      ("norm2", lambda y: mlp(y, train=train)),
    )
    for name, branch in branches:
      norm = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)
      x = x + drop(branch(norm(x))) if self.norm == "pre" else norm(x + drop(branch(x)))
    return x


class FusionTransformer(nn.Module):
  """Tokens of the first tower that it reads go through the blocks, and attend to the tokens of the others.

  Padding is neither attended to nor pooled, in the first as in the others. Where the first has another width, a
  linear layer brings it to `width`; several others are brought to it too, and stand one after the other.

  Attributes:
    causal: a token sees itself and those before it (a decoder), and all that the other towers made.
    norm: "pre" or "post" (BERT, ALBEF).
    pool: "first", the first token, or "last", the last real one (with `causal`), or "mean" of the real tokens.
    remat: what of a block is not kept for the backward pass.
  """

  READS: ClassVar = 2  # towers at least, the first of them the one whose tokens go through
  CHOICES: ClassVar = {
    "norm": NORMS, "pool": ("first", "last", "mean"), "activation": tuple(ACTIVATIONS), "remat": REMAT,
    "attention": ATTENTION, "dtype": DTYPES,
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

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.causal and self.pool == "first":
      raise UserError("pool 'first' takes the first token, which sees no other when causal=True; use pool='last'")

  @nn.compact
  def __call__(self, first: Encoded, *others: Encoded, train: bool) -> Encoded:
    """first: tokens [B, L, C0], others: tokens [B, Si, Ci], each with its mask -> pooled [B, D], tokens [B, L, D] with
    the first's mask and grid."""
    dtype, x, mask = jnp.dtype(self.dtype), first.tokens, first.mask
    if x.shape[-1] != self.width:
      x = Dense(self.width, dtype=dtype, name="embed")(x)
    context, context_mask = self._context(others, dtype)
    block_of = functools.partial(
      FusionBlock, self.heads, round(self.width * self.mlp_ratio), self.activation, self.causal, self.norm,
      self.dropout, self.norm_epsilon, dtype, self.attention,
    )  # fmt: skip

    def body(block: FusionBlock, x: jax.Array) -> jax.Array:
      return block(x, mask, context, context_mask, train=train)

    if self.remat != "none":
      policy = None if self.remat == "full" else getattr(jax.checkpoint_policies, self.remat)
      body = nn.remat(body, policy=policy)
    for number in range(self.depth):
      x = body(block_of(name=f"blocks_{number}"), x)
    if self.norm == "pre":
      x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    return Encoded(self._pooled(x, mask), x, mask, grid=first.grid)

  def _context(self, others: Sequence[Encoded], dtype: Any) -> tuple[jax.Array, jax.Array | None]:
    """The tokens of all others, one after the other, and which of them are real."""
    if len(others) == 1:
      return others[0].tokens, others[0].mask
    tokens = [Dense(self.width, dtype=dtype, name=f"context_{i}")(other.tokens) for i, other in enumerate(others)]
    masks = [jnp.ones(x.tokens.shape[:2], bool) if x.mask is None else x.mask for x in others]
    return jnp.concatenate(tokens, 1), jnp.concatenate(masks, 1)

  def _pooled(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    if self.pool == "mean":
      return masked_mean(x, mask)
    if self.pool == "first":
      return x[:, 0]
    last = jnp.full(len(x), x.shape[1] - 1) if mask is None else jnp.max(jnp.where(mask, jnp.arange(x.shape[1]), 0), 1)
    return jnp.take_along_axis(x, last[:, None, None], 1)[:, 0]
