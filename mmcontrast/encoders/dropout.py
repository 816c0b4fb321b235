"""Dropout, of numbers and of whole tokens, whose masks belong to the example, not to its place in the batch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.errors import UserError


class ExampleNoise(nn.Module):
  """A layer whose randomness `per_example` takes from the examples."""

  def noise(self, shape: tuple[int, ...]) -> jax.Array:
    """[B, ...] uniform; within `per_example` each row from its example's seed."""
    return jax.random.uniform(self.make_rng("dropout"), shape)


class DropPath(ExampleNoise):
  """Leaves a residual branch out for some examples (Huang et al., arXiv:1603.09382)."""

  @nn.compact
  def __call__(self, x: jax.Array, rate: jax.Array | float) -> jax.Array:
    """[B, L, D], the probability to be left out -> [B, L, D]."""
    keep = 1.0 - rate
    kept = self.noise((len(x), 1, 1)) < keep
    return x * jnp.where(kept, 1 / keep, 0).astype(x.dtype)


class Hidden(ExampleNoise):
  """Which examples hide all of their words, each with a probability."""

  @nn.compact
  def __call__(self, x: jax.Array, share: float) -> jax.Array:
    """[B, ...] -> [B] bool."""
    return self.noise((len(x), 1))[:, 0] < share


class PatchDrop(ExampleNoise):
  """Keeps a random share of each example's tokens (FLIP, arXiv 2212.00794); in evaluation all.

  Of L tokens those int(L * (1 - rate)) of the smallest uniform noise are kept, in their order.
  """

  rate: float

  @nn.compact
  def __call__(self, x: jax.Array, *others: jax.Array, train: bool) -> Any:
    """[B, L, D] -> [B, kept, D]; `x` itself unless `train`.

    With `others` [B or 1, L, ...], what else belongs to the tokens: (x, *others), the same tokens of each.
    """
    length = x.shape[1]
    kept = int(length * (1.0 - self.rate) + 1e-6)  # 1e-6: 100 * (1 - 0.9) is a little less than 10
    if not 0.0 <= self.rate < 1.0 or kept < 1:
      raise UserError(
        f"patch_drop={self.rate}: keeps 1 to {length} of {length} patches when it is a share of 0 or "
        f"more, at most {1 - 1 / length:.4g}"
      )
    if not train or kept == length:
      return (x, *others) if others else x
    places = jnp.sort(jnp.argsort(self.noise(x.shape[:2]), axis=1)[:, :kept], axis=1)[..., None]
    x, *others = (jnp.take_along_axis(array, places, axis=1) for array in (x, *others))
    return (x, *others) if others else x


@contextlib.contextmanager
def per_example(seeds: jax.Array | None) -> Iterator[None]:
  """Within it, `nn.Dropout` and `ExampleNoise` draw example i's mask from its key and `seeds[i]` only.

  So a batch encoded whole, in chunks or on many devices is dropped alike. `nn.Dropout` draws one
  mask for all the batch, which changes with its shape.

  Args:
    seeds: [B] uint32, of the examples on the leading axis, each of as many rows that stand together (the frames of a
      clip) as there are; None leaves `nn.Dropout` as it is.
  """
  if seeds is None:
    yield
    return

  def keys_of(key, rows):
    """A key a row; of an example of several rows, such as the frames of a clip, by the row's place too."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, seeds)
    if rows == len(seeds):
      return keys
    places = jnp.arange(rows // len(seeds))
    return jax.vmap(lambda of: jax.vmap(jax.random.fold_in, (None, 0))(of, places))(keys).reshape(rows, *key.shape)

  def intercept(call, args, kwargs, context):
    module = context.module
    if isinstance(module, ExampleNoise) and context.method_name == "noise":
      keys = keys_of(module.make_rng("dropout"), args[0][0])
      return jax.vmap(lambda key: jax.random.uniform(key, args[0][1:]))(keys)
    if not isinstance(module, nn.Dropout) or context.method_name != "__call__":
      return call(*args, **kwargs)
    x = args[0]
    still = kwargs.get("deterministic", module.deterministic)
    if module.rate == 0.0 or still:
      return x
    keep = 1.0 - module.rate
    keys = keys_of(module.make_rng(module.rng_collection), len(x))
    shape = [1 if axis in module.broadcast_dims else n for axis, n in enumerate(x.shape)][1:]
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, keep, shape))(keys)
    return jnp.where(kept, x / jnp.asarray(keep, x.dtype), jnp.zeros((), x.dtype))

  with nn.intercept_methods(intercept):
    yield
