"""A head trained on texts, used on images: the noise, the head beside scikit-learn's, what it brings, what is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation.text_transfer import noisy, train_head
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import run_suite


def test_noise_is_added_to_unit_rows_and_they_are_made_unit_again():
  rows, key = unit(np.random.default_rng(0).normal(size=(500, 8))), jax.random.key(3)
  drawn = rows + 0.5 * np.asarray(jax.random.normal(key, rows.shape))
  np.testing.assert_allclose(noisy(rows, 0.5, key), drawn / np.linalg.norm(drawn, axis=1, keepdims=True), atol=1e-6)
  np.testing.assert_allclose(noisy(rows, 0.0, key), rows, atol=1e-6)


def test_without_noise_the_head_tends_to_the_one_of_scikit_learn():
  draw = np.random.default_rng(0)
  labels = draw.integers(0, 3, 300)
  rows = unit(draw.normal(size=(300, 4)) + 2 * np.eye(3, 4)[labels])
  head = train_head(rows, jnp.asarray(labels), jax.random.key(0), 0.0, classes=3, steps=1500, learning_rate=0.02)
  expected = LogisticRegression(C=1e6, max_iter=2000).fit(rows, labels).predict_proba(rows)
  np.testing.assert_allclose(jax.nn.softmax(head.scores(rows)), expected, atol=0.12)
  assert np.mean(head.scores(rows).argmax(1) == expected.argmax(1)) > 0.97


def test_noise_helps_across_a_gap():
  """What tells texts apart exactly is lost in images: noise keeps the head to what is large."""
  draw = np.random.default_rng(1)
  labels = draw.integers(0, 4, 400)
  tell = 0.02 * np.eye(4, 12)[labels]  # what tells texts apart, but not images
  common = np.roll(np.eye(4, 12), 4, axis=1)[labels]
  texts = unit(common + 12 * tell + 0.3 * draw.normal(size=(400, 12)) * (np.arange(12) > 7))
  images = unit(common + 0.6 * draw.normal(size=(400, 12)) * (np.arange(12) < 4) + 0.4 * draw.normal(size=(400, 12)))
  heads = [
    train_head(texts, jnp.asarray(labels), jax.random.key(0), std, classes=4, learning_rate=0.05) for std in (0.0, 0.3)
  ]
  without, with_noise = (np.mean(head.scores(images).argmax(1) == labels) for head in heads)
  assert with_noise > without + 0.02


def test_images_are_tested_and_texts_are_trained_on(world):
  data = {"s": world.set("s", True), "new": world.set("new", False, style=2)}
  seen = []
  embed = lambda kind, values: (seen.append((kind, len(values))), world.embed(kind, values))[1]  # noqa: E731
  config = {"sets": ("s", "new"), "features": "image", "evaluators": {"text_transfer": dict(label="group", steps=100)}}
  found = run_suite(embed, config, data.__getitem__)
  assert found["new/text_transfer/group_accuracy"] > 0.8 and {kind for kind, _ in seen} == {"text", "image"}
  classes = {name: one.label_names for name, one in data.items()}
  assert sorted(metric_names(config, classes.__getitem__)) == sorted(found)


def test_wrong_numbers_and_no_texts_are_said(world):
  config = {"sets": ("s",), "features": "image", "evaluators": {"text_transfer": dict(label="group", std=-1.0)}}
  with pytest.raises(UserError, match=r"text_transfer.std: -1; give 0 or more"):
    run_suite(world.embed, config, {"s": world.set("s", True)}.__getitem__)
  config["evaluators"]["text_transfer"] = dict(label="group", test_splits=("validation",))
  with pytest.raises(UserError, match=r"text_transfer.label: no image of s has 'group' and is of split validation"):
    run_suite(world.embed, config, {"s": world.set("s", True)}.__getitem__)
