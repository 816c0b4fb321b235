"""Images that keep their ratio: their grids, their patches, batches of views, and every wrong setting in one line."""

import math

import numpy as np
import pytest

from mmcontrast.data import image_views, native
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.things import _Column
from mmcontrast.errors import UserError
from mmcontrast.evaluation import baselines
from mmcontrast.evaluation.adaptation.properties import CHANGES, changed
from mmcontrast.evaluation.matches import groups
from mmcontrast.evaluation.protocols.corruptions import CORRUPTIONS, corrupted
from mmcontrast.modalities import MODALITIES

IMAGE = MODALITIES["image"]


def settings(**changes):
  return resolve({"views": {"image": 1}, **changes})


@pytest.mark.parametrize("height, width, most", [(100, 100, 16), (480, 640, 256), (17, 900, 64), (3, 5, 20), (1, 7, 7)])
def test_a_grid_is_the_largest_that_the_budget_holds(height, width, most):
  rows, columns = native.grid_of(height, width, 16, most)
  assert rows * columns <= most
  # The next scale at which either side takes one more patch is over the budget.
  scale = min(rows * 16 / height, columns * 16 / width) * (1 + 1e-4)
  assert math.ceil(height * scale / 16) * math.ceil(width * scale / 16) > most or scale > 100
  assert native.grid_of(width, height, 16, most) == (columns, rows)


@pytest.mark.parametrize("most", [128, 256, 576, 1024])
def test_little_of_a_row_is_padding(most):
  """Images of ratios from 1:3 to 3:1: less than a tenth."""
  ratios = np.exp(np.linspace(-np.log(3), np.log(3), 101))
  filled = [math.prod(native.grid_of(480, 480 * ratio, 16, most)) / most for ratio in ratios]
  assert 0.9 < np.mean(filled) <= 1


def test_patches_are_cut_row_after_row():
  picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
  into = np.zeros((8, 12), np.uint8)
  assert native.cut(picture, into) == (2, 3)
  for row in range(2):
    for column in range(3):
      patch = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
      assert into[3 * row + column].tolist() == patch.reshape(-1).tolist()
  assert not into[6:].any()


def test_views_of_an_image_keep_its_ratio_and_are_those_of_evaluation_when_all_is_seen():
  pixels = np.random.default_rng(0).integers(0, 256, (30, 70, 3)).astype(np.uint8)
  of = settings(native={"patch": 4, "patches": (9, 24)}, crop={"scale": (1, 1), "ratio": None})
  schema = IMAGE.arrays(of)
  assert schema == {"image": ((1, 24, 48), np.uint8), "image_grid": ((1, 2), np.int32)}
  into = {name: np.zeros(shape, dtype) for name, (shape, dtype) in schema.items()}
  image_views.draw({"one": pixels}, of, np.zeros(1), np.full((1, 8), 0.5), into)
  assert into["image_grid"].tolist() == [[3, 7]] and not into["image"][0, 21:].any()
  shown = IMAGE.batch([native.resized(pixels, 4, 24, "bilinear")], of, None)
  assert shown["image_grid"].tolist() == [[3, 7]]
  assert np.abs(shown["image"].astype(int) - into["image"]).max() <= 2  # two libraries round


def test_things_of_one_shape_are_an_array_and_others_a_list():
  column, pictures = _Column(2), [np.zeros((2, 2, 3)), np.ones((2, 2, 3)), np.ones((4, 2, 3)), np.zeros((2, 2, 3))]
  for number, picture in enumerate(pictures):
    column.add(picture, number, number)
    values = column.things().values
    assert isinstance(values, np.ndarray) == (number < 2)
    assert all(np.array_equal(a, b) for a, b in zip(values, pictures, strict=False)) and len(values) == number + 1


