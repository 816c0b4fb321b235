"""Dropout whose masks belong to the example, not to its place in the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn


@contextlib.contextmanager
def per_example(seeds: jax.Array | None) -> Iterator[None]:
  """Within it, every `nn.Dropout` draws example i's mask from its key and `seeds[i]` alone.

  So a batch encoded whole, in chunks or on many devices is dropped alike. `nn.Dropout` draws one
  mask for all the batch, which changes with its shape.

  Args:
    seeds: [B] uint32, of the examples on the leading axis; None leaves `nn.Dropout` as it is.
  """
  if seeds is None:
    yield
    return

  def intercept(call, args, kwargs, context):
    module = context.module
    if not isinstance(module, nn.Dropout) or context.method_name != "__call__":
      return call(*args, **kwargs)
    x = args[0]
    still = kwargs.get("deterministic", module.deterministic)
    if module.rate == 0.0 or still:
      return x
    keep = 1.0 - module.rate
    keys = jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng(module.rng_collection), seeds)
    shape = [1 if axis in module.broadcast_dims else n for axis, n in enumerate(x.shape)][1:]
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape))(keys)
    return jnp.where(kept, x / jnp.asarray(keep, x.dtype), jnp.zeros((), x.dtype))

  with nn.intercept_methods(intercept):
    yield
