"""Columns that mix the keys of different examples: negatives of a score of several keys (Symile).

"permuted" has N: in slot j stand the key of example j + 1, the second key of j + 2, and so on. It
is Symile's sampler of N negatives (arXiv:2411.01053) with cyclic shifts for its random permutations:
the order of a batch is random already, and a shift needs no key, is the same on any devices, and
never makes an example's own tuple. Absent examples are skipped, as if the batch were without them.

"combined" has all of them, N^K for K keys, beside which no memory grows with N^K: they are made
shift by shift, and once more in the gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.reductions import IDENTITY, merge

Stats = dict[str, jax.Array]


def permutations(count: int, mask: jax.Array | None, keys: int) -> list[jax.Array]:
  """For each key a permutation [N]: the example whose key is in each slot; an absent example keeps its slot."""
  if mask is None:
    return [(jnp.arange(count) + 1 + k) % count for k in range(keys)]
  present_first, total = jnp.argsort(~mask, stable=True), jnp.sum(mask)
  place = jnp.argsort(present_first)
  shifted = [(place + 1 + k) % jnp.maximum(total, 1) for k in range(keys)]
  return [present_first[jnp.where(place < total, to, place)] for to in shifted]


@jax.custom_vjp
def permute(x: jax.Array, order: jax.Array) -> jax.Array:
  """`x[order]` of a permutation: its gradient is a gather too, not a scatter."""
  return x[order]


permute.defvjp(lambda x, order: (x[order], order), lambda order, g: (g[jnp.argsort(order)], None))


class Combinations(NamedTuple):
  """All tuples of different examples' keys, in parts of N: keys [N, D] each; mask bool [N], which examples count."""

  keys: tuple[jax.Array, ...]
  mask: jax.Array | None

  @property
  def parts(self) -> int:
    """The number of parts."""
    return self.keys[0].shape[0] ** (len(self.keys) - 1) - 1

  @property
  def count(self) -> jax.Array | int:
    """How many tuples count."""
    count = self.keys[0].shape[0] if self.mask is None else jnp.sum(self.mask)
    return count ** len(self.keys) - count

  def part(self, number: jax.Array) -> tuple[list[jax.Array], jax.Array | None]:
    """Keys and mask of part `number`, 0 to `parts` - 1."""
    count, number = self.keys[0].shape[0], number + 1  # 0 would be the examples' own tuples
    keys, mask = [self.keys[0]], self.mask
    for key in self.keys[1:]:
      shift, number = -(number % count), number // count
      keys.append(jnp.roll(key, shift, 0))
      mask = None if mask is None else mask & jnp.roll(self.mask, shift)
    return keys, mask


def reduce_parts(
  reduce: Callable[[Any, jax.Array], Stats], kinds: Mapping[str, str], parts: int, arguments: Any
) -> Stats:
  """Merges `reduce(arguments, part)` over the parts of the columns, one after another.

  A merged statistic's gradient with respect to a part's is known once the merged value is: so the
  parts are gone through without gradient first, then what each contributes to it is added up, which needs
  none of the values between. A maximum gets no gradient.
  """
  fixed = lax.stop_gradient(arguments)
  shapes = jax.eval_shape(reduce, fixed, jnp.int32(0))
  start = {name: jnp.full(shapes[name].shape, IDENTITY[kind], shapes[name].dtype) for name, kind in kinds.items()}

  def join(stats, part):
    of_part = reduce(fixed, part)
    return {name: merge(kind, stats[name], of_part[name]) for name, kind in kinds.items()}, None

  merged = lax.scan(join, start, jnp.arange(parts))[0]
  learned = {name: kind for name, kind in kinds.items() if kind != "max"}

  @jax.checkpoint
  def contributions(arguments, part):
    of_part = reduce(arguments, part)
    return {name: _contribution(kind, merged[name], of_part[name]) for name, kind in learned.items()}

  def add(total, part):
    return jax.tree.map(jnp.add, total, contributions(arguments, part)), None

  zeros = {name: jnp.zeros_like(merged[name]) for name in learned}
  total = lax.scan(add, zeros, jnp.arange(parts))[0]
  return merged | {name: merged[name] + (x - lax.stop_gradient(x)) for name, x in total.items()}


def _contribution(kind: str, merged: jax.Array, statistic: jax.Array) -> jax.Array:
  """A value whose gradient is that of `merged` with respect to the `statistic` of a part."""
  if kind == "sum":
    return statistic
  some = statistic != -jnp.inf
  statistic = jnp.where(some, statistic, 0.0)
  return jnp.where(some, lax.stop_gradient(jnp.exp(statistic - jnp.where(some, merged, 0.0))) * statistic, 0.0)
