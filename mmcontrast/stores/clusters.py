"""Clusters of unit vectors: spherical k-means from a seeded start, and how concentrated each cluster is.

Pure functions of arrays, for use between epochs (training/epoch_hooks.py).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_CELLS = 1 << 24
"""Similarities of rows with centroids that are held at a time."""


class Clusters(NamedTuple):
  """K clusters of N rows.

  Attributes:
    centroids: [K, D], unit rows.
    assignments: int32 [N], -1 for rows that do not count.
    sizes: int32 [K]; a cluster may be empty, and keeps its centroid.
  """

  centroids: jax.Array
  assignments: jax.Array
  sizes: jax.Array


@functools.partial(jax.jit, static_argnames=("count", "iterations"))
def spherical_kmeans(
  key: jax.Array, rows: jax.Array, valid: jax.Array, *, count: int, iterations: int = 20
) -> Clusters:
  """`count` clusters of unit rows [N, D] by cosine.

  Centroids start as rows drawn by k-means++ (Arthur and Vassilvitskii 2007), each with a probability in proportion to
  one less its largest cosine with those before it; then so many rounds of assigning each row to the centroid of the
  largest cosine and taking the mean of its rows, to unit length (Dhillon and Modha 2001). One that no row is nearest
  to stays where it is. The result depends on the arguments alone.

  Args:
    valid: bool [N]; other rows neither move a centroid nor are assigned.
  """
  rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
  weight = valid.astype(rows.dtype)
  rows = jnp.where(valid[:, None], rows, 0)
  first, key = jax.random.split(key)
  uniform = jax.random.uniform(key, (count - 1,), rows.dtype)
  start = _drawn(jax.random.uniform(first, (), rows.dtype), weight)

  def draw(distance, number):
    chosen = rows[_drawn(number, distance)]
    return jnp.minimum(distance, weight * jnp.maximum(1 - rows @ chosen, 0)), chosen

  distance = weight * jnp.maximum(1 - rows @ rows[start], 0)
  _, others = lax.scan(draw, distance, uniform)
  centroids = jnp.concatenate([rows[start][None], others])

  def improve(_, centroids):
    nearest = _nearest(rows, centroids)
    sums = jax.ops.segment_sum(rows * weight[:, None], nearest, count)
    length = jnp.linalg.norm(sums, axis=1, keepdims=True)
    return jnp.where(length > 1e-12, sums / jnp.maximum(length, 1e-12), centroids)

  centroids = lax.fori_loop(0, iterations, improve, centroids)
  assignments = jnp.where(valid, _nearest(rows, centroids), -1)
  sizes = jax.ops.segment_sum(valid.astype(jnp.int32), jnp.maximum(assignments, 0), count)
  return Clusters(centroids, assignments, sizes)


def _drawn(number: jax.Array, weight: jax.Array) -> jax.Array:
  """The index that a uniform number in [0, 1) draws with probabilities in proportion to `weight` [N]; where all are
  zero (fewer different rows than clusters), the first."""
  total = jnp.cumsum(weight)
  index = jnp.searchsorted(total, number * total[-1], side="right")
  return jnp.minimum(index, jnp.max(jnp.where(weight > 0, jnp.arange(len(weight)), 0)))


def _nearest(rows: jax.Array, centroids: jax.Array) -> jax.Array:
  """int32 [N], the centroid of the largest cosine; the first of equal ones."""
  size = max(1, min(len(rows), _CELLS // len(centroids)))
  padded = jnp.pad(rows, ((0, -len(rows) % size), (0, 0))).reshape(-1, size, rows.shape[1])
  nearest = lax.map(lambda part: jnp.argmax(part @ centroids.T, 1).astype(jnp.int32), padded)
  return nearest.reshape(-1)[: len(rows)]


def concentration(rows: jax.Array, clusters: Clusters, temperature: float, alpha: float = 10.0) -> jax.Array:
  """How far the rows of each cluster are spread, float [K] of mean `temperature`: prototypes' own temperatures.

  phi_c = sum over the Z rows of c of |row - centroid| / (Z log(Z + alpha)), as in ProtoNCE (Li et al.,
  arXiv:2005.04966, eq. 12). As their code has it, a cluster of one row or none gets the largest phi, and all are
  clipped to their 10th and 90th percentile before they are scaled to the mean.
  """
  count = len(clusters.sizes)
  placed = jnp.maximum(clusters.assignments, 0)
  away = jnp.linalg.norm(rows - clusters.centroids[placed], axis=1)
  total = jax.ops.segment_sum(jnp.where(clusters.assignments >= 0, away, 0), placed, count)
  sizes = clusters.sizes.astype(rows.dtype)
  phi = total / (jnp.maximum(sizes, 1) * jnp.log(jnp.maximum(sizes, 1) + alpha))
  several = clusters.sizes > 1
  phi = jnp.where(several, phi, jnp.max(jnp.where(several, phi, 0)))
  phi = jnp.clip(phi, jnp.percentile(phi, 10), jnp.percentile(phi, 90))
  mean = jnp.mean(phi)
  return jnp.where(mean > 0, temperature * phi / jnp.where(mean > 0, mean, 1), temperature)
