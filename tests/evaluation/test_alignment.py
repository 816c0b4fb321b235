"""Alignment of features and the gap between modalities: golden values of the reference, and by hand."""

import json
import pathlib

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.protocols import alignment
from mmcontrast.evaluation.suite import check_space, embed_sets, run_suite

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())["alignment_metrics"]


def test_numbers_of_the_reference():
  one, other = (np.array(GOLDEN["inputs"][name]) for name in ("a", "b"))
  found = {f"mutual_knn_{k}": alignment.mutual_knn(one, other, k) for k in (1, 3, 5)}
  found |= {"cka": alignment.cka(one, other), "unbiased_cka": alignment.cka(one, other, unbiased=True)}
  assert found == pytest.approx(GOLDEN["expected"], abs=1e-6)


def test_over_layers_has_the_numbers_of_the_reference():
  one, other = (np.array(GOLDEN["inputs"][name]) for name in ("a", "b"))
  names = "abc"
  found = alignment.over_layers({"a": one, "b": other}, dict(zip(names, (other, one, one[:, ::-1]))), 3, quantile=None)
  expected = GOLDEN["expected"]
  for name, golden in (("mutual_knn", "mutual_knn_3"), ("cka", "cka"), ("unbiased_cka", "unbiased_cka")):
    assert found.scores[name].shape == (2, 3)
    assert found.scores[name][0, 0] == pytest.approx(expected[golden], abs=1e-6)
    assert found.scores[name][1, 1:] == pytest.approx([expected[golden]] * 2, abs=1e-6)
    assert found.scores[name][0, 1] == pytest.approx(1, abs=1e-5)
    assert found.best(name) in ((0, 1), (0, 2), (1, 0))  # all are 1
  prepared = alignment.over_layers({"a": one}, {"b": other}, 3)
  ready = alignment.prepared(one), alignment.prepared(other)
  assert prepared.scores["mutual_knn"][0, 0] == alignment.mutual_knn(*ready, 3)
  assert prepared.scores["unbiased_cka"][0, 0] == pytest.approx(alignment.cka(*ready, unbiased=True))


def test_cka_does_not_see_rotations_and_knn_does_not_see_order():
  draw = np.random.default_rng(0)
  rows = draw.normal(size=(30, 5))
  turned = rows @ np.linalg.qr(draw.normal(size=(5, 5)))[0] * 3
  assert alignment.cka(rows, turned) == pytest.approx(1, abs=1e-6)
  assert alignment.mutual_knn(rows, turned, 4) == 1
  at = draw.permutation(30)
  other = draw.normal(size=(30, 7))
  assert alignment.mutual_knn(rows[at], other[at], 4) == pytest.approx(alignment.mutual_knn(rows, other, 4))
  found = alignment.over_layers({"a": rows, "b": other}, {"c": turned}, k=4)
  assert (found.ones, found.others) == (("a", "b"), ("c",)) and found.best() == found.best("cka") == (0, 0)


def test_clamped_and_of_unit_length():
  rows = np.array([[1.0, 1, 1, 50], [1, 2, 1, 2]])
  found = alignment.prepared(rows, 0.5)
  most = (1 + 1.5) / 2  # the medians of both rows
  expected = np.clip(rows, -most, most)
  np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_the_gap_by_hand():
  one, other = np.array([[1.0, 0], [0, 1]]), np.array([[1.0, 0], [0, -1]])
  found = alignment.modality_gap(one, other)
  assert found["gap"] == pytest.approx(1) and found["alignment"] == pytest.approx((0 + 4) / 2)
  assert found["uniformity_one"] == pytest.approx(-4) and found["cosine_of_pairs"] == pytest.approx(0)
  assert found["cosine_of_others"] == 0 and found["linear_separability"] == pytest.approx(
    0.5
  )  # two of four are between
  same = alignment.modality_gap(one, one)
  assert (same["gap"], same["alignment"], same["linear_separability"]) == (0, 0, 0)  # ties against it


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: alignment.mutual_knn(np.ones((3, 2)), np.ones((4, 2)), 1), "3 and 4 things; give features of the same"),
    (lambda: alignment.mutual_knn(np.ones((3, 2)), np.ones((3, 2)), 3), "k: 3 of 3 things"),
    (lambda: alignment.cka(np.ones((3, 2)), np.ones((3, 2)), True), "of four things or more"),
    (lambda: alignment.over_layers({"a": np.ones((3, 2))}, {"b": np.ones((4, 2))}, 1), "3 and 4 things"),
    (lambda: alignment.over_layers({"a": np.ones((3, 2))}, {"b": np.ones((3, 2))}, 3), "k: 3 of 3 things"),
    (lambda: alignment.modality_gap(np.ones((1, 2)), np.ones((1, 2))), "1 pair; give two or more"),
  ],
)
def test_too_few(call, message):
  with pytest.raises(UserError, match=message):
    call()