def test_what_reads_pictures_in_evaluation_takes_them_at_their_ratio():
  """Baselines of pixels, corruptions and changes of properties: of a list of pictures as of an array."""
  draw = np.random.default_rng(0)
  values = [draw.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((16, 32), (48, 16), (16, 32))]
  rows = baselines.pixels("image_features", values)
  assert rows.shape == (3, 16 * 16 * 3) and 0 <= rows.min() <= rows.max() <= 1 and len(np.unique(rows, axis=0)) == 3
  plain = [np.zeros((16, 32, 3), np.uint8), np.zeros((32, 16, 3), np.uint8), np.zeros((16, 32, 3), np.uint8)]
  assert len(set(groups(plain).tolist())) == 2
  for name in CORRUPTIONS:
    assert [corrupted(one, name, 3).shape for one in values] == [one.shape for one in values], name
  assert [one.shape for one in changed(values, next(iter(CHANGES)))] == [one.shape for one in values]


def test_an_image_too_long_for_a_row_of_patches_is_a_bad_record():
  with pytest.raises(BadRecord, match=r"image of 900 x 3 pixels, whose ratio a row of 256 patches .* does not hold"):
    native.grid_of(3, 900, 16, 256)


@pytest.mark.parametrize("change, message", [
  ({"native": {"patches": 256}}, r"data\.native\.patches: 256 is no list; write \(256,\)"),
  ({"native": {"patches": (256, 128)}}, r"the smallest first, such as \(128, 256, 576\)"),
  ({"native": {"patches": (0,)}}, r"is no list of different numbers"),
  ({"native": {"patches": (64, 256), "tokens": 100}}, r"tokens: a batch of 100 patches does not hold an image of 256; "
                                                      r"set it to 2048, which holds 8"),
  ({"native": {"patches": (64, 256), "tokens": 1000}}, r"holds 3 images of 256, and data\.native\.multiple=8"),
  ({"native": {"patches": (64,)}, "multi_crop": {"views": 2}}, r"data\.multi_crop\.views: small crops are of squares"),
  ({"native": {"patches": (64,)}, "masked": {"views": 1}}, r"data\.masked\.views: hidden patches are of squares"),
  ({"native": {"patches": (64,)}, "centre_crop": 0.9}, r"data\.centre_crop: 0\.9, and images that keep their ratio"),
  ({"native": {"patch": 0}}, r"data\.native\.patch: 0; give a whole number, at least 1"),
], ids=str)  # fmt: skip
def test_wrong_settings_are_one_line(change, message):
  with pytest.raises(UserError, match=message) as error:
    settings(**change)
  assert "\n" not in str(error.value)


def test_towers_and_recipes_that_take_squares_are_refused():
  of = settings(native={"patch": 8, "patches": (16,)})
  with pytest.raises(UserError, match=r"towers\.image is a 'resnet18', which takes squares; use name='vit'"):
    IMAGE.check_tower({"name": "resnet18"}, of, None, "config.towers.image")
  with pytest.raises(UserError, match=r"towers\.image\.patch: 16, and config\.data\.native\.patch=8 cuts images into"):
    IMAGE.check_tower({"name": "vit"}, of, None, "config.towers.image")
  IMAGE.check_tower({"name": "vit_small", "patch": 8}, of, None, "config.towers.image")
  config = {"data": of, "augment": {"image": "flip"}, "normalize": {"mean": (0,) * 3, "std": (1,) * 3}}
  with pytest.raises(UserError, match=r"config\.augment\.image: 'flip' is of squares, .* set it to 'none'"):
    IMAGE.preparation(config)


def test_a_budget_of_tokens_makes_batches_of_larger_images_smaller():
  of = settings(native={"patches": (64, 256, 576), "tokens": 64 * 512})
  assert native.batch_sizes(of, 512) == (512, 128, 56)
  assert native.batch_sizes(of, 96) == (96, 96, 56)
  assert native.batch_sizes(settings(native={"patches": (64, 256)}), 40) == (40, 40)
  message = r"config\.batch\.size: 1024, and data\.native\.tokens=32768 holds 512 images of 64 patches; set it to 512"
  with pytest.raises(UserError, match=message):
    native.batch_sizes(of, 1024)
  native.check_parts((512, 128, 56), 4, 2)
  with pytest.raises(
    UserError, match=r"multiple: a batch of 56 examples does not divide over 8 devices and 2 micro.*16"
  ):
    native.check_parts((512, 128, 56), 8, 2)
