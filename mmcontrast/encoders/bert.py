"""BERT (Devlin et al., arXiv:1810.04805) and the sentence encoders made of it, such as MiniLM.

Parameters: token_embedding, pos_embed, type_embed, norm_pre, blocks_0/{attn/{qkv, proj}, norm1, mlp/{fc1, fc2},
norm2}, pooler.
"""

from __future__ import annotations

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.dense import Dense, Embed
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import ACTIVATIONS, Block, apply_blocks, check_heads, masked_mean, token_mask


class Bert(nn.Module):
  """Token ids [B, L] and their mask to token vectors and one vector. The defaults are BERT-base's.

  Padding (mask False) is neither attended to nor pooled. A text is one segment: of `type_embed` it is given the first
  row.

  Attributes:
    depth: blocks; with 0 tokens are the normalised embeddings, for a decoder that reads them.
    max_length: number of learned positions; L may be shorter.
    first_position: the learned position of a text's first token, counted from 0; RoBERTa's is 2, the one behind the id
      of its padding. There are so many positions more, which no token has.
    token_types: rows of `type_embed`, those of further segments without use here; 0: there is none (BLIP).
    pool: "mean" of the real tokens (sentence encoders), "cls" (the first token), or "pooler" (tanh of a layer on it).
  """

  CHOICES: ClassVar = {"pool": ("mean", "cls", "pooler"), "activation": tuple(ACTIVATIONS), "dtype": DTYPES}
  sees_padding: ClassVar = False  # `pooled` does not depend on it

  vocab_size: int
  width: int = 768
  depth: int = 12
  heads: int = 12
  max_length: int = 512
  token_types: int = 2
  mlp_ratio: float = 4.0
  pool: str = "mean"
  activation: str = "gelu"
  dropout: float = 0.0
  norm_epsilon: float = 1e-12
  dtype: str = "float32"
  first_position: int = 0

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)

  @nn.compact
  def __call__(self, ids: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """ids [B, L] int32, mask [B, L] bool (True: real) -> pooled [B, D], tokens [B, L, D], mask."""
    dtype, normal = jnp.dtype(self.dtype), nn.initializers.normal(0.02)
    length = ids.shape[1]
    mask = token_mask(ids, mask, self.max_length)
    rows = self.first_position + self.max_length
    position = self.param("pos_embed", normal, (rows, self.width), jnp.float32)[self.first_position :]
    types = (
      self.param("type_embed", normal, (self.token_types, self.width), jnp.float32)[0] if self.token_types else 0.0
    )
    x = Embed(self.vocab_size, self.width, dtype=dtype, embedding_init=normal, name="token_embedding")(ids)
    if self.has_variable("cache", "at"):
      at = self.get_variable("cache", "at")
      self.put_variable("cache", "at", at + length)
      position = lax.dynamic_slice_in_dim(position, at, length)
    x = x + (types + position[:length]).astype(dtype)
    x = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm_pre")(x)
    x = nn.Dropout(self.dropout)(x, deterministic=not train)
    block = functools.partial(
      Block, self.heads, round(self.width * self.mlp_ratio), self.activation, dropout=self.dropout,
      norm_epsilon=self.norm_epsilon, dtype=dtype, norm="post",
    )  # fmt: skip
    x = apply_blocks(block, self.depth, x, mask, train=train)
    if self.pool == "mean":
      return Encoded(masked_mean(x, mask), x, mask)
    if self.pool == "cls":
      return Encoded(x[:, 0], x, mask)
    return Encoded(jnp.tanh(Dense(self.width, dtype=dtype, name="pooler")(x[:, 0])), x, mask)


bert_large = functools.partial(Bert, width=1024, depth=24, heads=16)
