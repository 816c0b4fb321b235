"""`mmcontrast segment`: places of images in the joint space, masks that follow the image, the table, what is said."""

import io
import json

import jax
import numpy as np
import pytest
from PIL import Image
from tiny import tiny_inference
from toy_source import Toy

from mmcontrast import segment as room
from mmcontrast.cli import main
from mmcontrast.data.record import BadRecord, Region
from mmcontrast.data.settings import resolve
from mmcontrast.data.transforms import evaluation_parts, evaluation_view
from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation import segmentation
from mmcontrast.inference.maps import image_maps, tower_maps
from mmcontrast.modalities import MODALITIES
from mmcontrast.segment import segment

MODEL = tiny_inference()
DATA = resolve(MODEL.config["data"])
WIDE = dict(left=(200, 0, 0), right=(0, 0, 200))


class Halves(Toy):
  """Images of two colours, each half one of two named regions, under some of the pixels of which nothing is named."""

  def __init__(self, count, **fields):
    super().__init__(count)
    self._fields = fields

  def __getitem__(self, index):
    record = super().__getitem__(index)
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8], pixels[:, 8:] = WIDE["left"], WIDE["right"]
    parts = np.repeat(np.repeat(np.array([[2, 1]], np.uint8), 16, 0), 8, 1)
    parts[:2] = 0
    record["images"] = {name: _png(pixels) for name in ("a", "b")}
    regions = [Region((0.5, 0, 1, 1), ("right",)), Region((0, 0, 0.5, 1), ("left" if index % 2 == 0 else "other",))]
    return record | {"parts": _png(parts), "regions": regions} | self._fields


def _png(pixels):
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "png")
  return buffer.getvalue()


@pytest.fixture(autouse=True)
def toy(monkeypatch):
  sources = {"halves": Halves(6), "plain": Toy(4), "torn": Halves(3, parts=b"no PNG")}
  monkeypatch.setattr(room, "open_source", lambda config, split, data_dir: sources[config["dataset"]])
  monkeypatch.setattr(room, "load", lambda workdir, step, data_dir: MODEL)


