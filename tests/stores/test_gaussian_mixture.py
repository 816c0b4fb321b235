"""Splits and merges of clusters: the numbers of reference code, what is done with blobs, and the hook that does it."""

import json
import pathlib
import types

import jax
import numpy as np
import pytest

from mmcontrast.encoders import Encoded
from mmcontrast.errors import UserError
from mmcontrast.stores.cluster_hooks import ClassMeans, GaussianMixture
from mmcontrast.stores.epoch_hooks import parse_hooks
from mmcontrast.stores.gaussian_mixture import (
  log_marginal,
  log_split_ratio,
  posterior_mean,
  principal_axes,
  prior_of,
  split_and_merge,
  two_parts,
)  # fmt: skip
from mmcontrast.stores.hook import Examples

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "clusters.json"
PATH = "image[0]/features"


def test_likelihoods_and_ratios():
  case = json.loads(GOLDEN.read_text())["gpc_niw_split"]
  x, y = (np.array(case["inputs"][name]) for name in "xy")
  expected, prior = case["expected"], prior_of(x)
  assert (prior.nu, prior.kappa, prior.spread) == tuple(case["inputs"][k] for k in ("nu", "kappa", "psi_scale"))
  for rows, name in ((x, "ll_x"), (x[:8], "ll_x1"), (x[8:], "ll_x2"), (y, "ll_y")):
    np.testing.assert_allclose(log_marginal(rows, prior), expected[name], rtol=1e-6)
  for rows, name in ((x, "H_x"), (y, "H_y")):
    np.testing.assert_allclose(log_split_ratio(rows[:8], rows[8:], prior), expected[name], rtol=1e-6)
  means = [posterior_mean(part, prior) for part in (x[:8], x[8:])]
  np.testing.assert_allclose(means, expected["mu_post"], atol=1e-9)
  assert log_marginal(x[:0], prior) == 0 and np.isfinite(log_split_ratio(x[:0], x, prior))


def blobs(centres, each=12, seed=0):
  draw = np.random.default_rng(seed)
  return np.concatenate([centre + 0.05 * draw.normal(size=(each, 3)) for centre in np.array(centres, float)])


def changed(rows, assignments, fixed=(), most=9, chance=0.0):
  centroids = [
    rows[assignments == c].mean(0) if (assignments == c).any() else [9, 9, 9] for c in range(assignments.max() + 1)
  ]
  return split_and_merge(
    rows, assignments, np.array(centroids), fixed, most, draws=np.random.default_rng(0), chance=chance
  )


def test_what_is_two_is_split_and_what_is_one_is_merged():
  rows = blobs([[0, 0, 0], [1, 0, 0], [5, 0, 0], [5, 0, 0], [0, 7, 0]])
  assignments = np.repeat([0, 0, 1, 2, 4], 12)  # two blobs in one cluster, one blob in two; none in cluster 3
  assignments[-1] = -1
  found = changed(rows, assignments)
  assert (found.splits, found.merges) == (1, 1)
  parts = [sorted(part.tolist()) for part in found.members]
  assert parts[0] == [] and found.old[0] == 3  # stays, though it is empty
  assert parts[1] == list(range(48, 59)) and list(range(24, 48)) in parts
  assert list(range(12)) in parts and list(range(12, 24)) in parts
  kept = changed(rows, assignments, fixed=(0, 1))
  assert (kept.splits, kept.merges) == (0, 0) and kept.old == [0, 1, 2, 3, 4]
  assert changed(rows, assignments, most=5).splits == 0  # no room
  shaken = changed(rows, assignments, chance=1.0)
  assert shaken.splits > 1 or shaken.merges > 1


def test_small_clusters_and_equal_rows():
  draws = np.random.default_rng(0)
  assert not two_parts(np.ones((4, 3)), draws).any()
  part = two_parts(blobs([[0, 0, 0], [1, 1, 1]]), draws)
  assert (part[:12] == part[0]).all() and (part[12:] == ~part[0]).all()
  few = blobs([[0, 0, 0], [1, 0, 0]], each=5)
  assert changed(few, np.zeros(10, int)).splits == 0


def test_principal_axes():
  rows = np.random.default_rng(0).normal(size=(50, 4)) * [1, 5, 0.1, 2]
  mean, axes = principal_axes(rows, 2)
  assert axes.shape == (4, 2) and np.argmax(np.abs(axes), 0).tolist() == [1, 3]
  np.testing.assert_allclose(mean, rows.mean(0))


