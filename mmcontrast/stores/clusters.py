"""Clusters of vectors: k-means from a seeded start, by cosine or by distance, and how concentrated each cluster is.

Pure functions of arrays, for use between epochs (training/epoch_hooks.py).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

_CELLS = 1 << 24
"""Similarities of rows with centroids that are held at a time."""


class Clusters(NamedTuple):
  """K clusters of N rows.

  Attributes:
    centroids: [K, D]; unit rows of `spherical_kmeans`.
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
  rows, weight = _counted(rows, valid)
  return _improved(_drawn_start(key, rows, weight, count, _one_less_cosine), rows, valid, None, iterations, True)


@functools.partial(jax.jit, static_argnames=("count", "iterations", "restarts"))
def kmeans(
  key: jax.Array, rows: jax.Array, valid: jax.Array, known: jax.Array | None = None, *, count: int,
  iterations: int = 20, restarts: int = 1,
) -> Clusters:  # fmt: skip
  """`count` clusters of rows [N, D] by Euclidean distance; centroids are means, not of unit length.

  As `spherical_kmeans`, with probabilities in proportion to the squared distance; of `restarts` starts the one whose
  rows are nearest to their centroids, by the sum of squares, is kept.

  Args:
    valid: as there.
    known: int32 [N], the cluster that a row stays in, below 0 where it is free: semi-supervised k-means (Vaze et al.,
      arXiv:2201.02609). The centroid of a known cluster starts as the mean of its rows, the others as free rows.
  """
  rows, weight = _counted(rows, valid)

  def once(key):
    if known is None:
      start = _drawn_start(key, rows, weight, count, _squared_distance)
    else:
      start = _start_beside_known(key, rows, weight, known, count)
    made = _improved(start, rows, valid, known, iterations, False)
    away = _squared_distance(rows, made.centroids[jnp.maximum(made.assignments, 0)])
    return made, jnp.sum(weight * away)

  tried, away = lax.map(once, jax.random.split(key, restarts))
  return jax.tree.map(lambda leaf: leaf[jnp.argmin(away)], tried)


