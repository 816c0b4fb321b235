"""Average precision against scikit-learn, the ridge against scikit-learn's."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from mmcontrast.errors import UserError
from mmcontrast.evaluation import tagging


def test_average_precision_hand_computed():
  tags = np.array([[1], [0], [1], [0]])
  assert tagging.average_precision(tags, np.array([[4], [3], [2], [1]])) == pytest.approx(5 / 6)
  assert tagging.average_precision(tags, np.ones((4, 1))) == pytest.approx(0.5)  # the prevalence


@pytest.mark.parametrize("levels", [None, 3, 1])
def test_average_precision_is_sklearns_with_ties_too(levels):
  rng = np.random.default_rng(0)
  tags, scores = rng.random((57, 11)) < 0.2, rng.normal(size=(57, 11))
  if levels:
    scores = rng.integers(0, levels, (57, 11))
  expected = [average_precision_score(t, s) for t, s in zip(tags.T, scores.T)]
  np.testing.assert_allclose(tagging.average_precision(tags, scores), expected, atol=1e-12)
  found = tagging.mean_average_precision(tags, scores)
  macro = average_precision_score(tags, scores, average="macro")
  micro = average_precision_score(tags, scores, average="micro")
  assert (found["map_macro"], found["map_micro"]) == pytest.approx((macro, micro), abs=1e-12)


def test_tags_without_a_positive_are_left_out_and_counted():
  tags = np.array([[1, 0, 0], [0, 0, 1]])
  scores = np.array([[2.0, 9, 0], [1, 9, 1]])
  assert tagging.mean_average_precision(tags, scores) == {
    "map_macro": 1.0,
    "map_micro": pytest.approx(5 / 6),  # tied with a wrong one at score 1
    "tags": 2.0,
    "tags_left_out": 1.0,
  }
  with pytest.raises(UserError, match="none of the 3 tags"):
    tagging.mean_average_precision(np.zeros((2, 3)), scores)


def test_ridge_is_sklearns():
  rng = np.random.default_rng(0)
  features = (rng.normal(size=(80, 6)) * 3 + 1).astype(np.float32)
  tags = (rng.random((80, 4)) < 0.3).astype(np.uint8)
  tagger = tagging.fit(features, tags, l2_grid=(0.3,))
  x = (features - features.mean(0)) / features.std(0)
  oracle = Ridge(alpha=0.3 * len(x)).fit(x.astype(np.float64), tags)
  np.testing.assert_allclose(tagger.score(features), oracle.predict(x), atol=1e-5)
  assert tagger.protocol == "ridge-l2-v1"


def test_strength_is_chosen_inside_the_training_part():
  rng = np.random.default_rng(0)
  noise = rng.normal(size=(300, 200)).astype(np.float32)
  tags = (noise[:, :20] + rng.normal(size=(300, 20)) > 1).astype(np.uint8)
  assert tagging.fit(noise, tags).l2 > tagging.L2_GRID[-1]
  clean = (noise[:, :2] > 1).astype(np.uint8)
  scores = tagging.fit(noise[:, :2], clean).score(noise[:, :2])
  assert tagging.average_precision(clean, scores).mean() > 0.9


def test_degenerate():
  with pytest.raises(UserError, match="no training example has a tag"):
    tagging.fit(np.ones((4, 2)), np.zeros((4, 3)))
  with pytest.raises(UserError, match="must be positive"):
    tagging.fit(np.ones((4, 2)), np.ones((4, 3)), l2_grid=())
  constant = tagging.fit(np.ones((10, 2), np.float32), np.eye(10)[:, :2])
  assert np.isfinite(constant.score(np.ones((3, 2)))).all()
