"""Base to new: which classes are which, what is tuned on, accuracy and its harmonic mean, what a mistake says."""

import types

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation import base_to_new
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, embed_sets, run_suite


def test_the_first_half_is_base_the_larger_one_of_an_odd_number():
  assert [part.tolist() for part in base_to_new.halves(5)] == [[0, 1, 2], [3, 4]]


def test_a_tie_is_no_hit_and_the_harmonic_mean_is_that_of_shares():
  scores = np.array([[0.5, 0.5, 0.1], [0.1, 0.9, 0.2], [0.3, 0.2, 0.1]])
  assert base_to_new.accuracy(scores, np.array([0, 1, 1])) == pytest.approx(1 / 3)
  assert base_to_new.harmonic(0.8, 0.4) == pytest.approx(2 / (1 / 0.8 + 1 / 0.4)) and base_to_new.harmonic(0, 1) == 0


def test_shots_are_of_each_base_class_and_as_many_as_there_are():
  labels = np.array([0, 0, 0, 1, 2, 2])
  places = base_to_new.few(labels, np.array([0, 1]), 2, seed=0)
  assert labels[places].tolist() == [0, 0, 1] and len(set(places.tolist())) == 3


def suite(world, calls, wrong=0.0, **options):
  """Three groups: 0 and 1 are base. What tunes answers with the truth, but for a share of the new things."""

  def tune(values, labels, classes, modality, **recipe):
    calls.append((values[:, 0, 0, 0], np.asarray(labels), list(classes), recipe))

    def cosines(values, classes):
      group = world.group[values[:, 0, 0, 0]]
      own = np.array([f"group {one}" for one in group])[:, None] == np.array(classes)[None]
      return own - 2.0 * (values[:, :1, 0, 0] % 2 < wrong) * own if len(classes) == 2 else own.astype(float)

    return types.SimpleNamespace(cosines=cosines)

  config = {"sets": ("s", "new"), "features": "image", "evaluators": {"base_to_new": dict(label="group", **options)}}
  data = {"s": world.set("s", True), "new": world.set("new", False, style=2)}
  sets = embed_sets(world.embed, config, data.__getitem__, tune=tune)
  return run_suite(world.embed, config, data.__getitem__, sets=sets), config, data


def test_prompts_are_tuned_on_base_classes_of_the_training_part_alone(world):
  calls = []
  found, config, data = suite(world, calls, wrong=1, shots=4, seeds=(1, 2), recipe=dict(length=3))
  assert len(calls) == 2
  for seed, (concepts, labels, classes, recipe) in zip((1, 2), calls):
    assert classes == ["group 0", "group 1"] and labels.tolist() == [0] * 4 + [1] * 4
    assert (world.group[concepts] == labels).all() and (concepts % 5 != 0).all()  # the others are for testing
    assert recipe == dict(length=3, method="coop", template="{}", seed=seed)
  assert found["new/base_to_new/group_coop_new"] == 1  # one class alone
  tested = [one for one in range(60) if one % 5 == 0 and world.group[one] < 2]
  right = np.mean([one % 2 == 1 for one in tested])
  assert found["s/base_to_new/group_coop_base"] == pytest.approx(right)
  assert found["s/base_to_new/group_coop_harmonic"] == pytest.approx(2 * right / (right + 1))
  assert 0 < found["new/base_to_new/group_zero_shot_base"] <= 1
  classes = {name: one.label_names for name, one in data.items()}
  assert sorted(metric_names(config, classes.__getitem__)) == sorted(found)


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(method="maplle"), "base_to_new.method: no such choice 'maplle'; did you mean 'maple'"),
    (dict(shots=0), "base_to_new.shots: 0; give 1 or more"),
    (dict(seeds=()), r"base_to_new.seeds: \(\); give several numbers"),
  ],
)
def test_a_wrong_option_stops_before_anything(options, message):
  with pytest.raises(UserError, match=message):
    check({"sets": ("s",), "evaluators": {"base_to_new": options}})


def test_a_model_that_cannot_be_tuned_beside_is_said(world):
  config = {"sets": ("s",), "evaluators": {"base_to_new": dict(label="group", baselines=("untrained",))}}
  with pytest.raises(UserError, match="no model to tune prompts beside"):
    run_suite(world.embed, config, {"s": world.set("s", True)}.__getitem__)
