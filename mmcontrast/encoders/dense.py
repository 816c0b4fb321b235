"""Linear layers, written as the platform of the program likes them (lowering.py): same parameters, same numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.lowering import by_batch, lowering, whole


def flat_dot(lhs: jax.Array, rhs: jax.Array) -> jax.Array:
  """[..., D] x [D, E] as a product of two matrices.

  The gradient of `rhs` then contracts one axis; with several, XLA's CPU backend first
  transposes `lhs` in memory (a fifth of a ViT's training step). On a TPU it is the product as it stands.
  """
  if not lowering().flat_products:
    return lax.dot_general(lhs, rhs, (((lhs.ndim - 1,), (0,)), ((), ())))
  y = lax.dot_general(lhs.reshape(-1, lhs.shape[-1]), rhs, (((1,), (0,)), ((), ())))
  return y.reshape(*lhs.shape[:-1], rhs.shape[-1])


def column_sums(x: jax.Array) -> jax.Array:
  """[..., E] -> [E], float32 or wider, as a product with rows of ones, which on a TPU takes an eighth of the time of
  XLA's reduction."""
  before = tuple(range(x.ndim - 1))
  ones = jnp.ones((8, *x.shape[:-1]), x.dtype)  # as many rows as a tile has: one would be a reduction again
  over = ((tuple(axis + 1 for axis in before), before), ((), ()))
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return lax.dot_general(ones, x, over, precision=lax.Precision.HIGHEST, preferred_element_type=wide)[0]


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
  """[..., E] + [E]."""
  return _add_summing_by_product(y, bias) if lowering().sums_by_product else y + bias


@jax.custom_vjp
def _add_summing_by_product(y: jax.Array, bias: jax.Array) -> jax.Array:
  """`y + bias`; the gradient of the bias is by `column_sums`."""
  return y + bias


def _add_forward(y, bias):
  return y + bias, None


def _add_backward(_, dy):
  return dy, column_sums(dy).astype(dy.dtype)


_add_summing_by_product.defvjp(_add_forward, _add_backward)


class Embed(nn.Embed):
  """`flax.linen.Embed`: the same parameters and numbers."""

  def __call__(self, ids: jax.Array) -> jax.Array:
    """[B, ...] int -> [B, ..., features]."""
    (table,) = nn.dtypes.promote_dtype(self.embedding, dtype=self.dtype, inexact=False)
    return by_batch(jnp.take(whole(table), ids, axis=0))


class Dense(nn.Module):
  """`flax.linen.Dense`: the same parameters and numbers."""

  features: int
  use_bias: bool = True
  dtype: Any = None
  kernel_init: Callable[..., jax.Array] = nn.initializers.xavier_uniform()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., D] -> [..., features]."""
    kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32) if self.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = by_batch(flat_dot(x, kernel))
    return y if bias is None else add_bias(y, bias)


class JointDense(nn.Module):
  """Several linear layers of one input, whose matrices are stored as one: `Dense(parts * features)`, cut in parts.

  On some platforms (lowering.py) it is one product, on others a product a part.
  """

  features: int
  parts: int
  use_bias: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array) -> list[jax.Array]:
    """[..., D] -> `parts` arrays [..., features]."""
    shape = (x.shape[-1], self.parts * self.features)
    kernel = self.param("kernel", nn.initializers.xavier_uniform(), shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, shape[1:], jnp.float32) if self.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    cut = functools.partial(jnp.split, indices_or_sections=self.parts, axis=-1)
    if lowering().fused_qkv:
      y = by_batch(flat_dot(x, kernel))
      return cut(y if bias is None else add_bias(y, bias))
    parts = [by_batch(flat_dot(x, part)) for part in cut(kernel)]
    return parts if bias is None else [add_bias(part, offset) for part, offset in zip(parts, cut(bias))]
