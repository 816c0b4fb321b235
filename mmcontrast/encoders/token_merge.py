"""Tokens merged into fewer by density peaks: words to actions, actions to events (HBI, arXiv 2303.14369)."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Attention, check_heads
from mmcontrast.errors import UserError


class TokenMerge(nn.Module):
  """A head of a head of tokens: ceil(rate L) clusters of them, each the mean of its tokens by learned weights.

      x + Conv(x) over three neighbours, LayerNorm, weight exp(Linear(x)); clusters by `merge`; x + Attention(LN(x))

  Weights of the merged tokens, as `token_weighted` gives them, are learned too. As CTM and TCBlock of
  jpthu17/HBI@b261e9c, whose convolution sees padding as it is; here it is zeros.

  Attributes:
    rate: clusters a token (released: 0.25, then 0.5).
    neighbours: of a token, whose distances say how dense it is there.
  """

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask", "weights")
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  rate: float = 0.25
  neighbours: int = 3
  heads: int = 4
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.dim, self.heads)
    if not 0 < self.rate <= 1:
      raise UserError(f"rate: {self.rate} is not in (0, 1]; HBI uses 0.25, then 0.5")
    if self.neighbours < 1:
      raise UserError(f"neighbours: {self.neighbours} is not a number of neighbours; HBI uses 3")

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, ceil(rate L), dim], their mask, and weights, as logarithms."""
    del train
    dtype = jnp.dtype(self.dtype)
    real = jnp.ones(tokens.shape[:2], bool) if mask is None else mask.astype(bool)
    x = tokens if tokens.shape[-1] == self.dim else Dense(self.dim, dtype=dtype, name="fc1")(tokens)
    x = jnp.where(real[..., None], x.astype(dtype), 0)
    x = x + nn.Conv(self.dim, (3,), use_bias=False, dtype=dtype, name="conv")(x)
    x = LayerNorm(dtype=dtype, name="norm")(x)
    score = Dense(1, dtype=dtype, name="score")(x)[..., 0]
    x, real = merge(x, real, score, math.ceil(self.rate * x.shape[1]), self.neighbours)
    normed = LayerNorm(dtype=dtype, name="norm1")(x)
    x = x + Attention(self.heads, dtype=dtype, name="attn")(normed, real)
    hidden = nn.relu(Dense(self.dim, dtype=dtype, name="weight1")(x))
    return Encoded(None, x, real, Dense(1, dtype=dtype, name="weight2")(hidden)[..., 0])


def merge(
  x: jax.Array, mask: jax.Array, score: jax.Array, clusters: int, neighbours: int
) -> tuple[jax.Array, jax.Array]:
  """Tokens [B, L, D] merged to the means [B, C, D] of their clusters, weighted by exp(score [B, L]).

  Returns them and which hold a real token, bool [B, C]; padding (not `mask`) has no weight in any.
  """
  member = jax.nn.one_hot(clusters_of(x, mask, clusters, neighbours), clusters, dtype=x.dtype)
  weight = jnp.where(mask, jnp.exp(score), 0.0)[..., None] * member
  weight = weight / (jnp.sum(weight, 1, keepdims=True) + 1e-6)
  merged = jnp.einsum("blc,bld->bcd", weight, jnp.where(mask[..., None], x, 0.0), precision="highest")
  return merged, jnp.any((member > 0) & mask[..., None], 1)


def clusters_of(x: jax.Array, mask: jax.Array, clusters: int, neighbours: int) -> jax.Array:
  """The cluster of each token, int32 [B, L]: density peaks by k nearest neighbours, without a gradient.

  A token is as dense as exp of minus the mean squared distance to its neighbours, itself one of them; its score is that
  times the distance to the nearest denser token (of equally dense ones the earlier). The tokens of the largest scores
  are centres, and every token belongs to the nearest of these. Source: Du et al. 2016 (DPC-KNN), as HBI's released
  code has it; the noise that breaks its ties is left out.
  """
  x = lax.stop_gradient(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
  length = x.shape[1]
  distance = jnp.sqrt(jnp.sum((x[:, :, None] - x[:, None]) ** 2, -1) / x.shape[-1])
  farthest = jnp.max(distance, (1, 2), keepdims=True) + 1
  distance = jnp.where(mask[:, None], distance, farthest)  # of no token is padding near
  nearest = -lax.top_k(-distance, min(neighbours, length))[0]
  density = jnp.where(mask, jnp.exp(-jnp.mean(nearest**2, -1)), 0.0)
  earlier = jnp.arange(length) < jnp.arange(length)[:, None]
  denser = (density[:, None] > density[..., None]) | ((density[:, None] == density[..., None]) & earlier)
  peak = jnp.min(jnp.where(denser, distance, jnp.max(distance, (1, 2), keepdims=True)), -1)
  centres = lax.top_k(peak * density, clusters)[1]  # [B, C]
  to_centre = jnp.take_along_axis(distance, centres[..., None], 1)  # of each centre to every token, [B, C, L]
  nearest_centre = jnp.argmin(to_centre, 1).astype(jnp.int32)
  own = centres[..., None] == jnp.arange(length)
  return jnp.where(jnp.any(own, 1), jnp.argmax(own, 1).astype(jnp.int32), nearest_centre)