def hook(**options):
  return GaussianMixture(term="t", embedding=PATH, label="kind", **{"clusters": 4, "components": 2} | options)


def state(most=6, more=False):
  arrays = {"centroids_0": np.zeros((most, 3)), **({"centroids_1": np.zeros((2, 3))} if more else {})}
  return types.SimpleNamespace(terms={"t": arrays, "u": {}})


def examples(label):
  rows = blobs([*np.eye(3).tolist(), [1, 1, 1]], each=10).astype(np.float32)
  present = np.arange(40) != 5
  return Examples({PATH: Encoded(rows)}, {PATH: present}, {"labels": {"kind": np.array(label)}})


def test_the_hook_writes_clusters_that_keep_what_is_known():
  label = np.full(40, -1)
  label[[1, 2, 5]], label[11:14] = 7, 3  # of two classes; example 5 cannot be used
  update = hook()(lambda names: examples(label), state(), jax.random.key(0))
  arrays, cluster = update.terms["t"], update.tables["t"]["cluster_0"]
  spread, centroids = arrays["concentrations_0"], arrays["centroids_0"]
  count = update.shown["clusters"]
  assert centroids.shape == (6, 3) and (spread[:count] > 0).all() and not spread[count:].any()
  np.testing.assert_allclose(np.linalg.norm(centroids[:count], axis=1), 1, rtol=1e-5)
  assert cluster[5] == -1 and (cluster[label == 3] == 0).all() and (cluster[[1, 2]] == 1).all()
  assert all(len(set(np.delete(cluster, 5)[start : start + 9])) == 1 for start in (0, 10, 20, 30))
  again = hook()(lambda names: examples(label), state(), jax.random.key(0))
  np.testing.assert_array_equal(again.terms["t"]["centroids_0"], centroids)
  nothing = hook()(lambda names: examples(np.full(40, -1)), state(), jax.random.key(0))
  assert (nothing.tables["t"]["cluster_0"][6:] >= 0).all()


@pytest.mark.parametrize(
  ("options", "state", "message"),
  [
    (dict(clusters=1), None, "clusters: 1 is below 2"),
    (dict(chance=-0.1), None, "chance: -0.1 is below 0"),
    (dict(clusters=7), state(), r"clusters: 7 are more than the 6 that 't' has room for; raise config\.objective\.t\."),
    (dict(clusters=41), state(50), "clusters: 41 clusters of 40 examples; give 40 or fewer"),
    ({}, state(more=True), "term: 't' has more than one clustering; give it one number"),
    (dict(term="u"), state(), r"term: 'u' is no entry of the objective with centroids; .*\bt\b"),
  ],
)
def test_what_is_refused(options, state, message):
  with pytest.raises(UserError, match=message):
    made = GaussianMixture(**dict(term="t", embedding=PATH, label="kind", clusters=4) | options)
    made.check(state, 40, True)


def test_more_known_classes_than_clusters():
  with pytest.raises(UserError, match="clusters: 4 are fewer than the 5 known classes of 'kind'"):
    hook()(lambda names: examples(np.arange(40) % 5), state(), jax.random.key(0))


def test_means_of_classes():
  """Of unit length, without what cannot be used; zeros of a class that none has; made once, before an epoch."""
  means, given = ClassMeans(term="t", embedding=PATH, label="kind"), examples([0] * 10 + [2] * 10 + [-1] * 20)
  start = types.SimpleNamespace(terms={"t": {"prototypes": np.zeros((3, 3))}, "u": {}})
  means.check(start, 40, True)
  found = means(lambda names: given, start, jax.random.key(0)).terms["t"]["prototypes"]
  rows = given.nodes[PATH].pooled / np.linalg.norm(given.nodes[PATH].pooled, axis=1, keepdims=True)
  for label, part in ((0, np.delete(rows[:10], 5, 0)), (2, rows[10:20])):
    np.testing.assert_allclose(found[label], part.mean(0) / np.linalg.norm(part.mean(0)), atol=1e-6)
  assert not found[1].any()
  scheduled = parse_hooks(dict(x=dict(name="class_means", term="t", embedding=PATH, label="kind", first_epoch=2)))[0]
  assert [steps for steps in range(20) if scheduled.is_due(steps, 3)] == [6]
  with pytest.raises(UserError, match=r"term: 'u' is no entry of the objective with prototypes of classes; .*t"):
    ClassMeans(term="u", embedding=PATH, label="kind").check(start, 40, True)
