"""One vector from many tokens by attention."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.transformer import Mlp, attend, dense


class AttentionPool(nn.Module):
  """One learned query over all tokens, then an MLP (Zhai et al., arXiv:2106.04560)."""

  heads: int
  hidden: int
  activation: str
  norm_epsilon: float
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, L, D] -> [B, D]."""
    batch, length, width = x.shape
    latent = self.param("latent", nn.initializers.xavier_uniform(), (1, 1, width), jnp.float32)
    latent = jnp.broadcast_to(latent.astype(x.dtype), (batch, 1, width))
    q = dense(width, dtype=self.dtype, name="q")(latent).reshape(batch, 1, self.heads, -1)
    kv = dense(2 * width, dtype=self.dtype, name="kv")(x)
    k, v = jnp.unstack(kv.reshape(batch, length, 2, self.heads, -1), axis=2)
    y = dense(width, dtype=self.dtype, name="proj")(attend(q, k, v, None, causal=False))
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, name="mlp")
    norm = nn.LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm")
    return (y + mlp(norm(y), train=train))[:, 0]
