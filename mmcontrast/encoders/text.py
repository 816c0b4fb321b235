"""Text transformer: causal as in CLIP (arXiv:2103.00020) or bidirectional as in BERT.

Parameters: token_embedding, pos_embed, blocks_0/... (see `transformer.Block`), norm.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.registry import DTYPES
from mmcontrast.encoders.transformer import ACTIVATIONS, Block, check_heads, masked_mean
from mmcontrast.errors import UserError


class TextTransformer(nn.Module):
  """Token ids [B, L] and their mask to token vectors and one vector.

  Padding (mask False) is never attended to and never pooled, so neither its ids nor its
  length change `pooled`.

  Attributes:
    max_length: number of learned positions; L may be shorter.
    causal: each token sees itself and those before it.
    pool: "mean" of the real tokens, "cls" (the first token; bidirectional only), or "eos".
    eos_id: pool "eos" takes the first token of this id; None: the last real token.
  """

  CHOICES: ClassVar = {
    "pool": ("mean", "cls", "eos"), "activation": tuple(ACTIVATIONS), "dtype": DTYPES,
  }  # fmt: skip

  vocab_size: int
  width: int = 512
  depth: int = 6
  heads: int = 8
  max_length: int = 77
  mlp_ratio: float = 4.0
  causal: bool = False
  pool: str = "mean"
  eos_id: int | None = None
  activation: str = "gelu_tanh"
  dropout: float = 0.0
  drop_path: float = 0.0
  norm_epsilon: float = 1e-5
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.causal and self.pool == "cls":
      raise UserError(
        "pool 'cls' takes the first token, which sees nothing when causal=True; use pool='eos'"
      )

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """ids [B, L] int32, mask [B, L] bool (True: real) -> pooled [B, D], tokens [B, L, D], mask."""
    dtype = jnp.dtype(self.dtype)
    length = ids.shape[1]
    if length > self.max_length:
      raise UserError(f"texts of {length} tokens do not fit max_length={self.max_length}")
    mask = jnp.ones(ids.shape, bool) if mask is None else mask.astype(bool)
    embedding = nn.Embed(
      self.vocab_size, self.width, dtype=dtype, embedding_init=nn.initializers.normal(0.02),
      name="token_embedding",
    )  # fmt: skip
    shape = (self.max_length, self.width)
    position = self.param("pos_embed", nn.initializers.normal(0.01), shape, jnp.float32)
    x = embedding(ids) + position[:length].astype(dtype)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    for i in range(self.depth):
      drop_path = self.drop_path * i / max(self.depth - 1, 1)
      block = Block(
        self.heads, round(self.width * self.mlp_ratio), self.activation, self.causal,
        self.dropout, drop_path, self.norm_epsilon, dtype, name=f"blocks_{i}",
      )  # fmt: skip
      x = block(x, mask, train=train)
    tokens = nn.LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(x)
    return Encoded(self._pool(tokens, ids, mask), tokens, mask)

  def _pool(self, tokens: jax.Array, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """tokens [B, L, D] -> [B, D]; an example without a real token pools to zeros under "mean"."""
    if self.pool == "cls":
      return tokens[:, 0]
    if self.pool == "mean":
      return masked_mean(tokens, mask)
    if self.eos_id is not None:
      at = jnp.argmax((ids == self.eos_id) & mask, axis=1)
    else:
      at = jnp.max(jnp.where(mask, jnp.arange(ids.shape[1]), 0), axis=1)
    return jnp.take_along_axis(tokens, at[:, None, None], axis=1)[:, 0]
