"""True captions among edits, properties of images, attributes in captions: formulas, ties, what is said."""

import colorsys
import json

import numpy as np
import pytest
from PIL import Image

from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation import attribute_insertion, counterfactual, properties
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.suite import check, run_suite


def config(**evaluators):
  return {"sets": ("s",), "features": "image", "evaluators": evaluators}


@pytest.fixture
def edits(tmp_path):
  path = tmp_path / "edits.jsonl"

  def write(*rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)

  return write


def test_a_tie_counts_against_the_true_caption():
  assert counterfactual.rank_of_first(np.array([0.5, 0.5, 0.1])) == 2
  assert counterfactual.rank_of_first(np.zeros(6)) == 6  # a model that tells nothing
  assert counterfactual.rank_of_first(np.array([0.9, 0.5, 0.95, 0.1])) == 2
  assert counterfactual.summary([1, 2, 6, 1]) == {
    "recall@1": 0.5, "recall@3": 0.75, "mean_rank": 2.5, "median_rank": 1.5, "queries": 4
  }  # fmt: skip


def test_true_captions_are_ranked_among_their_edits(world, edits):
  rows = [
    {"id": 3, "texts": ["concept 3", "concept 4", "concept 5"]},
    {"id": 7, "texts": ["concept 8", "concept 7", "concept 9", "concept 10"]},  # the "true" one is wrong
    {"id": 999, "texts": ["concept 1", "concept 2"]},
  ]
  world.noise = 0
  data = {"s": world.set("s", True)}
  options = config(counterfactual=dict(file=edits(*rows)))
  found = run_suite(world.embed, options, data.__getitem__)
  unit = world.concepts / np.linalg.norm(world.concepts, axis=1, keepdims=True)
  rank = 1 + sum(unit[other] @ unit[7] >= unit[8] @ unit[7] for other in (7, 9, 10))
  assert found["s/counterfactual/recall@1"] == 0.5 and found["s/counterfactual/mean_rank"] == (1 + rank) / 2
  assert sorted(metric_names(options, lambda name: {})) == sorted(found)


@pytest.mark.parametrize(
  "rows, message",
  [
    ((), "is empty; each line is an id and its texts"),
    (({"id": 3, "texts": ["one"]},), "line 1: needs an id and two texts or more"),
    (({"id": 3, "texts": ["a", "b"]}, "{"), "line 2: needs an id and two texts or more"),
    (({"name": "x", "texts": ["a", "b"]},), "line 1: needs an id and two texts or more"),
    (({"id": 3, "texts": "ab"},), "line 1: needs an id and two texts or more"),
    (({"id": 3, "texts": ["a", 7]},), "line 1: needs an id and two texts or more"),
    (({"id": 3, "texts": ["a", "b"]}, {"id": 3, "texts": ["a", "c"]}), "line 2: id 3 stands in an earlier line too"),
  ],
)
def test_a_file_that_holds_no_edits_stops_before_anything(edits, rows, message):
  with pytest.raises(UserError, match=message):
    check(config(counterfactual=dict(file=edits(*rows))))


def test_no_file_and_no_thing_of_it_are_said(world, edits):
  with pytest.raises(UserError, match=r"counterfactual.file: name a file"):
    check(config(counterfactual={}))
  with pytest.raises(UserError, match=r"counterfactual.file: /none.jsonl cannot be read \(No such file"):
    check(config(counterfactual=dict(file="/none.jsonl")))
  path = edits({"id": 999, "texts": ["concept 1", "concept 2"]})
  with pytest.raises(UserError, match="none of its ids is of a thing of 's'"):
    run_suite(world.embed, config(counterfactual=dict(file=path)), {"s": world.set("s", True)}.__getitem__)


def test_hue_is_turned_and_the_rest_of_a_colour_stays():
  pixels = np.random.default_rng(0).integers(60, 200, (4, 5, 3)).astype(np.uint8)
  found = np.asarray(properties.turned(Image.fromarray(pixels)))
  before, after = (np.array([colorsys.rgb_to_hsv(*rgb) for rgb in x.reshape(-1, 3) / 255]) for x in (pixels, found))
  turn = (after[:, 0] - before[:, 0]) % 1
  strong = before[:, 1] > 0.3
  np.testing.assert_allclose(turn[strong], 25 / 256, atol=0.02)
  np.testing.assert_allclose(after[:, 1:], before[:, 1:], atol=0.03)


def test_every_change_changes_what_it_says():
  pixels = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
  made = {name: properties.changed(pixels, name) for name in properties.CHANGES}
  assert all(one.shape == pixels.shape and (one != pixels).any() for one in made.values())
  spread = lambda x: float(x.astype(float).std())  # noqa: E731
  assert spread(made["contrast"]) == pytest.approx(0.45 * spread(pixels), rel=0.05)
  assert made["brightness"].mean() == pytest.approx(0.8 * pixels.mean(), rel=0.02)
  assert sorted(made["shape"].reshape(-1, 3).tolist()) == sorted(pixels.reshape(-1, 3).tolist())  # only moved
  assert spread(made["texture"]) < 0.6 * spread(pixels)