def _counted(rows: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Rows in float32 or wider, zeros where they do not count; and 1 or 0 of each."""
  rows = rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
  return jnp.where(valid[:, None], rows, 0), valid.astype(rows.dtype)


def _one_less_cosine(rows: jax.Array, centroid: jax.Array) -> jax.Array:
  """[N], of unit rows and one unit centroid."""
  return jnp.maximum(1 - rows @ centroid, 0)


def _squared_distance(rows: jax.Array, centroids: jax.Array) -> jax.Array:
  """[N], of rows and one centroid, or each its own."""
  return jnp.sum((rows - centroids) ** 2, -1)


def _drawn_start(key: jax.Array, rows: jax.Array, weight: jax.Array, count: int, away: Callable) -> jax.Array:
  """Rows [count, D], each drawn in proportion to how far `away` it is from those before it."""
  first, key = jax.random.split(key)
  uniform = jax.random.uniform(key, (count - 1,), rows.dtype)
  start = _drawn(jax.random.uniform(first, (), rows.dtype), weight)

  def draw(distance, number):
    chosen = rows[_drawn(number, distance)]
    return jnp.minimum(distance, weight * away(rows, chosen)), chosen

  distance = weight * away(rows, rows[start])
  _, others = lax.scan(draw, distance, uniform)
  return jnp.concatenate([rows[start][None], others])


def _start_beside_known(key: jax.Array, rows: jax.Array, weight: jax.Array, known: jax.Array, count: int) -> jax.Array:
  """[count, D]: means of known clusters, and free rows drawn in proportion to their distance from all before them."""
  fixed = weight * (known >= 0)
  sizes = jax.ops.segment_sum(fixed, jnp.maximum(known, 0), count)
  means = jax.ops.segment_sum(rows * fixed[:, None], jnp.maximum(known, 0), count) / jnp.maximum(sizes, 1)[:, None]
  free, nothing = weight * (known < 0), jnp.any(sizes > 0)

  def nearer(distance, cluster):
    closer = jnp.minimum(distance, free * _squared_distance(rows, means[cluster]))
    return jnp.where(sizes[cluster] > 0, closer, distance), None

  distance, _ = lax.scan(nearer, jnp.where(free > 0, jnp.inf, 0.0), jnp.arange(count))
  distance = jnp.where(nothing, distance, free)  # the first of all is any

  def draw(distance, given):
    number, cluster = given
    centroid = jnp.where(sizes[cluster] > 0, means[cluster], rows[_drawn(number, distance)])
    return jnp.minimum(distance, free * _squared_distance(rows, centroid)), centroid

  uniform = jax.random.uniform(key, (count,), rows.dtype)
  return lax.scan(draw, distance, (uniform, jnp.arange(count)))[1]


def _improved(
  centroids: jax.Array, rows: jax.Array, valid: jax.Array, known: jax.Array | None, iterations: int, unit: bool
) -> Clusters:
  """So many rounds of assigning rows and taking their means; one that no row is nearest to stays where it is."""
  weight, count = valid.astype(rows.dtype), len(centroids)

  def assigned(centroids):
    nearest = nearest_centroid(rows, centroids, unit)
    return nearest if known is None else jnp.where(known >= 0, known, nearest)

  def improve(_, centroids):
    nearest = assigned(centroids)
    sums = jax.ops.segment_sum(rows * weight[:, None], nearest, count)
    size = jnp.linalg.norm(sums, axis=1) if unit else jax.ops.segment_sum(weight, nearest, count)
    return jnp.where(size[:, None] > 1e-12, sums / jnp.maximum(size, 1e-12)[:, None], centroids)

  centroids = lax.fori_loop(0, iterations, improve, centroids)
  assignments = jnp.where(valid, assigned(centroids), -1)
  sizes = jax.ops.segment_sum(valid.astype(jnp.int32), jnp.maximum(assignments, 0), count)
  return Clusters(centroids, assignments, sizes)


def _drawn(number: jax.Array, weight: jax.Array) -> jax.Array:
  """The index that a uniform number in [0, 1) draws with probabilities in proportion to `weight` [N]; where all are
  zero (fewer different rows than clusters), the first."""
  total = jnp.cumsum(weight)
  index = jnp.searchsorted(total, number * total[-1], side="right")
  return jnp.minimum(index, jnp.max(jnp.where(weight > 0, jnp.arange(len(weight)), 0)))


def nearest_centroid(rows: jax.Array, centroids: jax.Array, unit: bool = False) -> jax.Array:
  """int32 [N], the nearest centroid, of `unit` ones that of the largest cosine; the first of equal ones."""
  shift = 0.0 if unit else jnp.sum(centroids**2, 1) / 2
  size = max(1, min(len(rows), _CELLS // len(centroids)))
  padded = jnp.pad(rows, ((0, -len(rows) % size), (0, 0))).reshape(-1, size, rows.shape[1])
  nearest = lax.map(lambda part: jnp.argmax(part @ centroids.T - shift, 1).astype(jnp.int32), padded)
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
  phi = density(total, clusters.sizes.astype(rows.dtype), alpha)
  several = clusters.sizes > 1
  phi = jnp.where(several, phi, jnp.max(jnp.where(several, phi, 0)))
  phi = jnp.clip(phi, jnp.percentile(phi, 10), jnp.percentile(phi, 90))
  mean = jnp.mean(phi)
  return jnp.where(mean > 0, temperature * phi / jnp.where(mean > 0, mean, 1), temperature)


def density(total: jax.Array, sizes: jax.Array, alpha: float) -> jax.Array:
  """total / (Z log(Z + alpha)) [K], of the summed distances [K] of clusters of Z rows; 0 of those without any."""
  return total / (jnp.maximum(sizes, 1) * jnp.log(jnp.maximum(sizes, 1) + alpha))


def back_translated(rows: jax.Array, clusters: jax.Array, count: int) -> jax.Array:
  """[count, D]: the mean of the rows [N, D] whose example is in each cluster of another embedding; zeros where none is.

  ProtoCLIP's prototypical back translation (Chen et al., arXiv:2206.10996).

  Args:
    clusters: int32 [N], below 0 of rows that do not count.
  """
  counted = (clusters >= 0).astype(rows.dtype)
  sums = jax.ops.segment_sum(rows * counted[:, None], jnp.maximum(clusters, 0), count)
  return sums / jnp.maximum(jax.ops.segment_sum(counted, jnp.maximum(clusters, 0), count), 1)[:, None]
