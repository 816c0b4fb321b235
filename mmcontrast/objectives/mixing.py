"""Partners and weights with which the examples of a batch are mixed (mixup, Zhang et al., arXiv:1710.09412).

They are drawn from the examples' own seeds: the order of the batch and the devices change nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.tokens import make_tokens


class Mix(NamedTuple):
  """What each example becomes: `weight` of itself and `1 - weight` of its partner.

  Attributes:
    partner: int32 [N], a place in the batch.
    weight: float32 [N].
  """

  partner: jax.Array
  weight: jax.Array


def draw_mix(seeds: jax.Array, valid: jax.Array | None, alpha: float, probability: float, stream: int) -> Mix:
  """Who is mixed with whom.

  Partners are a random cycle through the batch, so no example is its own partner unless it is alone. The weight is
  drawn from Beta(alpha, alpha) with `probability` and is 1 otherwise; it is 1 where the partner is not valid.

  Args:
    seeds: [N] uint32, different ones.
    valid: bool [N] or None.
    stream: which of many independent draws from the same seeds.
  """

  def draw(seed):
    place, apply, weight = jax.random.split(jax.random.fold_in(jax.random.key(seed), stream), 3)
    mixed = jax.random.uniform(apply) < probability
    return jax.random.bits(place), jnp.where(mixed, jax.random.beta(weight, alpha, alpha, dtype=jnp.float32), 1.0)

  places, weights = jax.vmap(draw)(seeds)
  order = jnp.argsort(places)
  partner = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.roll(order, -1).astype(jnp.int32))
  return Mix(partner, weights if valid is None else jnp.where(valid[partner], weights, 1.0))


def mix_arrays(x: jax.Array, mix: Mix) -> jax.Array:
  """`weight * x + (1 - weight) * x[partner]` for x [N, ...]."""
  weight = mix.weight.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
  return weight * x + (1 - weight) * x[mix.partner]


def mix_embedding(x: Encoded, mix: Mix) -> Encoded:
  """`mix_arrays` of vectors, or of tokens: a place is a token where it is one of either example in the mixture."""
  if x.tokens is None:
    return x.replace(pooled=mix_arrays(x.pooled, mix))
  tokens = make_tokens(x.tokens, x.mask)
  mask = tokens.mask | (tokens.mask[mix.partner] & (mix.weight < 1)[:, None])
  weights = None if x.weights is None else mix_arrays(jnp.where(tokens.mask, x.weights, 0), mix)
  return x.replace(tokens=mix_arrays(tokens.vectors, mix), mask=mask, weights=weights)
