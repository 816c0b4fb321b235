"""Zero-shot, k-NN and the linear probe, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from mmcontrast.errors import UserError
from mmcontrast.evaluation import knn, linear_probe, zero_shot
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.labelled import held_out_concepts


def test_zero_shot_hand_computed():
  classes = np.eye(6)
  images = np.array([[6.0, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1], [6, 5, 4, 3, 2, 1]])
  assert zero_shot.zero_shot(images, classes, np.array([0, 3, 5])) == {
    "top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)
  }  # fmt: skip
  assert zero_shot.zero_shot(np.ones((4, 6)), classes, np.arange(4))["top5"] == 0  # all tied
  assert "top5" not in zero_shot.zero_shot(images[:, :3], classes[:3, :3], np.array([0, 0, 0]))


def test_class_is_the_mean_of_its_normalised_prompts():
  rows = {"a cat": [3.0, 0], "cat!": [0, 0.5], "a dog": [-1.0, 0], "dog!": [-2, 0]}

  def embed(kind, values):
    assert kind == "text"
    return np.array([rows[value] for value in values])

  found = zero_shot.class_embeddings(embed, ["cat", "dog"], ["a {}", "{}!"])
  np.testing.assert_allclose(found, [[0.5**0.5, 0.5**0.5], [-1, 0]], atol=1e-6)


@pytest.mark.parametrize("templates", [(), ("a drawing",), ("{} and {}",)])
def test_bad_templates(templates):
  with pytest.raises(UserError, match="zero_shot"):
    zero_shot.class_embeddings(lambda kind, values: np.ones((len(values), 2)), ["a"], templates)


def test_zero_shot_leaves_out_unlabelled_images(world):
  labels = {"group": np.where(np.arange(60) < 30, world.group, -1)}
  one = EmbeddedSet(world.set("s", True, labels=labels), world.embed)
  found = zero_shot.evaluate([one], [], label="group", templates=("{}", "a {}"))["s"]
  assert found == {"zero_shot/group_top1": found["zero_shot/group_top1"]}
  assert found["zero_shot/group_top1"] > 0.8
  nothing = world.set("s", True, labels={"group": np.full(60, -1)})
  with pytest.raises(UserError, match="no image of 's' has a 'group'"):
    zero_shot.evaluate([EmbeddedSet(nothing, world.embed)], [], label="group")


def test_knn_weights_hand_computed():
  """One near neighbour outvotes two at a right angle, but not at a high temperature."""
  bank, labels = np.array([[1.0, 0], [0, 1], [0, 1]]), np.array([1, 0, 0])
  query = np.array([[1.0, 0.2]])
  assert knn.classify(query, bank, labels, k=3).tolist() == [1]
  assert knn.classify(query, bank, labels, k=3, temperature=10.0).tolist() == [0]
  assert knn.classify(query, bank, labels, k=1, temperature=10.0).tolist() == [1]
  assert knn.classify(query, bank, labels, k=99).tolist() == [1]  # no more than there are


def test_knn_is_sklearns_with_these_weights():
  rng = np.random.default_rng(0)
  bank, labels = rng.normal(size=(203, 8)), rng.integers(0, 5, 203)
  queries = rng.normal(size=(57, 8))
  bank /= np.linalg.norm(bank, axis=1, keepdims=True)
  queries /= np.linalg.norm(queries, axis=1, keepdims=True)
  weights = lambda distance: np.exp((1 - distance**2 / 2) / 0.07)  # noqa: E731
  oracle = KNeighborsClassifier(20, weights=weights, algorithm="brute").fit(bank, labels)
  assert knn.classify(queries, bank, labels).tolist() == oracle.predict(queries).tolist()


def test_knn_degenerate():
  with pytest.raises(UserError, match="bank is empty"):
    knn.classify(np.ones((1, 2)), np.ones((0, 2)), np.ones(0, int))
  with pytest.raises(UserError, match="must be positive"):
    knn.classify(np.ones((1, 2)), np.ones((1, 2)), np.ones(1, int), k=0)


def test_knn_of_a_label_never_sees_the_concept_itself(world):
  """Labels at random by concept: only a leak of the concept could tell them."""
  labels = {"group": np.random.default_rng(0).integers(0, 3, 60)}
  world.groups *= 0
  world.concepts = np.random.default_rng(1).normal(size=world.concepts.shape)
  one, two = (EmbeddedSet(world.set(name, True, style=n, labels=labels), world.embed) for n, name in enumerate("ab"))
  found = knn.evaluate([one], [one, two], label=("group", "concept"), k=5)["a"]
  assert found["knn/group_accuracy"] < 0.8
  assert found["knn/concept_accuracy"] > 0.9  # the same concept by another hand


def test_knn_concept_needs_another_hand(world):
  one = EmbeddedSet(world.set("a", True), world.embed)
  with pytest.raises(UserError, match="needs a training set other than 'a'"):
    knn.evaluate([one], [one], label="concept")


def _clusters(rows=300, classes=4, dim=12, noise=1.0, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, classes, rows)
  centres = np.random.default_rng(99).normal(size=(classes, dim))
  return (centres[labels] + noise * rng.normal(size=(rows, dim))).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_linear_probe_is_sklearns(classes):
  features, labels = _clusters(classes=classes)
  features = features * 5 + 3
  probe = linear_probe.fit(features, labels, l2_grid=(0.1,), steps=2000)
  x = (features - features.mean(0)) / features.std(0)
  oracle = LogisticRegression(C=1 / (0.1 * len(x)), max_iter=2000).fit(x, labels)
  test, truth = _clusters(seed=1, classes=classes)
  test = test * 5 + 3
  expected = oracle.score((test - features.mean(0)) / features.std(0), truth)
  assert probe.accuracy(test, truth) == pytest.approx(expected, abs=0.01)
  assert probe.l2 == 0.1 and probe.protocol == "lbfgs-l2-v1"


def test_linear_probe_regularises_noise_and_not_signal():
  rng = np.random.default_rng(0)
  signal, labels = _clusters(noise=0.05)
  noise = np.hstack([signal[:, :2], rng.normal(size=(300, 200))])
  noisy_labels = np.where(rng.random(300) < 0.5, labels, rng.integers(0, 4, 300))
  assert linear_probe.fit(noise, noisy_labels).l2 > linear_probe.L2_GRID[-1]
  assert linear_probe.fit(signal, labels).accuracy(*_clusters(noise=0.05, seed=1)) == 1.0


def test_linear_probe_constant_features_give_the_majority():
  labels = np.array([0] * 30 + [1] * 10)
  probe = linear_probe.fit(np.ones((40, 3), np.float32), labels)
  assert probe.accuracy(np.ones((40, 3)), labels) == 0.75


def test_linear_probe_labels_need_not_be_consecutive():
  features, labels = _clusters(noise=0.05)
  assert set(linear_probe.fit(features, labels * 10 + 5).predict(features)) == {5, 15, 25, 35}


def test_linear_probe_degenerate():
  with pytest.raises(UserError, match="one class only"):
    linear_probe.fit(np.ones((4, 2)), np.zeros(4, int))
  with pytest.raises(UserError, match="must be positive"):
    linear_probe.fit(np.ones((4, 2)), np.arange(4), l2_grid=(0.0,))


def test_held_out_part_is_by_whole_concepts_and_repeatable():
  concept = np.repeat(np.arange(50), 3)
  held = held_out_concepts(concept)
  assert held.sum() == 30
  assert not set(concept[held]) & set(concept[~held])
  assert (held == held_out_concepts(concept)).all()
  with pytest.raises(UserError, match="two concepts or more"):
    held_out_concepts(np.zeros(5))
