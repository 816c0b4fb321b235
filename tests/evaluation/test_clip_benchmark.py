"""CLIP_benchmark's numbers: those that the package itself gave, equal scores among them."""

import json
import pathlib

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation import zero_shot
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.protocols import CLIP_BENCHMARK, OURS, PROTOCOLS, clip_benchmark, described, digest
from mmcontrast.evaluation.protocols.topk import any_in_top, top
from mmcontrast.evaluation.suite import embed_sets, measured, run_suite
from mmcontrast.evaluation.tasks import described as of_tasks

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "clip_benchmark.json").read_text())


def ours(name: str, **given):
  """What this package gives for the inputs of a golden case."""
  given = {key: np.asarray(value) for key, value in given.items()}
  kind = name.partition("_")[0]
  if kind == "retrieval":
    return clip_benchmark.retrieval(given["texts"], given["images"], given["owner"])
  if kind == "selection":
    found = clip_benchmark.selection(given["images"], given["texts"])
    return {key: hits.mean() for key, hits in found.items()}
  classes = class_rows(given["prompts"])
  if kind == "multilabel":
    unit = given["images"] / np.linalg.norm(given["images"], axis=1, keepdims=True)
    return {"mean_average_precision": clip_benchmark.average_precision(unit @ classes.T, given["targets"]).mean()}
  return clip_benchmark.classification(given["images"], classes, given["labels"])


def class_rows(prompts):
  count, templates, _ = prompts.shape
  lookup = {f"{c}:{t}": prompts[c, t] for c in range(count) for t in range(templates)}
  names = [str(c) for c in range(count)]
  shown = [f"{{}}:{t}" for t in range(templates)]
  return zero_shot.class_embeddings(lambda kind, texts: np.stack([lookup[text] for text in texts]), names, shown)


@pytest.mark.parametrize("name", GOLDEN)
def test_numbers_are_the_packages(name):
  case = GOLDEN[name]
  assert ours(name, **case["inputs"]) == pytest.approx(case["expected"], abs=1e-6)


def test_ties_depend_on_the_place_and_not_on_the_model_alone():
  """A constant scorer is a hit where its candidate happens to lie in the k that are taken; ours counts it a miss."""
  values = np.zeros(400)
  assert top(values, 5) != list(range(5)) and len(set(top(values, 5))) == 5
  right = np.eye(400, dtype=bool)
  hits = any_in_top(np.zeros((400, 400)), right, 5)
  assert hits.sum() == 5 and hits[top(values, 5)].all()
  assert any_in_top(np.zeros((1, 3)), np.array([[False, False, True]]), 5).all()  # fewer candidates than k
  assert not any_in_top(np.arange(3.0)[None], np.zeros((1, 3), bool), 3).any()  # nothing to find


def test_both_protocols_on_one_run_and_what_is_written_beside(world):
  both = (OURS, CLIP_BENCHMARK)
  config = {
    "sets": ("s",),
    "evaluators": {
      "retrieval": {"protocol": both},
      "zero_shot": {"label": "group", "templates": ("{}", "a {}"), "protocol": both},
      "knn": {"label": "group"},
    },
  }
  data = {"s": world.set("s", True)}
  sets = embed_sets(world.embed, config, data.__getitem__)
  results, tasks = measured(world.embed, config, data.__getitem__, sets=sets)
  assert sorted(results) == sorted(metric_names(config, lambda name: data[name].label_names))
  assert results[f"s/text_to_image_by_{CLIP_BENCHMARK}/recall@1"] == results["s/text_to_image/recall@1"] > 0.8
  assert results[f"s/zero_shot_by_{CLIP_BENCHMARK}/group_acc1"] == results["s/zero_shot/group_top1"]
  assert f"s/zero_shot_by_{CLIP_BENCHMARK}/group_acc5" not in results  # three classes
  run = {"data": {"image_size": 8, "resize": {"mode": "shortest", "interpolation": "bicubic"}, "centre_crop": 0.875},
         "normalize": {"mean": (0.5, 0.5, 0.5)}}  # fmt: skip
  found = of_tasks(tasks, run)
  assert set(found) == {name.rpartition("/")[0] for name in results}
  theirs = found[f"s/zero_shot_by_{CLIP_BENCHMARK}"]
  assert (theirs["protocol"], theirs["version"], theirs["resize"], theirs["crop"]) == (
    "clip_benchmark", "1.6", "shortest", 0.875)  # fmt: skip
  assert theirs["prompts"] == found["s/zero_shot"]["prompts"] == digest(
    ("{}", "a {}"), [("group 0",), ("group 1",), ("group 2",)])  # fmt: skip
  assert "against the model" in found["s/text_to_image"]["ties"] and "topk" in theirs["ties"]
  assert found["s/knn"]["protocol"] == "weighted_knn" and json.dumps(found)
  only = run_suite(world.embed, config | {"evaluators": {"retrieval": {"protocol": CLIP_BENCHMARK}}}, None, sets=sets)
  assert all(CLIP_BENCHMARK in name for name in only)


def test_a_caption_has_one_image(world):
  """Two images of a concept: in ours each is right for the caption; here the first is its own, the second has none."""
  data = world.set("s", True, range(6))
  twice = world.set("s", True, [0, 0, 1, 2, 3, 4])
  assert EmbeddedSet(data, world.embed).data is data
  found = run_suite(
    world.embed, {"sets": ("s",), "evaluators": {"retrieval": {"protocol": (OURS, CLIP_BENCHMARK)}}}, lambda name: twice
  )
  assert found["s/image_to_text/recall@1"] == 1
  assert found[f"s/image_to_text_by_{CLIP_BENCHMARK}/recall@1"] == pytest.approx(5 / 6)


def test_unknown_protocols():
  with pytest.raises(UserError, match=r"retrieval.protocol: no such choice 'clip_benchmark'; did you mean 'clip_b"):
    run_suite(None, {"sets": ("s",), "evaluators": {"retrieval": {"protocol": "clip_benchmark"}}}, None)
  with pytest.raises(UserError, match="protocol: no such choice 'vissl'"):
    described("vissl")
  assert len({one.called for one in PROTOCOLS.values()}) == len(PROTOCOLS)
  assert described("voc07-vissl", {"data": {}})["asked_resize"].endswith("squashed to 224 x 224")


def test_unit_rows_are_rounded_as_the_norm_of_each():
  """A last bit makes different what is equal in CLIP_benchmark, and then acc5 differs."""
  rows = np.random.default_rng(0).standard_normal((300, 48)).astype(np.float32)
  np.testing.assert_array_equal(unit(rows), rows / np.linalg.norm(rows, axis=1, keepdims=True))
