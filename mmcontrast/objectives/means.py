"""Means over the anchors that count, weighted or not."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mean_weights(count: int, keep: jax.Array | None, weight: jax.Array | None = None) -> jax.Array:
  """What each of `count` entries counts in the mean of those kept, [count], of sum one; zeros where none is kept."""
  weight = jnp.ones(count) if weight is None else weight
  weight = weight if keep is None else jnp.where(keep, weight, 0.0)
  total = jnp.sum(weight)
  return weight / jnp.where(total > 0, total, 1.0)


def mean_of(x: jax.Array, weights: jax.Array) -> jax.Array:
  """The mean of `x` by `mean_weights`; an entry without weight has no gradient either."""
  return jnp.sum(jnp.where(weights > 0, weights * x, 0.0))


def of_valid(x: jax.Array, valid: jax.Array) -> jax.Array:
  """[N, ...], bool [N]: zeros in the place of who does not take part, NaN included."""
  return jnp.where(valid.reshape(-1, *(1,) * (x.ndim - 1)), x, 0)


def mean_of_valid(x: jax.Array, valid: jax.Array) -> jax.Array:
  """[N, ...], bool [N] -> [...]: over those that take part; 0 where nobody does."""
  return jnp.sum(of_valid(x, valid), 0) / jnp.maximum(jnp.sum(valid), 1)
