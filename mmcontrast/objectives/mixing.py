"""Partners and shares with which the examples of a batch are mixed (mixup, Zhang et al., arXiv:1710.09412).

They are drawn from the examples' own seeds: the order of the batch and the devices change nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.tokens import make_tokens


def draw_mix(
  seeds: jax.Array, valid: jax.Array | None, alpha: float, probability: float, stream: int
) -> tuple[jax.Array, jax.Array]:
  """Who is mixed with whom: (partner int32 [N], the example's own share float32 [N]).

  Partners are a random cycle through the batch, so no example is its own partner unless it is
  alone. The own share is drawn from Beta(alpha, alpha) with `probability` and is 1 otherwise; it
  is 1 where the partner is not valid.

  Args:
    seeds: [N] uint32, different ones.
    valid: bool [N] or None.
    stream: which of many independent draws from the same seeds.
  """

  def draw(seed):
    place, apply, share = jax.random.split(jax.random.fold_in(jax.random.key(seed), stream), 3)
    mixed = jax.random.uniform(apply) < probability
    return jax.random.bits(place), jnp.where(mixed, jax.random.beta(share, alpha, alpha, dtype=jnp.float32), 1.0)

  places, shares = jax.vmap(draw)(seeds)
  order = jnp.argsort(places)
  partner = jnp.zeros(len(order), jnp.int32).at[order].set(jnp.roll(order, -1).astype(jnp.int32))
  return partner, shares if valid is None else jnp.where(valid[partner], shares, 1.0)


def mix(x: jax.Array, partner: jax.Array, share: jax.Array) -> jax.Array:
  """`share * x + (1 - share) * x[partner]` for x [N, ...]."""
  share = share.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
  return share * x + (1 - share) * x[partner]


def mix_embedding(x: Encoded, partner: jax.Array, share: jax.Array) -> Encoded:
  """`mix` of vectors, or of tokens: a place is a token where it is one of either example that is in the mixture."""
  if x.tokens is None:
    return x.replace(pooled=mix(x.pooled, partner, share))
  tokens = make_tokens(x.tokens, x.mask)
  mask = tokens.mask | (tokens.mask[partner] & (share < 1)[:, None])
  weights = None if x.weights is None else mix(jnp.where(tokens.mask, x.weights, 0), partner, share)
  return x.replace(tokens=mix(tokens.vectors, partner, share), mask=mask, weights=weights)
