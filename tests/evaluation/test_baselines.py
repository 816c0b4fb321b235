"""Rows without training: raw pixels and initial weights, through the same evaluators."""

import numpy as np
import pytest
from tiny import tiny_inference

from mmcontrast.errors import UserError
from mmcontrast.evaluation import baselines
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, run_suite
from mmcontrast.report import table


def _config(**evaluators):
  return {"sets": ("s",), "evaluators": evaluators}


def test_pixels_by_hand():
  images = np.zeros((2, 32, 32, 3), np.uint8)
  images[0, :2, :2, 1] = [[255, 255], [0, 0]]
  found = baselines.pixels("image_features", images)
  assert found.shape == (2, 16 * 16 * 3) and found[0, 1] == 0.5 and found.sum() == 0.5
  assert baselines.pixels("image_features", images[:, :7, :7]).shape == (2, 7 * 7 * 3)
  assert baselines.pixels("image_features", np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 16 * 16 * 3)


def test_rows_beside_those_of_the_model(world):
  """Pixels hold the concept's number alone; the untrained model knows the concepts, the trained one nothing."""
  nothing = lambda kind, values: np.ones((len(values), 4), np.float32)  # noqa: E731
  config = _config(knn={"label": "group", "k": 3, "baselines": ("pixels", "untrained")},
                   retrieval={"baselines": "untrained"})  # fmt: skip
  found = run_suite(nothing, config, lambda name: world.set(name, True), untrained=lambda: world.embed)
  assert found["s/knn_untrained/group_accuracy"] > 0.8 > found["s/knn/group_accuracy"]
  assert sorted(metric_names(config, lambda name: {"group": ("a", "b", "c")})) == sorted(found)
  assert found["s/image_to_text_untrained/recall@1"] > 0.8 > found["s/image_to_text/recall@1"] == 0.0
  assert "knn of pixels" in table.show(found, {"s": True})


@pytest.mark.parametrize("evaluators, message", [
  (dict(retrieval=dict(baselines=("pixels",))), r"evaluators\.retrieval\.baselines: no such choice 'pixels'"),
  (dict(knn=dict(baselines="pixel")), r"evaluators\.knn\.baselines.*did you mean 'pixels'"),
])  # fmt: skip
def test_mistakes(evaluators, message):
  with pytest.raises(UserError, match=message):
    check(_config(**evaluators))


def test_initial_weights_of_a_model():
  model = tiny_inference()
  images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8)
  digest = model.digest
  one, same, other = model.untrained(), model.untrained(), model.untrained(seed=1)
  rows = [np.asarray(m.embed("image_features", images)) for m in (model, one, same, other)]
  assert (rows[1] == rows[2]).all() and not np.allclose(rows[1], rows[0]) and not np.allclose(rows[1], rows[3])
  assert one.digest != digest == model.digest
