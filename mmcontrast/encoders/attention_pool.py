"""One vector from many tokens by attention."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import attend
from mmcontrast.encoders.dense import Dense, JointDense
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Mlp


class AttentionPool(nn.Module):
  """One learned query over all tokens, then an MLP (Zhai et al., arXiv:2106.04560)."""

  heads: int
  hidden: int
  activation: str
  norm_epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None, *, train: bool) -> jax.Array:
    """[B, L, D] -> [B, D]. `mask` [B, L]: which tokens are real; None: all."""
    batch, length, width = x.shape
    latent = self.param("latent", nn.initializers.xavier_uniform(), (1, 1, width), jnp.float32)
    latent = jnp.broadcast_to(latent.astype(x.dtype), (batch, 1, width))
    q = Dense(width, dtype=self.dtype, name="q")(latent).reshape(batch, 1, self.heads, -1)
    kv = JointDense(width, 2, dtype=self.dtype, name="kv")(x)
    k, v = (part.reshape(batch, length, self.heads, -1) for part in kv)
    y = Dense(width, dtype=self.dtype, name="proj")(attend(q, k, v, mask, causal=False))
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    norm = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")
    return (y + mlp(norm(y), train=train))[:, 0]


class QueryPool(nn.Module):
  """Learned queries over all tokens, as open_clip has CoCa's pooler (Yu et al., arXiv:2205.01917)."""

  queries: int
  dim: int
  heads: int
  norm_epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """[B, L, D] -> [B, queries, dim]. `mask` [B, L]: which tokens are real; None: all."""
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, dtype=self.dtype)
    query = self.param("query", nn.initializers.normal(1.0), (self.queries, self.dim), jnp.float32)
    q = Dense(self.dim, dtype=self.dtype, name="q")(norm(name="norm_q")(query))
    x = norm(name="norm_k")(x)
    k, v = (Dense(self.dim, dtype=self.dtype, name=name)(x) for name in "kv")
    q, k, v = (y.reshape(*y.shape[:-1], self.heads, -1) for y in (jnp.broadcast_to(q, (x.shape[0], *q.shape)), k, v))
    return Dense(self.dim, dtype=self.dtype, name="proj")(attend(q, k, v, mask, causal=False))
