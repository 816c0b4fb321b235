"""Pre-norm transformer blocks, shared by the image and text encoders.

Parameter names are timm's: norm1, attn/qkv, attn/proj, norm2, mlp/fc1, mlp/fc2.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.errors import UserError

ACTIVATIONS = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_tanh": nn.gelu,  # 5 to 8 % faster than the exact form on CPU
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
  "relu": nn.relu,
}


def flat_dot(lhs: jax.Array, rhs: jax.Array, dimension_numbers, **options) -> jax.Array:
  """[..., D] x [D, E] as a product of two matrices, for `nn.Dense(dot_general=...)`.

  The gradient of `rhs` then contracts one axis; with several, XLA's CPU backend first
  transposes `lhs` in memory (a fifth of a ViT's training step).
  """
  del dimension_numbers  # Dense contracts the last axis with the first
  y = lax.dot_general(lhs.reshape(-1, lhs.shape[-1]), rhs, (((1,), (0,)), ((), ())), **options)
  return y.reshape(*lhs.shape[:-1], rhs.shape[-1])


dense = functools.partial(
  nn.Dense, kernel_init=nn.initializers.xavier_uniform(), dot_general=flat_dot
)


def check_heads(width: int, heads: int) -> None:
  """Raises UserError unless `width` splits evenly into `heads`."""
  if width % heads:
    valid = [h for h in range(1, width + 1) if width % h == 0]
    near = min(valid, key=lambda h: (abs(h - heads), h))
    raise UserError(f"width {width} does not split into {heads} heads; the nearest is heads={near}")


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, causal: bool):
  """Scaled dot-product attention.

  Args:
    q: [B, L, heads, d]; k, v: [B, S, heads, d].
    mask: [B, S] bool, the keys that may be attended to; None for all.
    causal: position i sees positions 0 to i only.

  Returns:
    [B, L, heads * d].
  """
  keys = None if mask is None else mask[:, None, None, :]
  y = jax.nn.dot_product_attention(q, k, v, mask=keys, is_causal=causal)
  return y.reshape(*y.shape[:2], -1)


def masked_mean(tokens: jax.Array, mask: jax.Array | None) -> jax.Array:
  """[B, L, D], [B, L] -> [B, D]; zeros for an example without a real token."""
  if mask is None:
    return tokens.mean(1)
  weight = mask.astype(tokens.dtype)[..., None]
  return (tokens * weight).sum(1) / jnp.maximum(weight.sum(1), 1)


class Attention(nn.Module):
  """Multi-head self-attention with one matrix for queries, keys and values."""

  heads: int
  causal: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """x [B, L, D], mask [B, L] -> [B, L, D]."""
    batch, length, width = x.shape
    qkv = dense(3 * width, dtype=self.dtype, name="qkv")(x)
    q, k, v = jnp.unstack(qkv.reshape(batch, length, 3, self.heads, -1), axis=2)
    return dense(width, dtype=self.dtype, name="proj")(attend(q, k, v, mask, self.causal))


class Mlp(nn.Module):
  """Two linear layers with an activation between."""

  hidden: int
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[..., D] -> [..., D]."""
    y = dense(self.hidden, dtype=self.dtype, name="fc1")(x)
    y = ACTIVATIONS[self.activation](y)
    y = nn.Dropout(self.dropout)(y, deterministic=not train)
    return dense(x.shape[-1], dtype=self.dtype, name="fc2")(y)


class Block(nn.Module):
  """x + attn(norm(x)), then x + mlp(norm(x)).

  Attributes:
    drop_path: probability that an example skips a branch (Huang et al., arXiv:1603.09382).
  """

  heads: int
  hidden: int
  activation: str = "gelu_tanh"
  causal: bool = False
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-6
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    """x [B, L, D], mask [B, L] bool or None -> [B, L, D]."""
    norm = functools.partial(nn.LayerNorm, epsilon=self.norm_epsilon, dtype=self.dtype)

    def residual(x, y):
      y = nn.Dropout(self.dropout)(y, deterministic=not train)
      return x + nn.Dropout(self.drop_path, broadcast_dims=(1, 2))(y, deterministic=not train)

    attn = Attention(self.heads, self.causal, self.dtype, name="attn")
    mlp = Mlp(self.hidden, self.activation, self.dropout, self.dtype, name="mlp")
    x = residual(x, attn(norm(name="norm1")(x), mask))
    return residual(x, mlp(norm(name="norm2")(x), train=train))
