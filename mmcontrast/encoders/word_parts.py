"""A text as the sum of its words' parts: the same numbers that a graph's nodes have (modalities/hashed_words.py), which
a tower of graphs with pool "features" gives too, so that one matrix takes both into one space.

Parameters: weight.
"""

from __future__ import annotations

from flax import linen as nn
from jax import Array
from jax import numpy as jnp

from mmcontrast.encoders.encoded import Encoded

_SPECIALS = 3  # of the tokenizer


class WordParts(nn.Module):
  """Ids of the tokenizer `word_parts` to hashed numbers, each part with a weight that is learned and begins with 1.

  A text of one word is, until weights change, what `hashed_words` makes of it, but for its length.

  Attributes:
    features: how many numbers, as data.graph.features.
    max_length: the most tokens of a text; not looked at.
  """

  vocab_size: int
  features: int = 256
  max_length: int = 77

  @nn.compact
  def __call__(self, ids: Array, mask: Array | None = None, *, train: bool) -> Encoded:
    """ids [B, L] int32, mask [B, L] bool (True: real) -> pooled [B, features]."""
    del train
    weight = self.param("weight", nn.initializers.ones, (self.vocab_size,), jnp.float32)
    hashes = ids - _SPECIALS
    there = (hashes >= 0) if mask is None else mask & (hashes >= 0)
    sign = jnp.where(hashes % 2 == 1, 1.0, -1.0)
    told = jnp.where(there, sign * weight[ids], 0.0)
    rows = jnp.arange(len(ids))[:, None]
    pooled = jnp.zeros((len(ids), self.features), told.dtype).at[rows, (hashes // 2) % self.features].add(told)
    return Encoded(pooled, mask=mask)
