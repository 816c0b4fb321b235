"""Exponential moving averages of parameters: the momentum branch, and the average that is evaluated."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def update(momentum: Any, online: Any, decay: float | jax.Array) -> Any:
  """Returns `decay * momentum + (1 - decay) * online`, leaf by leaf, in the dtype of `momentum`.

  Parameters only: batch statistics of the momentum branch are its own (He et al. 2020, MoCo).
  Whether this happens before the keys (MoCo) or after the step (BYOL) is the caller's choice.
  No gradient flows into the result, and where both are equal they stay so, to the bit.
  """

  def blend(old: jax.Array, new: jax.Array) -> jax.Array:
    mean = (decay * old + (1.0 - decay) * new).astype(old.dtype)
    # Rounding must not move the copy of a frozen parameter.
    return jax.lax.stop_gradient(jnp.where(old == new, old, mean))

  return jax.tree.map(blend, momentum, online)
