"""A transformer over the tokens of two towers that read each other in every layer, as LXMERT's (arXiv:1908.07490).

    towers.fusion = dict(name="cross_modal_transformer", reads=("text", "image"), width=768, depth=5, heads=12)

Parameters: embed_first, embed_second (where widths differ), blocks_0/{cross_attn, norm_cross, first, second}, the last
two as a `transformer.Block` of norm "post", pooler. In the last layer nothing of the second goes on, and it has none,
unless it comes out too.
"""

from __future__ import annotations

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.attention import ATTENTION
from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import ACTIVATIONS, Block, Context, CrossAttention, check_heads, masked_mean
from mmcontrast.errors import UserError


class CrossModalLayer(nn.Module):
  """Cross-attention by one module in both directions, each from what goes in; then of each self-attention and an MLP.

  All of them x -> norm(x + f(x)). Source: LXRTXLayer of airsplay/lxmert@0db1182, src/lxrt/modeling.py.
  """

  IS_LAYER: ClassVar = True

  heads: int
  hidden: int
  activation: str = "gelu"
  dropout: float = 0.0
  norm_epsilon: float = 1e-12
  dtype: Any = None
  attention: str = "xla"
  first_alone: bool = False

  @nn.compact
  def __call__(self, first: Context, second: Context, *, train: bool) -> tuple[jax.Array, jax.Array | None]:
    """Tokens [B, L, D] and [B, S, D] with their masks -> the same; with `first_alone` the second is None."""
    cross = CrossAttention(self.heads, self.dtype, self.attention, name="cross_attn")
    norm = LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name="norm_cross")
    block = functools.partial(
      Block, self.heads, self.hidden, self.activation, dropout=self.dropout, norm_epsilon=self.norm_epsilon,
      dtype=self.dtype, attention=self.attention, norm="post",
    )  # fmt: skip
    drop = nn.Dropout(self.dropout, deterministic=not train)

    def read(one: Context, other: Context, name: str) -> jax.Array:
      x = norm(one.tokens + drop(cross(one.tokens, other)))
      return block(name=name)(x, one.mask, train=train)

    return read(first, second, "first"), None if self.first_alone else read(second, first, "second")


class CrossModalTransformer(nn.Module):
  """The tokens of both towers go through all layers; those of the first come out.

  `pooled` is the first of them through a linear layer and tanh, as in BERT. Padding is not attended to.

  Attributes:
    second: whether those of the second come out too, for a tower `second_stream`.
  """

  READS: ClassVar = 2
  CHOICES: ClassVar = {"activation": tuple(ACTIVATIONS), "attention": ATTENTION, "dtype": DTYPES}

  width: int = 768
  depth: int = 5
  heads: int = 12
  mlp_ratio: float = 4.0
  activation: str = "gelu"
  dropout: float = 0.0
  norm_epsilon: float = 1e-12
  attention: str = "xla"
  dtype: str = "float32"
  second: bool = False

  def __post_init__(self):
    super().__post_init__()
    check_heads(self.width, self.heads)
    if self.depth < 1:
      raise UserError(f"depth: {self.depth} leaves the two towers unread by each other; give 1 or more (LXMERT: 5)")

  @nn.compact
  def __call__(self, first: Encoded, second: Encoded, *others: Encoded, train: bool) -> Encoded:
    """first: tokens [B, L, C0], second: [B, S, C1], with their masks -> pooled [B, D], tokens [B, L, D] with the
    first's mask and grid; with `second` beside them those of the second [B, S, D]."""
    if others:
      raise UserError(f"a cross_modal_transformer reads two towers, not {2 + len(others)}; name two")
    dtype, pair = jnp.dtype(self.dtype), []
    for name, one in (("embed_first", first), ("embed_second", second)):
      fits = one.tokens.shape[-1] == self.width
      pair.append(Context(one.tokens if fits else Dense(self.width, dtype=dtype, name=name)(one.tokens), one.mask))
    for number in range(self.depth):
      layer = CrossModalLayer(
        self.heads, round(self.width * self.mlp_ratio), self.activation, self.dropout, self.norm_epsilon, dtype,
        self.attention, first_alone=number == self.depth - 1 and not self.second, name=f"blocks_{number}",
      )  # fmt: skip
      pair = [one._replace(tokens=x) for one, x in zip(pair, layer(*pair, train=train))]
    tokens = pair[0].tokens
    pooled = jnp.tanh(Dense(self.width, dtype=dtype, name="pooler")(tokens[:, 0]))
    beside = None
    if self.second:
      x = pair[1].tokens
      beside = Encoded(masked_mean(x, second.mask), x, second.mask, hidden=second.hidden, grid=second.grid)
    return Encoded(pooled, tokens, first.mask, hidden=first.hidden, beside=beside, grid=first.grid)
