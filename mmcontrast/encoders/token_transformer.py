"""What the transformers of tokens have in common after their stem: a class token, dropout, blocks, norm, pooling.

Functions for the `__call__` of a Flax module, a tower: its parameters (cls_token, cls_pos, blocks_0/..., norm) become
the tower's, and its options are read where it has them: width, depth, heads, mlp_ratio, activation, norm_epsilon,
dtype, scan, remat, attention, and pool, dropout, drop_path.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.layer_norm import LayerNorm
from mmcontrast.encoders.transformer import Block, apply_blocks, masked_mean


def through_blocks(
  tower: nn.Module, x: jax.Array, mask: jax.Array | None = None, *, train: bool, context: Any = None, **options: Any
) -> jax.Array:
  """Tokens [B, L, D] through dropout and the blocks of a tower, no norm after them. `options`: further ones of
  `Block`."""
  x = nn.Dropout(getattr(tower, "dropout", 0.0))(x, deterministic=not train)
  options |= {key: getattr(tower, key) for key in ("dropout", "drop_path") if hasattr(tower, key)}
  block = functools.partial(
    Block, tower.heads, round(tower.width * tower.mlp_ratio), tower.activation, norm_epsilon=tower.norm_epsilon,
    dtype=jnp.dtype(tower.dtype), attention=tower.attention, **options,
  )  # fmt: skip
  return apply_blocks(block, tower.depth, x, mask, context=context, train=train, scan=tower.scan, remat=tower.remat)


def encoded_tokens(
  tower: nn.Module,
  x: jax.Array,
  mask: jax.Array | None = None,
  *,
  train: bool,
  grid: tuple[int, ...] | None = None,
  placed_class: bool = False,
  context: Any = None,
  **options: Any,
) -> Encoded:
  """Tokens [B, L, D], those that `mask` [B, L] says are real, to one vector and as many tokens.

  Args:
    x: with their positions. With the tower's pool "cls" a learned token stands before them, with a learned position
      where it is `placed_class`; else the vector is the mean of the real tokens.
    context, options: as of `through_blocks`.
  """
  front = int(tower.pool == "cls")
  if front:
    names = ("cls_token", "cls_pos") if placed_class else ("cls_token",)
    token = sum(
      tower.param(name, nn.initializers.normal(0.02), (1, 1, tower.width), jnp.float32).astype(x.dtype)
      for name in names
    )
    x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, tower.width)), x], axis=1)
  attended = None if mask is None else jnp.pad(mask, ((0, 0), (front, 0)), constant_values=True)
  x = through_blocks(tower, x, attended, train=train, context=context, **options)
  x = LayerNorm(epsilon=tower.norm_epsilon, dtype=jnp.dtype(tower.dtype), name="norm")(x)
  tokens = x[:, front:]
  return Encoded(x[:, 0] if front else masked_mean(tokens, mask), tokens, mask, grid=grid)
