"""What the transformers of tokens have in common after their stem: a class token, dropout, blocks, norm, pooling.

Functions for the `__call__` of a Flax module, a tower: its parameters (cls_token, cls_pos, blocks_0/..., norm) become
the tower's, and its options are read where it has them: width, depth, heads, mlp_ratio, activation, norm_epsilon,
dtype, scan, remat, attention, and pool, dropout, drop_path.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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


LEARNED_TOKENS = {"cls": ("cls_token",), "cls_distillation": ("cls_token", "distillation_token")}
"""Of a tower's `pool`: the learned tokens that stand before the others and whose mean is the vector."""


def encoded_tokens(
  tower: nn.Module,
  x: jax.Array,
  mask: jax.Array | None = None,
  *,
  train: bool,
  grid: tuple[int, ...] | None = None,
  placed_class: bool = False,
  place: Callable[[jax.Array], jax.Array] | None = None,
  context: Any = None,
  **options: Any,
) -> Encoded:
  """Tokens [B, L, D], those that `mask` [B, L] says are real, to one vector and as many tokens.

  Args:
    x: with their positions. With the tower's pool "cls" a learned token stands before them, with a learned position
      where it is `placed_class`, or two (LEARNED_TOKENS); else the vector is the mean of the real tokens.
    place: puts positions on all of them, where `x` has none.
    context, options: as of `through_blocks`.
  """
  shape, learned = (1, 1, tower.width), LEARNED_TOKENS.get(tower.pool, ())
  front, before = len(learned), []
  for name in learned:
    names = (name, "cls_pos") if placed_class else (name,)
    token = sum(tower.param(one, nn.initializers.normal(0.02), shape, jnp.float32).astype(x.dtype) for one in names)
    before.append(jnp.broadcast_to(token, (len(x), 1, tower.width)))
  x = jnp.concatenate([*before, x], axis=1) if front else x
  x = x if place is None else place(x)
  attended = None if mask is None else jnp.pad(mask, ((0, 0), (front, 0)), constant_values=True)
  x = through_blocks(tower, x, attended, train=train, context=context, **options)
  x = LayerNorm(epsilon=tower.norm_epsilon, dtype=jnp.dtype(tower.dtype), name="norm")(x)
  tokens = x[:, front:]
  pooled = masked_mean(tokens, mask) if not front else x[:, 0] if front == 1 else x[:, :front].mean(1)
  return Encoded(pooled, tokens, mask, grid=grid)
