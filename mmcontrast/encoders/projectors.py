"""Heads that align towers which do not train: residual, token and universal projectors."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Block, check_heads, masked_mean


class ResidualMlp(nn.Module):
  """p = Linear(x); LayerNorm(p + Dropout(Linear(GELU(p)))) (freeze-align, arXiv 2409.19425)."""

  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  dropout: float = 0.1
  dtype: str = "float32"

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, D] -> pooled [B, dim], not normalised."""
    dtype = jnp.dtype(self.dtype)
    projected = Dense(self.dim, dtype=dtype, name="fc1")(pooled)
    x = Dense(self.dim, dtype=dtype, name="fc2")(nn.gelu(projected, approximate=False))
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    return Encoded(LayerNorm(dtype=dtype, name="norm")(projected + x))


class TokenProjector(nn.Module):
  """The mean over tokens of Linear(x) + Linear(GELU(Linear(x))), x = Dropout(LayerNorm(token))
  (freeze-align, arXiv 2409.19425).

  Attributes:
    pooled: a `ResidualMlp` of the pooled vector is added (the paper's images).
    mlp: a `ResidualMlp` follows the mean (its texts).
  """

  TAKES: ClassVar = ("tokens", "mask", "pooled")
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  pooled: bool = False
  mlp: bool = False
  dropout: float = 0.1
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, L, D], [B, L], [B, D] -> pooled [B, dim], not normalised."""
    dtype = jnp.dtype(self.dtype)
    x = LayerNorm(dtype=dtype, name="norm")(tokens)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    hidden = nn.gelu(Dense(self.dim, dtype=dtype, name="fc1")(x), approximate=False)
    x = Dense(self.dim, dtype=dtype, name="linear")(x) + Dense(self.dim, dtype=dtype, name="fc2")(hidden)
    found = masked_mean(x, mask)
    if self.mlp:
      found = ResidualMlp(self.dim, self.dropout, self.dtype, name="mlp_of_mean")(found, train=train).pooled
    if self.pooled:
      found += ResidualMlp(self.dim, self.dropout, self.dtype, name="mlp_of_pooled")(pooled, train=train).pooled
    return Encoded(found)


class UniversalProjection(nn.Module):
  """OneEncoder's head (arXiv 2409.11059): an adapter and a modality token of its own, and the trunk of all modalities.

      x = LayerNorm(Dropout(Linear(GELU(Linear(token)))))
      y = trunk(x, t),  t: three learned numbers that say which modality this is

  Every modality has such a head; with `shared=dict(trunk=HEAD)` in its config it uses the trunk of
  another one (`model.Model.shared`), so that there is one trunk.
  """

  TAKES: ClassVar = ("tokens", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int = 256
  heads: int = 4
  depth: int = 1
  dropout: float = 0.1
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.dim, self.heads)

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> pooled [B, dim], not normalised."""
    dtype = jnp.dtype(self.dtype)
    x = nn.gelu(Dense(self.dim, dtype=dtype, name="fc1")(tokens), approximate=False)
    x = nn.Dropout(self.dropout)(Dense(self.dim, dtype=dtype, name="fc2")(x), deterministic=not train)
    x = LayerNorm(dtype=dtype, name="norm")(x)
    token = self.param("modality_token", nn.initializers.normal(0.35), (1, 3), jnp.float32)
    return Encoded(Trunk(self.heads, self.depth, dtype, name="trunk")(x, token, mask, train=train))


class Trunk(nn.Module):
  """The mean over tokens of Transformer(LayerNorm(h)) + h, h = x + LayerNorm(MLP(modality token))."""

  heads: int
  depth: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, token: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    """x [B, L, D], token [1, 3], mask [B, L] -> [B, D]."""
    for number, width in enumerate((64, 128), start=1):
      token = nn.relu(Dense(width, dtype=self.dtype, name=f"token_fc{number}")(token))
    token = Dense(x.shape[-1], dtype=self.dtype, name="token_fc3")(token)
    h = x + LayerNorm(dtype=self.dtype, name="token_norm")(token)
    y = LayerNorm(dtype=self.dtype, name="norm")(h)
    for number in range(self.depth):
      y = Block(self.heads, 4 * h.shape[-1], dtype=self.dtype, name=f"blocks_{number}")(y, mask, train=train)
    return masked_mean(y + h, mask)
