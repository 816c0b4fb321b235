"""Logits over a vocabulary, for every token: what a decoder of captions and masked language modelling predict with."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import exact_gelu


class Words(nn.Module):
  """One matrix from tokens to the words of a vocabulary, as CoCa's last (arXiv:2205.01917).

  Parameters: fc1 (or `token_embedding` of a text tower, when tied, and bias), and transform, norm.

  Attributes:
    vocab_size: None: that of the text tower whose tokens come here, through the first of each tower's `reads`.
    bias: whether each word has an offset.
    tied: the matrix is the token embedding of that text tower, which must be as wide as the tokens.
    transform: a layer, GELU and a norm before it, as in BERT (arXiv:1810.04805).
  """

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("logits", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES}

  vocab_size: int | None = None
  bias: bool = False
  tied: bool = False
  transform: bool = False
  norm_epsilon: float = 1e-12
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> logits [B, L, V], mask."""
    del train
    dtype, width = jnp.dtype(self.dtype), tokens.shape[-1]
    if self.transform:
      tokens = exact_gelu(Dense(width, dtype=dtype, name="transform")(tokens))
      tokens = LayerNorm(epsilon=self.norm_epsilon, dtype=dtype, name="norm")(tokens)
    if not self.tied:
      return Encoded(logits=Dense(self.vocab_size, use_bias=self.bias, dtype=dtype, name="fc1")(tokens), mask=mask)
    logits = nn.Embed(self.vocab_size, width, dtype=dtype, name="token_embedding").attend(tokens)
    if self.bias:
      logits = logits + self.param("bias", nn.initializers.zeros, (self.vocab_size,), jnp.float32).astype(dtype)
    return Encoded(logits=logits, mask=mask)
