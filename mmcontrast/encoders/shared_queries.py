"""Tokens with a global vector and what learned queries, shared by all modalities, read of them (GLSCL)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.transformer import Block, Context, check_heads


class SharedQueries(nn.Module):
  """The tower's pooled vector, its tokens, and what `queries` learned queries read of them, in one list.

  The first token is the projection of the pooled vector, the last `queries` are those of the decoder: post-norm blocks
  of self-attention, attention to the projected tokens, and an MLP. Every modality has such a head; with
  `shared=dict(decoder=HEAD)` in its config it uses the queries and the decoder of another one. Score
  `text_conditioned_frames` and module `shared_concepts` know the three apart.

  Attributes:
    queries: how many (released: 8).
    depth: blocks of the decoder (released: 3).
  """

  TAKES: ClassVar = ("tokens", "mask", "pooled")
  GIVES: ClassVar = ("tokens", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  queries: int = 8
  depth: int = 3
  heads: int = 4
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.dim, self.heads)

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, L, D], [B, L], [B, D] -> tokens [B, 1 + L + queries, dim] and their mask."""
    dtype = jnp.dtype(self.dtype)
    found = Dense(self.dim, use_bias=False, dtype=dtype, name="fc1")(tokens)
    whole = Dense(self.dim, use_bias=False, dtype=dtype, name="fc2")(pooled)[:, None]
    asked = QueryDecoder(self.queries, self.depth, self.heads, self.dtype, name="decoder")(found, mask, train=train)
    real = jnp.ones(found.shape[:2], bool) if mask is None else mask.astype(bool)
    ends = (jnp.ones((len(real), count), bool) for count in (1, self.queries))
    return Encoded(None, jnp.concatenate([whole, found, asked], 1), jnp.concatenate([next(ends), real, next(ends)], 1))


class QueryDecoder(nn.Module):
  """Learned queries that read tokens."""

  queries: int
  depth: int
  heads: int
  dtype: str

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    """[B, L, D], [B, L] -> [B, queries, D]."""
    dtype, width = jnp.dtype(self.dtype), tokens.shape[-1]
    x = self.param("queries", nn.initializers.uniform(1.0), (self.queries, width), jnp.float32)
    x = jnp.broadcast_to(x.astype(dtype), (len(tokens), self.queries, width))
    for number in range(self.depth):
      block = Block(
        self.heads, 4 * width, "relu", dtype=dtype, branches=("attn", "cross_attn", "mlp"), norm="post",
        name=f"blocks_{number}",
      )  # fmt: skip
      x = block(x, None, context=Context(tokens, mask), train=train)
    return x
