"""Spherical k-means and the concentration of clusters, beside plain NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.stores import clusters
from mmcontrast.stores.clusters import concentration, kmeans, spherical_kmeans


def blobs(count=4, each=10, width=6, seed=0):
  draw = np.random.default_rng(seed)
  centres = np.eye(width)[:count]
  rows = np.repeat(centres, each, 0) + 0.05 * draw.normal(size=(count * each, width))
  return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("cells", [1 << 24, 12])
def test_what_is_apart_is_found_apart(cells, monkeypatch):
  monkeypatch.setattr(clusters, "_CELLS", cells)
  spherical_kmeans.clear_cache()
  rows, valid = blobs(), np.ones(40, bool)
  made = spherical_kmeans(jax.random.key(0), rows, valid, count=4, iterations=5)
  labels = np.asarray(made.assignments).reshape(4, 10)
  assert (labels == labels[:, :1]).all() and len(set(labels[:, 0])) == 4 and made.sizes.tolist() == [10] * 4
  for label in range(4):
    mean = rows[np.asarray(made.assignments) == label].mean(0)
    np.testing.assert_allclose(made.centroids[label], mean / np.linalg.norm(mean), atol=1e-6)


def test_each_round_brings_rows_closer_and_the_key_says_all():
  rows = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  valid = np.arange(50) % 7 != 0
  closeness = []
  for iterations in (0, 1, 3, 10):
    made = spherical_kmeans(jax.random.key(3), rows, valid, count=6, iterations=iterations)
    assert (np.asarray(made.assignments)[~valid] == -1).all() and made.sizes.sum() == valid.sum()
    closeness.append((rows * np.asarray(made.centroids)[np.maximum(made.assignments, 0)]).sum(1)[valid].sum())
  assert closeness == sorted(closeness) and closeness[-1] > closeness[0]
  again = spherical_kmeans(jax.random.key(3), rows, valid, count=6, iterations=10)
  np.testing.assert_array_equal(again.centroids, made.centroids)
  moved = np.where(valid[:, None], rows, 7.0).astype(np.float32)
  moved = spherical_kmeans(jax.random.key(3), moved, valid, count=6, iterations=10)
  np.testing.assert_array_equal(moved.centroids, made.centroids)
  other = spherical_kmeans(jax.random.key(4), rows, valid, count=6, iterations=0)
  assert not np.array_equal(other.centroids, made.centroids)


def test_an_empty_cluster_is_kept():
  """Fewer different rows than clusters: no division by zero."""
  rows = np.repeat(np.eye(3, dtype=np.float32)[:2], 4, 0)
  made = spherical_kmeans(jax.random.key(0), rows, np.ones(8, bool), count=4, iterations=3)
  assert np.isfinite(made.centroids).all() and sorted(made.sizes.tolist()) == [0, 0, 4, 4]
  assert np.allclose(np.linalg.norm(made.centroids, axis=1), 1)
  spread = concentration(jnp.asarray(rows), made, 0.2)
  np.testing.assert_allclose(spread, 0.2)


def test_concentration_is_that_of_the_published_code():
  rows = np.random.default_rng(2).normal(size=(60, 4))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  with jax.enable_x64(True):
    made = spherical_kmeans(jax.random.key(0), rows, np.ones(60, bool), count=12, iterations=3)
    found = np.asarray(concentration(jnp.asarray(rows), made, 0.2))
  density = np.zeros(12)
  for label in range(12):
    away = np.linalg.norm(rows - np.asarray(made.centroids)[label], axis=1)[np.asarray(made.assignments) == label]
    if len(away) > 1:
      density[label] = away.mean() / np.log(len(away) + 10)
  density[np.asarray(made.sizes) <= 1] = density.max()
  density = density.clip(np.percentile(density, 10), np.percentile(density, 90))
  np.testing.assert_allclose(found, 0.2 * density / density.mean(), rtol=1e-9)


def test_kmeans_by_distance():
  """Two rays of one direction are two clusters, centroids are means, and more starts are no worse."""
  near, far = np.array([[1.0, 0.1], [1.0, -0.1]]), np.array([[3.0, 0.1], [3.0, -0.1]])
  rows = np.concatenate([near, far, [[9.0, 9.0]]]).astype(np.float32)
  valid = np.arange(5) < 4
  made = kmeans(jax.random.key(0), rows, valid, count=2, iterations=5, restarts=3)
  np.testing.assert_allclose(sorted(np.asarray(made.centroids)[:, 0]), [1, 3], atol=1e-6)
  assert made.assignments[4] == -1 and made.sizes.tolist() == [2, 2]
  rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
  one, many = (kmeans(jax.random.key(1), rows, np.ones(60, bool), count=8, restarts=n) for n in (1, 6))
  away = [((rows - np.asarray(made.centroids)[made.assignments]) ** 2).sum() for made in (one, many)]
  assert away[1] <= away[0]


def test_known_rows_stay_in_their_cluster():
  rows, known = blobs(), np.full(40, -1)
  known[:5], known[10:13] = 2, 0  # some of the first two blobs; the third and fourth are not known
  known[39] = 2  # far from the others of its cluster
  made = kmeans(jax.random.key(0), rows, np.ones(40, bool), known, count=4, iterations=10)
  found = np.asarray(made.assignments)
  assert (found[known >= 0] == known[known >= 0]).all()
  assert (found[:10] == 2).all() and (found[10:20] == 0).all() and {1, 3} == {*found[20:39]}
  empty = kmeans(jax.random.key(0), rows[:8], np.ones(8, bool), known[:8], count=8, iterations=3)
  assert np.isfinite(empty.centroids).all() and empty.sizes.sum() == 8
