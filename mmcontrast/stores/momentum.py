"""Exponential moving averages of parameters: the momentum branch."""

from __future__ import annotations

from typing import Any

import jax


def update(momentum: Any, online: Any, decay: float | jax.Array) -> Any:
  """Returns `decay * momentum + (1 - decay) * online`, leaf by leaf, in the dtype of `momentum`.

  Parameters only: batch statistics of the momentum branch are its own (He et al. 2020, MoCo).
  Whether this happens before the keys (MoCo) or after the step (BYOL) is the caller's choice.
  No gradient flows into the result.
  """

  def blend(old: jax.Array, new: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(decay * old + (1.0 - decay) * new).astype(old.dtype)

  return jax.tree.map(blend, momentum, online)
