"""ModernBERT (Warner et al., arXiv:2412.13663): rotary positions, gated MLPs, local and global attention in turn, and
no biases.

Parameters: token_embedding, norm_pre, blocks_0/{norm1 (but in the first), attn/{qkv, proj}, norm2, mlp/{fc1, fc2}},
norm.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.registry import DTYPES
from mmcontrast.encoders.transformer import ACTIVATIONS, check_heads, dense, masked_mean
from mmcontrast.errors import UserError


def rotate(x: jax.Array, theta: float) -> jax.Array:
  """Turns each pair (i, i + d/2) of x [B, L, heads, d] by position * theta^(-2i/d) (RoPE, arXiv:2104.09864)."""
  length, dim = x.shape[1], x.shape[-1]
  angle = jnp.arange(length)[:, None] * theta ** (-jnp.arange(0, dim, 2) / dim)
  cos, sin = (f(angle)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
  first, second = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


class RotaryAttention(nn.Module):
  """Multi-head self-attention with rotary positions; with a `window`, to so many tokens on either side."""

  heads: int
  theta: float
  window: int | None
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array) -> jax.Array:
    """x [B, L, D], mask [B, L] -> [B, L, D]."""
    batch, length, width = x.shape
    qkv = dense(3 * width, use_bias=False, dtype=self.dtype, name="qkv")(x)
    q, k, v = jnp.unstack(qkv.reshape(batch, length, 3, self.heads, -1), axis=2)
    q, k = rotate(q, self.theta), rotate(k, self.theta)
    y = jax.nn.dot_product_attention(q, k, v, mask=mask[:, None, None, :], local_window_size=self.window)
    return dense(width, use_bias=False, dtype=self.dtype, name="proj")(y.reshape(batch, length, width))


class GatedMlp(nn.Module):
  """fc2(activation(a) * b) of fc1's halves a, b (GeGLU with GELU, arXiv:2002.05202)."""

  hidden: int
  activation: str
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., D]."""
    value, gate = jnp.split(dense(2 * self.hidden, use_bias=False, dtype=self.dtype, name="fc1")(x), 2, axis=-1)
    return dense(x.shape[-1], use_bias=False, dtype=self.dtype, name="fc2")(ACTIVATIONS[self.activation](value) * gate)


class ModernBertBlock(nn.Module):
  """x + attn(norm(x)), then x + mlp(norm(x)); the first block attends without a norm, x being normalised."""

  heads: int
  hidden: int
  activation: str
  theta: float
  window: int | None
  first: bool
  dropout: float
  norm_epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, *, train: bool) -> jax.Array:
    """x [B, L, D], mask [B, L] bool -> [B, L, D]."""
    norm = functools.partial(nn.LayerNorm, epsilon=self.norm_epsilon, use_bias=False, dtype=self.dtype)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    attn = RotaryAttention(self.heads, self.theta, self.window, self.dtype, name="attn")
    x = x + drop(attn(x if self.first else norm(name="norm1")(x), mask))
    mlp = GatedMlp(self.hidden, self.activation, self.dtype, name="mlp")
    return x + drop(mlp(norm(name="norm2")(x)))


class ModernBert(nn.Module):
  """Token ids [B, L] and their mask to token vectors and one vector. The defaults are ModernBERT-base's.

  Padding (mask False) is neither attended to nor pooled.

  Attributes:
    max_length: the most tokens of a text; no parameter depends on it.
    pool: "mean" of the real tokens, or "cls" (the first token).
    global_every: blocks 0, global_every, ... attend to the whole text, the others to a window.
    window: tokens on either side that a local block attends to.
    global_theta, local_theta: bases of the rotary positions.
  """

  CHOICES: ClassVar = {"pool": ("mean", "cls"), "activation": tuple(ACTIVATIONS), "dtype": DTYPES}

  vocab_size: int
  width: int = 768
  depth: int = 22
  heads: int = 12
  max_length: int = 8192
  mlp_ratio: float = 1.5
  pool: str = "mean"
  activation: str = "gelu"
  global_every: int = 3
  window: int = 64
  global_theta: float = 160_000.0
  local_theta: float = 10_000.0
  dropout: float = 0.0
  norm_epsilon: float = 1e-5
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.width // self.heads % 2:
      raise UserError(f"width {self.width} gives {self.heads} heads an odd number of numbers, which do not pair for "
                      "rotary positions; make width a multiple of 2 * heads")

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """ids [B, L] int32, mask [B, L] bool (True: real) -> pooled [B, D], tokens [B, L, D], mask."""
    dtype = jnp.dtype(self.dtype)
    if ids.shape[1] > self.max_length:
      raise UserError(f"texts of {ids.shape[1]} tokens do not fit max_length={self.max_length}")
    mask = jnp.ones(ids.shape, bool) if mask is None else mask.astype(bool)
    norm = functools.partial(nn.LayerNorm, epsilon=self.norm_epsilon, use_bias=False, dtype=dtype)
    embedding = nn.Embed(self.vocab_size, self.width, dtype=dtype, embedding_init=nn.initializers.normal(0.02),
                         name="token_embedding")
    x = nn.Dropout(self.dropout)(norm(name="norm_pre")(embedding(ids)), deterministic=not train)
    for i in range(self.depth):
      local = i % self.global_every != 0
      block = ModernBertBlock(
        self.heads, round(self.width * self.mlp_ratio), self.activation,
        self.local_theta if local else self.global_theta, self.window if local else None, i == 0, self.dropout,
        self.norm_epsilon, dtype, name=f"blocks_{i}",
      )  # fmt: skip
      x = block(x, mask, train=train)
    tokens = norm(name="norm")(x)
    return Encoded(masked_mean(tokens, mask) if self.pool == "mean" else tokens[:, 0], tokens, mask)


modern_bert_large = functools.partial(ModernBert, width=1024, depth=28, heads=16, mlp_ratio=2.5625)