def test_falls_are_weighed_by_the_score_before():
  assert properties.weighed_fall(np.array([0.9, 0.1]), np.array([0.6, 0.1])) == pytest.approx(0.27)
  assert properties.weighed_fall(np.array([-0.5, -0.1]), np.array([-0.7, -0.1])) == pytest.approx(0.1)


def test_a_model_that_sees_only_hue_falls_by_hue(world):
  """Images are red, blue, ..., a colour a concept; the model knows hue, whatever else is done."""
  hues = np.arange(8) / 8
  colours = np.array([colorsys.hsv_to_rgb(hue, 0.8, 0.8) for hue in hues])
  images = np.broadcast_to((255 * colours)[:, None, None], (8, 6, 6, 3)).astype(np.uint8)

  def embed(kind, values):
    angles = [2 * np.pi * hues[int(text.split()[-1])] for text in values] if kind == "text" else [
      2 * np.pi * colorsys.rgb_to_hsv(*(image[0, 0] / 255))[0] for image in values
    ]  # fmt: skip
    return np.stack([np.cos(angles), np.sin(angles)], 1)

  captions = [f"colour {one}" for one in range(8)]
  data = world.set("s", True, range(8), images=images, captions=captions, caption_id=np.arange(8))
  found = run_suite(embed, config(properties={}), {"s": data}.__getitem__)
  assert found["s/properties/original_recall@1"] == 1
  assert found["s/properties/hue_fall"] == pytest.approx(1 - np.cos(2 * np.pi * 25 / 256), abs=0.02)
  assert found["s/properties/hue_recall@1"] < 1
  for name in ("brightness", "saturation", "shape"):
    assert abs(found[f"s/properties/{name}_fall"]) < 0.01
  assert sorted(metric_names(config(properties={}), lambda name: {})) == sorted(found)
  with pytest.raises(UserError, match=r"properties\.changes: no such choice 'hues'; did you mean 'hue'"):
    run_suite(embed, config(properties=dict(changes=("hues",))), {"s": data}.__getitem__)


def test_the_colour_of_the_ink_is_put_before_the_last_word():
  pixels = np.full((10, 10, 3), 255, np.uint8)
  assert attribute_insertion.main_colour(pixels) == "white"
  pixels[2:8, 2:8] = (215, 45, 40)
  pixels[4, 4] = (0, 0, 0)
  assert attribute_insertion.main_colour(pixels) == "red"
  assert attribute_insertion.inserted("beating heart", "red") == "beating red heart"
  assert (
    attribute_insertion.inserted("Red heart", "red") == "Red heart" and attribute_insertion.inserted("", "red") == ""
  )
  assert set(attribute_insertion.OPPOSITE) == set(attribute_insertion.COLOURS)
  assert all(attribute_insertion.OPPOSITE[one] != one for one in attribute_insertion.COLOURS)


def test_true_colours_help_a_model_that_reads_them_and_wrong_ones_harm(world):
  """Two concepts a shape, told apart by colour alone; "thing 3" says the shape, and only a colour word the rest."""
  shapes, names = np.arange(12) // 2, ["red", "blue"]
  images = np.full((12, 6, 6, 3), 255, np.uint8)
  for number in range(12):
    images[number, 1:5, 1:5] = attribute_insertion.COLOURS[names[number % 2]]
    images[number, 0, 0] = number

  def embed(kind, values):
    rows = np.zeros((len(values), 8))
    for row, value in zip(rows, values):
      if kind == "text":
        words = value.split()
        row[int(words[-1])], row[6], row[7] = 1, 0.5 * ("red" in words), 0.5 * bool({"blue", "green"} & set(words))
        row[7] -= 0.5 * ("orange" in words)
      else:
        row[shapes[value[0, 0, 0]]], row[6 + value[0, 0, 0] % 2] = 1, 0.5
    return rows

  data = world.set(
    "s",
    True,
    range(12),
    images=images,
    captions=[f"{('a', 'the')[at % 2]} thing {one}" for at, one in enumerate(shapes)],
    caption_id=np.arange(12),
  )
  found = run_suite(embed, config(attribute_insertion={}), {"s": data}.__getitem__)
  found = {name.removeprefix("s/attribute_insertion/"): value for name, value in found.items()}
  assert found["true_recall@1"] == 1 and found["wrong_recall@1"] < found["true_recall@1"]
  assert found["true_change"] == pytest.approx(1 - found["recall@1"]) and found["queries"] == 12
  names = metric_names(config(attribute_insertion={}), lambda name: {})
  assert sorted(names) == sorted(f"s/attribute_insertion/{name}" for name in found)
