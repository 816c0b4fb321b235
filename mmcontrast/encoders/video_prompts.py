"""Texts told what is seen in a video: X-CLIP's video-specific prompts (Ni et al., arXiv:2208.02816, eq. 10 to 12).

Parameters: norm, alpha, layers_0/{norm1, cross_attn/{q, kv, proj}, norm2, mlp}.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Context, CrossAttention, Mlp


class VideoPrompts(nn.Module):
  """What is added to each text for a video: alpha times the text after `depth` layers that attend to its patches.

  A layer normalises its queries, and keys and values are the normalised tokens; both are added to what goes in.
  """

  depth: int = 2
  heads: int = 1
  alpha: float = 0.1
  norm_epsilon: float = 1e-5
  dtype: Any = None

  @nn.compact
  def __call__(self, texts: jax.Array, tokens: jax.Array) -> jax.Array:
    """texts [B, K, D], K texts for each video; tokens [B, L, D] -> [B, K, D]."""

    def norm(name: str) -> LayerNorm:
      return LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)

    context, x = Context(norm("norm")(tokens)), texts
    for number in range(self.depth):
      x = _Layer(self.heads, self.norm_epsilon, self.dtype, name=f"layers_{number}")(x, context)
    scale = self.param("alpha", nn.initializers.constant(self.alpha), texts.shape[-1:], jnp.float32)
    return scale.astype(x.dtype) * x


class _Layer(nn.Module):
  heads: int
  norm_epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, context: Context) -> jax.Array:
    norm1, norm2 = (LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name) for name in ("norm1", "norm2"))
    x = x + CrossAttention(self.heads, self.dtype, qkv_bias=False, name="cross_attn")(norm1(x), context)
    return x + Mlp(4 * x.shape[-1], "quick_gelu", dtype=self.dtype, name="mlp")(norm2(x), train=False)
