"""The suite: names, what is shared, what is said of mistakes."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, check_set, embed_sets, run_suite

EVALUATORS = {
  "retrieval": {},
  "zero_shot": {"label": "group", "templates": ("{}", "a {}")},
  "knn": {"label": ("concept", "group"), "k": 5},
  "linear_probe": {"label": "group"},
  "tagging": {"sets": ("new",)},
}


def _config(**changes):
  return {"sets": ("a:one", "a:two", "new"), "train_sets": (), "evaluators": EVALUATORS} | changes


def _sets(world):
  return {
    "a:one": world.set("a_one", True, style=0),
    "a:two": world.set("a_two", True, style=1),
    "new": world.set("new", False, range(50), style=2),
  }


def test_names_values_and_shared_embeddings(world):
  results = run_suite(world.embed, _config(), _sets(world).__getitem__)
  assert {name.split("/")[0] for name in results} == {"a:one", "a:two", "new"}
  assert {name.removeprefix("new/") for name in results if name.startswith("new/")} == {
    *(f"{way}/{metric}" for way in ("image_to_text", "text_to_image")
      for metric in ("recall@1", "recall@5", "recall@10", "median_rank", "queries", "candidates")),
    "zero_shot/group_top1", "knn/concept_accuracy",
    *(f"{task}/group_{metric}" for task in ("knn", "linear_probe")
      for metric in ("accuracy", "mean_per_class", "classes")), "linear_probe/group_l2",
    "tagging/map_macro", "tagging/map_micro", "tagging/tags", "tagging/tags_left_out",
    "tagging/l2",
  }  # fmt: skip
  assert not any(name.startswith("a:one/tagging") for name in results)
  classes = {name: one.label_names for name, one in _sets(world).items()}
  assert sorted(metric_names(_config(), classes.__getitem__)) == sorted(results)
  assert all(type(value) is float for value in results.values())
  assert results["new/linear_probe/group_accuracy"] == 1
  assert results["new/tagging/tags_left_out"] == 1
  kinds = [kind for kind, _ in world.calls]
  assert kinds.count("image") == kinds.count("image_features") == 3  # once a set
  assert kinds.count("text") == 6  # the captions and the prompts of each set


def test_a_constant_model_scores_at_chance(world):
  world.embed = lambda kind, values: np.ones((len(values), 4))
  results = run_suite(world.embed, _config(), _sets(world).__getitem__)
  for metric in ("image_to_text/recall@10", "text_to_image/recall@10", "zero_shot/group_top1"):
    assert results[f"new/{metric}"] == 0
  assert results["new/knn/concept_accuracy"] <= 0.05
  assert results["new/linear_probe/group_accuracy"] <= 0.5
  assert results["new/tagging/map_macro"] == pytest.approx(1 / 3, abs=0.05)


def test_config_dict_and_train_sets(world):
  config = ml_collections.ConfigDict(_config(sets=("new",), train_sets=("a:one",)))
  sets = embed_sets(world.embed, config, _sets(world).__getitem__)
  assert list(sets) == ["new", "a:one"]
  results = run_suite(world.embed, config, _sets(world).__getitem__, sets=sets)
  assert {name.split("/")[0] for name in results} == {"new"}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"evaluators": {"retreival": {}}}, "did you mean 'retrieval'"),
    ({"evaluators": {"knn": {"labels": "group"}}}, "evaluators.knn.*did you mean 'label'"),
    ({"evaluators": {"knn": {"tests": ()}}}, "no option 'tests'"),
    ({"evaluators": {"retrieval": {"sets": ("newt",)}}}, "did you mean 'new'"),
    ({"sets": ()}, "evaluation.sets: is empty"),
  ],
)
def test_check_names_the_nearest(changes, message):
  with pytest.raises(UserError, match=message):
    check(_config(**changes))
  check(_config())


@pytest.mark.parametrize(
  ("evaluators", "changes", "message"),
  [
    ({"knn": {"label": "grup"}}, {}, "did you mean 'group'"),
    ({"zero_shot": {"label": "grup"}}, {}, "did you mean 'group'"),
    ({"tagging": {}}, {"tags": np.zeros((60, 0), np.uint8), "tag_names": []}, "has no tags"),
    ({"knn": {"label": "group"}}, {"split": np.full(60, "test")}, "is of split train"),
    ({"linear_probe": {}}, {"split": np.full(60, "train")}, "is of split validation, test"),
    ({"knn": {}}, {"seen": False}, "evaluation.train_sets"),
    ({"retrieval": {}}, {"caption_id": np.arange(60) + 100}, "same ids"),
    ({"retrieval": {}}, {"captions": [], "caption_id": np.zeros(0)}, "no text to embed"),
  ],
)
def test_sets_without_what_is_needed(world, evaluators, changes, message):
  config = {"sets": ("s",), "evaluators": evaluators}
  with pytest.raises(UserError, match=message):
    run_suite(world.embed, config, lambda name: world.set("s", **({"seen": True} | changes)))


def test_label_spaces_must_be_one(world):
  other = world.set("new", False, label_names={"group": ["x", "y", "z"]})
  sets = {**_sets(world), "new": other}
  with pytest.raises(UserError, match="'new' and 'a:one' do not name the classes of 'group' alike"):
    run_suite(world.embed, _config(evaluators={"knn": {"label": "group"}}), sets.__getitem__)


@pytest.mark.parametrize("evaluators, message", [
  (dict(knn=dict(label="clas")), "evaluators.knn.label: labels of 's'.*did you mean 'class'"),
  (dict(linear_probe=dict(label=("class", "group"))), "evaluators.linear_probe.label: labels of 's'"),
  (dict(zero_shot=dict(names={"a": "x"})), "nothing for 1 of 2 classes of 'class', such as 'b'"),
])  # fmt: skip
def test_what_a_schema_lacks_is_found_before_anything_is_computed(evaluators, message):
  config = {"sets": ("s",), "evaluators": evaluators}
  with pytest.raises(UserError, match=message):
    check_set(config, "s", {"class": ("a", "b")})
  check_set(config, "another", {})
  fine = {"zero_shot": {"names": {"a": "x", "b": "y"}}, "knn": {"label": ("concept", "class")}, "linear_probe": {}}
  check_set({"sets": ("s",), "evaluators": fine}, "s", {"class": ("a", "b")})


def test_without_a_label_an_evaluator_looks_at_those_that_there_are(world):
  """A folder's only label is "class", which nobody had to name."""

  def load(name):
    data = world.set(name, True)
    return dataclasses.replace(data, labels={"class": data.labels["group"]},
                               label_names={"class": data.label_names["group"]})  # fmt: skip

  config = {"sets": ("s",), "evaluators": {"zero_shot": {}, "knn": {"k": 5}, "linear_probe": {}}}
  found = run_suite(world.embed, config, load)
  assert found["s/zero_shot/class_top1"] > 0.8 and found["s/linear_probe/class_accuracy"] > 0.8
  assert sorted(metric_names(config, lambda name: {"class": ("a", "b", "c")})) == sorted(found)


def test_the_sets_of_a_run_trained_on_other_data_still_train_probes(world):
  """Where the run trains on none of the sets, probes train on those that are made for it."""
  load = lambda name: world.set(name, False, style=int(name[-1]), trains_probes=name == "a0")  # noqa: E731
  config = {"sets": ("a0", "a1"), "evaluators": {"linear_probe": {}}}
  assert run_suite(world.embed, config, load)["a1/linear_probe/group_accuracy"] > 0.8


def test_bad_embeddings_are_named(world):
  nan = EmbeddedSet(world.set("s", True), lambda kind, values: np.full((len(values), 2), np.nan))
  with pytest.raises(UserError, match="NaN or infinite for 60 of 60 examples of 's'"):
    nan.joint("image")
  short = EmbeddedSet(world.set("s", True), lambda kind, values: np.ones((3, 2)))
  with pytest.raises(UserError, match=r"returned shape \(3, 2\) for 60"):
    short.features()
