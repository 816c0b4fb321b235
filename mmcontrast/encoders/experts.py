"""A mixture of experts in the place of a block's MLP: a gate sends each token to a few of several MLPs.

As in CLIP-MoE (arXiv:2409.19291, github.com/OpenSparseLLMs/CLIP-MoE): softmax over all experts in float32, the `top` of
them, their weights divided by their sum. All experts are computed for all tokens, and those that were not chosen count
nothing: shapes are static and no token is dropped, at the cost of all experts.

Parameters: gate, experts_0/{fc1, fc2}, experts_1/...
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.dense import Dense
from mmcontrast.errors import UserError


def check_experts(experts: int, top: int, scan: bool, remat: str) -> None:
  """Raises UserError for options of a mixture that do not go together."""
  if not experts:
    return
  if experts < 2 or not 1 <= top <= experts:
    raise UserError(f"experts={experts}, top_experts={top}: give 2 or more, and send a token to 1 to all of them")
  if scan or remat != "none":
    raise UserError(f"experts={experts}: say where tokens go of each block by itself; set scan=False, remat='none'")


def routed(logits: jax.Array, top: int) -> tuple[jax.Array, jax.Array]:
  """What each expert counts for a token, [..., E], and the probabilities that these come from, [..., E], in float32 or
  wider: of the `top` most probable ones the probability divided by their sum, of the others nothing."""
  probabilities = jax.nn.softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)), -1)
  chosen = chosen_experts(lax.stop_gradient(probabilities), top)
  kept = probabilities * chosen
  return kept / jnp.sum(kept, -1, keepdims=True), probabilities


def chosen_experts(probabilities: jax.Array, top: int) -> jax.Array:
  """[..., E] -> 1 at the `top` most probable, the first of equal ones, 0 elsewhere."""
  _, places = lax.top_k(probabilities, top)
  return jax.nn.one_hot(places, probabilities.shape[-1], dtype=probabilities.dtype).sum(-2)


def routing(probabilities: jax.Array, top: int, mask: jax.Array | None) -> jax.Array:
  """Where an example's tokens go: [B, 2 E + 1], sums over its real tokens: how many each expert was chosen for, the
  probabilities of each, the number of tokens.

  Args:
    probabilities: [B, L, E]. mask: [B, L], True where a token is real; None: all are.
  """
  real = jnp.ones(probabilities.shape[:2], bool) if mask is None else mask
  chosen = lax.stop_gradient(chosen_experts(probabilities, top))
  sums = [jnp.sum(jnp.where(real[..., None], part, 0), 1) for part in (chosen, probabilities)]
  return jnp.concatenate([*sums, jnp.sum(real, 1, keepdims=True, dtype=probabilities.dtype)], -1)


class Experts(nn.Module):
  """The mixture. `mlp` makes one expert, given its name."""

  mlp: Any
  experts: int
  top: int = 2
  dtype: Any = None

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None, *, train: bool) -> tuple[jax.Array, jax.Array]:
    """x [B, L, D], mask [B, L] or None -> [B, L, D], and where tokens went (`routing`)."""
    logits = Dense(self.experts, use_bias=False, dtype=jnp.promote_types(x.dtype, jnp.float32), name="gate")(x)
    weights, probabilities = routed(logits, self.top)
    y = sum(
      weights[..., number, None].astype(x.dtype) * self.mlp(name=f"experts_{number}")(x, train=train)
      for number in range(self.experts)
    )
    return y, routing(probabilities, self.top, mask)