def test_places_are_what_the_head_makes_of_each_patch():
  images = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8)
  maps = image_maps(MODEL, images)
  assert maps.shape == (3, 2, 2, 4)
  np.testing.assert_allclose(np.linalg.norm(maps, axis=-1), 1, atol=1e-5)
  inputs = MODALITIES["image"].inputs(images, {**MODEL.config, "data": DATA})
  encode = jax.jit(lambda variables, inputs: MODEL.model.encode(variables, "image", inputs)[0].tokens)
  tokens = np.asarray(encode(MODEL.variables, inputs))
  np.testing.assert_allclose(tower_maps(MODEL, images).reshape(tokens.shape), tokens, atol=1e-5)
  rows = tokens @ MODEL.variables["params"]["heads"]["pictures"]["fc1"]["kernel"]
  np.testing.assert_allclose(maps.reshape(3, 4, 4), rows / np.linalg.norm(rows, axis=-1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("resize", [dict(), dict(mode="shortest"), dict(mode="squash")])
def test_masks_follow_the_image(resize):
  """An image of the numbers, as greys, shows after evaluation's crop what the map says, away from edges."""
  parts = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 16, 0), 16, 1)  # 48 x 64
  data = {**DATA, "image_size": 24, "centre_crop": 0.75, "resize": {**DATA["resize"], **resize}}
  seen = evaluation_view(np.repeat((20 * parts)[..., None], 3, -1), data)[..., 0]
  found = evaluation_parts(parts, data)
  assert found.shape == (24, 24)
  assert np.mean(np.abs(seen.astype(int) - 20 * found.astype(int)) <= 2) > 0.75
  assert set(np.unique(found)) == set(np.unique(seen[np.isin(seen, 20 * np.arange(12))]) // 20)
  with pytest.raises(BadRecord, match=r"data\.trim=True moves images by what they show"):
    evaluation_parts(parts, {**data, "trim": True})


def test_all_ways_are_measured_and_a_perfect_place_is_one(tmp_path, monkeypatch):
  """Patches of the left half are the vector of "left"; nothing of the run is looked at."""
  rows = np.eye(4, dtype=np.float32)
  names = {"right": rows[0], "left": rows[1], "other": rows[2]}
  monkeypatch.setattr(
    room, "class_embeddings", lambda embed, classes, templates: np.stack([names[one] for one in classes])
  )

  def maps(model, images, head):
    out = np.zeros((len(images), 2, 2, 4), np.float32)
    out[:, :, 0], out[:, :, 1] = rows[1], rows[0]
    return out

  monkeypatch.setattr(room, "image_maps", maps)
  monkeypatch.setattr(room, "tower_maps", lambda model, images, head: np.ones((len(images), 2, 2, 3), np.float32))
  options = dict(train_split="train", decoder=True, steps=2, out=tmp_path / "found.json", most=3)
  found = segment("run", "halves", support=2, **options)
  ways = ("names", "names, spliced", "prototypes", "names and prototypes", "score maps, decoded",
          "score maps in context, decoded", "names in context")  # fmt: skip
  assert list(found) == [f"{way}{among}" for way in ways for among in ("", ", in the image")]
  written = json.loads((tmp_path / "found.json").read_text())
  by = written.pop("protocols")
  assert written == found and set(by) == set(found)
  assert by["names"] | {"protocol": "segmentation", "support": 2, "resize": "crop", "templates": 1} == by["names"]
  # Of images 2, 3 and 4 the second has "other" on the left, which these patches never say: 14 rows of 8 pixels each.
  # right 1, left 224 / 336, other 0; where only its own two count, "right" is said there.
  assert found["names"]["miou"] == pytest.approx((1 + 2 / 3 + 0) / 3)
  assert found["names"]["pixel_accuracy"] == pytest.approx(5 / 6) and found["names"]["classes"] == 3


def test_the_command_prints_a_table(capsys):
  assert main(["segment", "halves", "--workdir", "run", "--images", "3"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].split() == ["class", "vectors", "mIoU", "pixels", "classes"] and len(lines) == 6
  assert lines[-1].startswith("by segmentation-v1; ")
  assert main(["segment", "halves", "--workdir", "run", "--images", "3", "--grounding"]) == 0
  grounding, by = capsys.readouterr().out.splitlines()[-2:]
  assert "grounding of 6 names: " in grounding and by.startswith("by segmentation-v1, grounding-v1; ")


@pytest.mark.parametrize(
  "source, options, message",
  [
    ("plain", {}, "toy: no image with masks of named regions can be used: give one whose records have them"),
    ("torn", {}, "toy: no image with masks of named regions can be used .cannot identify image file"),
    ("halves", dict(support=6), "--support 6: the source has 6 images with masks, and none is left to test"),
    ("halves", dict(support=-1), "--support -1: give 0 or more"),
    ("halves", dict(decoder=True), "--decoder: it learns from the masks of the images of --support; give --support 1"),
    ("halves", dict(head="pictres"), "segment: head: no such choice 'pictres'; did you mean 'pictures'"),
    ("halves", dict(templates=("a photo",)), "--template: 'a photo' must hold '{}' once"),
    ("halves", dict(out="found.csv"), "--out found.csv: the results are a .json file; give found.csv.json"),
  ],
)
def test_what_cannot_be_measured_is_one_line(source, options, message):
  with pytest.raises(UserError, match=message):
    segment("run", source, **options)


def test_a_class_without_support_keeps_its_name(capsys):
  found = segment("run", "halves", support=1, most=2)
  assert "1 of 3 classes are not shown by the 1 images of --support" in capsys.readouterr().err
  assert set(found["prototypes"]) == {"miou", "pixel_accuracy", "classes"}
  assert segmentation.NOTHING == -1