def test_as_evaluators(world):
  config = {"sets": ("s",), "evaluators": {"alignment": {"nodes": (("image", "text"),), "k": 5}, "modality_gap": {}}}
  data = world.set("s", True)
  embed = world.embed
  world.embed = lambda kind, values: embed("text" if kind.startswith("text") else "image", values)
  space = embed_space()
  sets = embed_sets(world.embed, config, lambda name: data, space=space)
  found = run_suite(world.embed, config, None, sets=sets)
  assert sorted(found) == sorted(metric_names(config, lambda name: {}, ways=lambda name: space.ways()))
  assert found["s/alignment_of_image_and_text/mutual_knn"] > 0.3
  assert found["s/modality_gap_of_image_to_text/alignment"] < 1
  # Over layers: the best pair of the table, and which layer of how many it is.
  made = {}

  def layers(tower, values, pool, where):
    rows = world.embed(tower, values)
    made[tower] = {"one": np.flip(rows, 1) ** 2, "two": rows, "three": np.abs(rows)}
    return made[tower]

  over = config | {"evaluators": {"alignment": {"layers": ("image", "text"), "k": 5, "most": 50}}}
  sets = embed_sets(world.embed, over, lambda name: data, space=space, layers=layers)
  best = run_suite(world.embed, over, None, sets=sets)
  assert sorted(best) == sorted(metric_names(over, lambda name: {}, ways=lambda name: space.ways()))
  table = alignment.over_layers(made["image"], made["text"], 5)
  task = "s/alignment_over_layers_of_image_and_text"
  assert best[f"{task}/mutual_knn"] == table.scores["mutual_knn"].max() and len(made["text"]["two"]) == 50
  assert (best[f"{task}/layer_of_one"], best[f"{task}/layer_of_other"]) == tuple(at + 1 for at in table.best())
  assert best[f"{task}/cka"] == table.scores["cka"][table.best()] and best[f"{task}/layers_of_other"] == 3
  assert best[f"{task}/examples"] == 50
  with pytest.raises(UserError, match="the layers of this model are not known; leave its baselines out"):
    run_suite(world.embed, over, None, sets=embed_sets(world.embed, over, lambda name: data, space=space))
  with pytest.raises(UserError, match=r"alignment.layers: 5 examples at most, and 5 nearest of them"):
    run_suite(world.embed, over | {"evaluators": {"alignment": {"layers": ("image", "text"), "k": 5, "most": 5}}}, None,
              sets=sets)  # fmt: skip
  with pytest.raises(UserError, match="name pairs of nodes to compare"):
    run_suite(world.embed, config | {"evaluators": {"alignment": {}}}, None, sets=sets)


def test_nodes_are_checked_before_any_data():
  space = embed_space()._replace(outputs=lambda node: {"pooled": {"image": 8, "text": 5}[node]})
  config = {"sets": ("s",), "evaluators": {"alignment": {"nodes": ("image", "text")}}}
  check_space(config, space)  # vectors of different lengths have neighbours too
  with pytest.raises(UserError, match=r"alignment.nodes: no such choice 'txt'; did you mean 'text'"):
    check_space(config | {"evaluators": {"alignment": {"nodes": ("image", "txt")}}}, space)
  with pytest.raises(UserError, match=r"alignment.layers: towers: no such choice 'text'; .*image"):
    check_space(
      config | {"evaluators": {"alignment": {"layers": ("image", "text")}}}, space._replace(towers=("image",))
    )
  with pytest.raises(UserError, match=r"alignment.layers: 'image'; give pairs of nodes"):
    run_suite(None, config | {"evaluators": {"alignment": {"layers": "image"}}}, None)
  for name in ("tags_by_text", "robustness"):
    with pytest.raises(UserError, match="this run has no text tower with a head in the joint space"):
      check_space({"sets": ("s",), "evaluators": {name: {}}}, space._replace(joint={"image": ()}))


def embed_space():
  from mmcontrast.evaluation.embed import Space

  return Space(
    joint={"image": ("text",), "text": ("image",)}, probed="image", nodes={"image": ("image",), "text": ("text",)}
  )
