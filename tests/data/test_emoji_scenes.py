"""Composed scenes: boxes and masks are those of what is seen, and the same numbers make the same scene."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmcontrast.data import build
from mmcontrast.data.datasets import emoji_scenes, emoji_views
from mmcontrast.data.datasets.emoji_scenes import SEEN, SIZE, compose
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError


def discs(count):
  """RGBA drawings of discs, each of its own grey."""
  made = []
  for number in range(count):
    disc = Image.new("RGBA", (40, 40))
    ImageDraw.Draw(disc).ellipse((2, 2, 37, 37), fill=(10 * number + 5,) * 3 + (255,))
    made.append(disc)
  return made


@pytest.mark.parametrize("count", [4, 9])
def test_boxes_are_of_what_is_seen(count):
  for seed in range(5):
    scene = compose(discs(count), np.random.default_rng(seed))
    assert sorted(np.unique(scene.masks)) == list(range(count + 1))
    for number, (x0, y0, x1, y1) in enumerate(scene.boxes, start=1):
      rows, columns = np.nonzero(scene.masks == number)
      assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
      assert 0 <= x0 < x1 <= SIZE and 0 <= y0 < y1 <= SIZE
      inner = scene.masks == number
      assert np.mean(np.abs(scene.picture[inner].astype(int) - (10 * number - 5)) < 5) > 0.8
      assert inner.sum() > SEEN * 0.7 * np.pi / 4 * (x1 - x0) * (y1 - y0) * 0.7
    again = compose(discs(count), np.random.default_rng(seed))
    assert all(np.array_equal(a, b) for a, b in zip(scene, again))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  folder = tmp_path_factory.mktemp("scenes")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(emoji_scenes, "SCENES", {"train": 3, "validation": 1, "test": 1})
    patch.setattr(emoji_views, "train_tokenizer", lambda: b"")
    build.build_dataset("emoji_scenes", folder)
  return folder


def test_a_scene_is_read_with_its_regions(built):
  source = open_source(dict(dataset="emoji_scenes"), "all", built)
  assert len(source) == 5 and source.info.regions
  for record in (source[index] for index in range(5)):
    found = record["regions"]
    assert emoji_scenes.LEAST <= len(found) <= emoji_scenes.MOST
    assert len(found) == int(source.info.label_names["count"][record["labels"]["count"]])
    caption = record["captions"]["caption"][0]
    assert all(region.texts[0] in caption for region in found) and record["tags"].any()
    assert Image.open(io.BytesIO(record["images"]["image"])).size == (SIZE, SIZE)
    assert all(0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1 for (x0, y0, x1, y1), _ in found)
  assert "composed" in (built / "emoji_scenes" / "ATTRIBUTION.md").read_text()


def test_it_takes_no_options(built):
  with pytest.raises(UserError, match=r"emoji_scenes takes no path and no data\.source"):
    open_source(dict(dataset="emoji_scenes", source=dict(image="x")), "train", built)
