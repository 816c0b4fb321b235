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

from mmcontrast.encoders.dense import Embed
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.positions import rope1d
from mmcontrast.encoders.transformer import ACTIVATIONS, Attention, Mlp, check_heads, masked_mean, token_mask


class ModernBertBlock(nn.Module):
  """x + attn(norm(x)), then x + mlp(norm(x)); the first block attends without a norm, x being normalised.

  The MLP is GeGLU (arXiv:2002.05202).
  """

  IS_LAYER: ClassVar = True

  heads: int
  hidden: int
  activation: str
  window: int | None
  first: bool
  dropout: float
  norm_epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array, angles: jax.Array, *, train: bool) -> jax.Array:
    """x [B, L, D], mask [B, L] bool, angles [1, L, D / heads / 2] -> [B, L, D]."""
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, use_bias=False, dtype=self.dtype)
    drop = nn.Dropout(self.dropout, deterministic=not train)
    attn = Attention(self.heads, dtype=self.dtype, qkv_bias=False, proj_bias=False, window=self.window, name="attn")
    x = x + drop(attn(x if self.first else norm(name="norm1")(x), mask, angles))
    mlp = Mlp(self.hidden, self.activation, dtype=self.dtype, gated=True, bias=False, name="mlp")
    return x + drop(mlp(norm(name="norm2")(x), train=train))


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
  sees_padding: ClassVar = False  # `pooled` does not depend on it

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

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """ids [B, L] int32, mask [B, L] bool (True: real) -> pooled [B, D], tokens [B, L, D], mask."""
    dtype = jnp.dtype(self.dtype)
    length = ids.shape[1]
    mask = token_mask(ids, mask, self.max_length)
    norm = functools.partial(LayerNorm, epsilon=self.norm_epsilon, use_bias=False, dtype=dtype)
    embedding = Embed(
      self.vocab_size, self.width, dtype=dtype, embedding_init=nn.initializers.normal(0.02), name="token_embedding"
    )
    x = nn.Dropout(self.dropout)(norm(name="norm_pre")(embedding(ids)), deterministic=not train)
    angles = [rope1d(length, self.width // self.heads, theta)[None] for theta in (self.global_theta, self.local_theta)]
    for i in range(self.depth):
      local = i % self.global_every != 0
      block = ModernBertBlock(
        self.heads,
        round(self.width * self.mlp_ratio),
        self.activation,
        self.window if local else None,
        i == 0,
        self.dropout,
        self.norm_epsilon,
        dtype,
        name=f"blocks_{i}",
      )
      x = block(x, mask, angles[local], train=train)
    tokens = norm(name="norm")(x)
    return Encoded(masked_mean(tokens, mask) if self.pool == "mean" else tokens[:, 0], tokens, mask)


modern_bert_large = functools.partial(ModernBert, width=1024, depth=28, heads=16, mlp_ratio=2.5625)
