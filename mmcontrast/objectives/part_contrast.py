"""Contrast between parts of examples, of which each example has several: slots of an image, regions and their texts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.score import matmul_precision


class Compared(NamedTuple):
  """Of each part, [N, K]: its cross entropy, whether its own answer beats all others, and how many these are."""

  loss: jax.Array
  right: jax.Array
  others: jax.Array


def compare(
  queries: jax.Array,
  keys: jax.Array,
  stands: jax.Array,
  temperature: Any,
  alike: jax.Array | None = None,
  threshold: float = 1.0,
) -> Compared:
  """The cross entropy of each query among all keys of the batch, at the key of its example and number.

  Made one number of a part after the other: N x N K products at a time.

  Args:
    queries, keys: [N, K, D], of unit length.
    stands: bool [N, K], which keys are candidates; of a query whose key is none, what comes out means nothing.
    alike: [N, K, D], of unit length: a key whose product with the query's is over `threshold` is no candidate of it,
      but for its own.
  """
  count = queries.shape[1]

  @jax.checkpoint
  def of_number(number, query, answer, like):
    logits = jnp.einsum("nd,mkd->nmk", query, keys, precision=matmul_precision()) / temperature
    own = jnp.eye(len(query), dtype=bool)[..., None] & (jnp.arange(count) == number)
    there = jnp.broadcast_to(stands, logits.shape)
    if alike is not None:
      there &= own | (jnp.einsum("nd,mkd->nmk", like, alike, precision=matmul_precision()) <= threshold)
    logits = jnp.where(jnp.any(there, (1, 2), keepdims=True), jnp.where(there, logits, -jnp.inf), 0.0)
    score = jnp.sum(query * answer, -1) / temperature
    others = jnp.max(jnp.where(own, -jnp.inf, logits), (1, 2))
    count_others = jnp.sum(there & ~own, (1, 2)).astype(jnp.float32)
    return jax.nn.logsumexp(logits.reshape(len(query), -1), -1) - score, score > others, count_others

  parts = [x.swapaxes(0, 1) for x in (queries, keys, queries if alike is None else alike)]
  found = lax.map(lambda part: of_number(*part), (jnp.arange(count), *parts))
  return Compared(*(x.swapaxes(0, 1) for x in found))


def mean_of_parts(x: jax.Array, some: jax.Array) -> jax.Array:
  """[N, K], bool [N, K] -> the mean over those that count; 0 where none does."""
  return jnp.sum(jnp.where(some, x, 0.0)) / jnp.maximum(jnp.sum(some), 1)
