"""Dropout, of numbers and of whole tokens, whose masks belong to the example, not to its place in the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.errors import UserError


class PatchDrop(nn.Module):
  """Keeps a random share of each example's tokens (FLIP, arXiv 2212.00794); in evaluation all.

  Of L tokens those int(L * (1 - rate)) of the smallest uniform noise are kept, in their order.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """[B, L, D] -> [B, kept, D]; `x` itself unless `train`."""
    length = x.shape[1]
    kept = int(length * (1.0 - self.rate) + 1e-6)  # 1e-6: 100 * (1 - 0.9) is a little less than 10
    if not 0.0 <= self.rate < 1.0 or kept < 1:
      raise UserError(f"patch_drop={self.rate}: keeps 1 to {length} of {length} patches when it is a share of 0 or "
                      f"more, at most {1 - 1 / length:.4g}")
    if not train or kept == length:
      return x
    places = jnp.sort(jnp.argsort(self.noise(x), axis=1)[:, :kept], axis=1)
    return jnp.take_along_axis(x, places[..., None], axis=1)

  def noise(self, x: jax.Array) -> jax.Array:
    """[B, L, D] -> [B, L] uniform; within `per_example` each row from its example's seed."""
    return jax.random.uniform(self.make_rng("dropout"), x.shape[:2])


@contextlib.contextmanager
def per_example(seeds: jax.Array | None) -> Iterator[None]:
  """Within it, `nn.Dropout` and `PatchDrop` draw example i's mask from its key and `seeds[i]` alone.

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
    if isinstance(module, PatchDrop) and context.method_name == "noise":
      keys = jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng("dropout"), seeds)
      return jax.vmap(lambda key: jax.random.uniform(key, args[0].shape[1:2]))(keys)
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
