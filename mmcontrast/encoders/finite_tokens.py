"""Finite discrete tokens: an example as a sparse mixture of codes that all modalities share (Chen et al. 2023,
"Revisiting Multimodal Representation in Contrastive Learning", arXiv:2303.14865)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.errors import UserError

POOLS = ("max", "mean", "sum")
ACTIVATIONS = ("sparsemax", "softmax", "sigmoid")


class FiniteTokens(nn.Module):
  """Tokens choose codes; the example is the mixture of the codes that they choose.

      r = q codes^T / (sqrt(dim) temperature),  q = Linear(GELU(LN(Linear(LN(token)))))
      weights = activation(pool of r over tokens);  pooled = weights codes

  Every modality has such a head; with `shared=dict(codes=HEAD)` in its config it uses the codes of another one. The
  released code (yuxiaochen1103/FDT@ccf69830) gives a padded token r = 0, so that padding wins a maximum of negative
  numbers.

  Attributes:
    codes: how many (released: 16,384).
    temperature: that r is divided by; fixed (released: 1,000 for dim 512 and unscaled products).
    pool: of r over tokens: "max", "mean" or "sum".
    activation: "sparsemax", "softmax" or "sigmoid" (divided by its sum).
    padding_as_zero: whether padded tokens have r = 0, as in the released code, and take no part otherwise.
  """

  TAKES: ClassVar = ("tokens", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES, "pool": POOLS, "activation": ACTIVATIONS}

  dim: int
  codes: int = 1024
  temperature: float = 1.0
  pool: str = "max"
  activation: str = "sparsemax"
  padding_as_zero: bool = False
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if not self.temperature > 0:
      raise UserError(f"temperature: {self.temperature} is not above 0")

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> pooled [B, dim], not normalised."""
    del train
    dtype = jnp.dtype(self.dtype)
    q = Dense(self.dim, dtype=dtype, name="fc1")(LayerNorm(dtype=dtype, name="norm1")(tokens))
    q = LayerNorm(dtype=dtype, name="norm2")(nn.gelu(q, approximate=False))
    q = Dense(self.dim, dtype=dtype, name="fc2")(q)
    table = Codes(self.codes, self.dim, name="codes")()
    return Encoded(
      mixture(q, mask, table.astype(dtype), self.temperature, self.pool, self.activation, self.padding_as_zero)
    )


class Codes(nn.Module):
  """The table of codes: a layer, so that heads can share it."""

  count: int
  dim: int

  @nn.compact
  def __call__(self) -> jax.Array:
    """[count, dim]."""
    return self.param("kernel", nn.initializers.normal(1.0), (self.count, self.dim), jnp.float32)


def mixture(
  q: jax.Array,
  mask: jax.Array | None,
  codes: jax.Array,
  temperature: float,
  pool: str,
  activation: str,
  padding_as_zero: bool = False,
) -> jax.Array:
  """Queries [B, L, D], their mask [B, L] and codes [C, D] -> [B, D], a mixture of codes.

  Source: FDT (arXiv:2303.14865), Query_model of its released code.
  """
  r = jnp.einsum("bld,cd->blc", q, codes) / (q.shape[-1] ** 0.5 * temperature)
  real = jnp.ones(q.shape[:2], bool) if mask is None else mask
  if padding_as_zero:
    r, real = jnp.where(real[..., None], r, 0.0), jnp.ones_like(real)
  real = real[..., None]
  if pool == "max":
    scores = jnp.max(jnp.where(real, r, -jnp.inf), 1)
    scores = jnp.where(jnp.any(real, 1), scores, 0.0)
  else:
    scores = jnp.sum(jnp.where(real, r, 0.0), 1)
    scores = scores / jnp.maximum(jnp.sum(real, 1), 1) if pool == "mean" else scores
  if activation == "sparsemax":
    weights = sparsemax(scores)
  elif activation == "softmax":
    weights = jax.nn.softmax(scores, -1)
  else:
    weights = jax.nn.sigmoid(scores)
    weights = weights / jnp.sum(weights, -1, keepdims=True)
  return weights @ codes


@jax.custom_jvp
def sparsemax(z: jax.Array) -> jax.Array:
  """The point of the simplex nearest to z, over the last axis: most entries are zero.

  Source: Martins and Astudillo 2016 (arXiv:1602.02068), algorithm 1; gradient: proposition 1.
  """
  ordered = jnp.flip(jnp.sort(z, -1), -1)
  sums = jnp.cumsum(ordered, -1)
  number = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype)
  size = jnp.sum(1 + number * ordered > sums, -1, keepdims=True)
  threshold = (jnp.take_along_axis(sums, size - 1, -1) - 1) / size.astype(z.dtype)
  return jnp.maximum(z - threshold, 0)


@sparsemax.defjvp
def _sparsemax_jvp(primals, tangents):
  (z,), (change,) = primals, tangents
  found = sparsemax(z)
  support = lax.stop_gradient(found > 0).astype(z.dtype)
  mean = jnp.sum(support * change, -1, keepdims=True) / jnp.sum(support, -1, keepdims=True)
  return found, support * (change - mean)
