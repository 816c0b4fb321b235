"""Host transforms: noise, crops, choices."""

import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import datasets

from mmcontrast.data import noise, sources, transforms
from mmcontrast.data.images import decode


def test_noise_is_uniform_and_a_function_of_its_arguments_only():
  index, epoch = np.arange(4000), np.zeros(4000, int)
  values = noise.uniform(7, index, epoch, 0, 4)
  assert values.shape == (4000, 4) and values.min() >= 0 and values.max() < 1
  assert np.abs(values.mean(0) - 0.5).max() < 0.02 and np.abs(values.var(0) - 1 / 12).max() < 0.005
  assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.06
  assert (noise.uniform(7, index[99:100], epoch[:1], 0, 4) == values[99]).all()
  for other in [(8, index, epoch, 0), (7, index, epoch + 1, 0), (7, index, epoch, 1)]:
    assert not np.isclose(noise.uniform(*other, 4), values).any(axis=1).mean() > 0.01


def ramp(width, height):
  """Red grows with x, green with y, so that a crop's place can be read from its pixels."""
  x, y = np.meshgrid(np.arange(width), np.arange(height))
  return np.stack([x, y, 0 * x], -1).astype(np.uint8)


SIDES = st.integers(8, 90)


@given(st.lists(st.floats(0, 0.999), min_size=8, max_size=8), SIDES, SIDES)
def test_random_crop_stays_in_the_image_and_has_the_area(draws, width, height):
  crop = {**transforms.CROP, "scale": (0.3, 0.6)}
  out = transforms.random_crop(ramp(width, height), 16, np.array(draws), crop).astype(float)
  assert out.shape == (16, 16, 3)
  assert out[..., 0].max() < width and out[..., 1].max() < height and (out[..., 2] == 0).all()
  if width == height >= 40:  # where no side was cut to fit, the share of the area is as drawn
    spans = [np.ptp(out[..., channel]) * 16 / 15 for channel in (0, 1)]
    share = spans[0] * spans[1] / (width * height)
    assert share == pytest.approx(0.3 + 0.3 * draws[0], rel=0.25)


def test_whole_image_crop_is_a_plain_resize_and_options_add_white():
  image, draws = ramp(32, 32), np.full(8, 0.5)
  whole = {**transforms.CROP, "scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
  out = transforms.random_crop(image, 32, draws, whole)
  assert (out == image).all()
  zoomed = transforms.random_crop(image, 32, draws, {**whole, "zoom_out": 3.0})
  white = (zoomed == 255).all(-1)
  assert 0.6 < white.mean() < 0.85 and white[0].all() and not white[16, 16]
  turned = transforms.random_crop(image, 32, np.ones(8) * 0.9, {**whole, "rotate": 45.0})
  assert (turned[0, 0] == 255).all() and not (turned[16, 16] == 255).all()


def test_centre_crop_takes_the_middle_square():
  out = transforms.centre_crop(ramp(96, 32), 32)
  assert out[0, 0, 0] == 32 and out[0, -1, 0] == 63 and out[-1, 0, 1] == 31


@pytest.mark.parametrize("photo", ["china", "flower"])
def test_photographs_are_resized_as_by_other_packages(photo):
  pixels = decode((pathlib.Path(datasets.__file__).parent / "images" / f"{photo}.jpg").read_bytes())
  pixels = pixels[:401, 3:270] if photo == "flower" else pixels
  with np.load(pathlib.Path(__file__).parents[1] / "golden" / "preprocessing.npz") as golden:
    cases = {name: golden[name] for name in golden if name.startswith(photo)}
  assert len(cases) == 6
  for name, theirs in cases.items():
    _, mode, interpolation, share = name.split()
    above, _, below = share.partition("/")
    ours = transforms.resize_and_crop(pixels, 32, float(above) / float(below or 1), mode, interpolation)
    np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_evaluation_resizes_as_it_is_told():
  image, resize = ramp(60, 45), dict(mode="squash", interpolation="bicubic")
  data = dict(image_size=15, trim=False, centre_crop=1.0, resize=resize)
  squashed = transforms.evaluation_view(image, data)
  assert squashed[7, 0, 0] < 4 and squashed[7, -1, 0] > 55  # the whole width is there
  shortest = transforms.evaluation_view(image, {**data, "resize": {**resize, "mode": "shortest"}})
  assert 6 < shortest[7, 0, 0] < 12 and 48 < shortest[7, -1, 0] < 54
  closer = transforms.evaluation_view(image, {**data, "resize": {**resize, "mode": "shortest"}, "centre_crop": 0.5})
  assert closer.shape == (15, 15, 3) and 17 < closer[7, 0, 0] < 22
  with pytest.raises(sources.BadRecord, match="too thin"):
    transforms.evaluation_view(
      np.zeros((1, 100_000, 3), np.uint8), {**data, "image_size": 224, "resize": {**resize, "mode": "shortest"}}
    )


def test_evaluation_sees_a_share_of_the_middle():
  half = transforms.centre_crop(ramp(96, 32), 16, 0.5)
  assert half[0, 0, 0] == 40 and half[0, -1, 0] == 55
  data = dict(image_size=16, trim=False, centre_crop=0.5, resize=dict(mode="crop", interpolation="bilinear"))
  assert (transforms.evaluation_view(ramp(96, 32), data) == half).all()
  dot = np.full((90, 90, 3), 255, np.uint8)
  dot[:30, :30] = 0
  trimmed = transforms.evaluation_view(dot, {**data, "trim": True})
  assert (trimmed == transforms.centre_crop(transforms.trim(dot), 16, 0.5)).all() and trimmed[8, 8].max() < 128


def test_trim_centres_and_enlarges_within_its_bound():
  image = np.full((100, 100, 3), 255, np.uint8)
  image[20:60, 10:80] = 0  # 70 wide
  out = transforms.trim(image)
  dark = out[..., 0] < 128
  columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
  assert out.shape == (76, 76, 3)
  assert abs(columns[0] - (75 - columns[-1])) <= 1 and abs(rows[0] - (75 - rows[-1])) <= 1
  small = np.full((90, 90, 3), 255, np.uint8)
  small[40:50, 40:50] = 0
  assert transforms.trim(small).shape == (60, 60, 3)
  blank = np.full((20, 20, 3), 255, np.uint8)
  assert transforms.trim(blank).shape == (20, 20, 3)


def test_thin_images_are_cropped_but_not_made_a_huge_square():
  line = np.full((1, 10_000, 3), 7, np.uint8)
  assert (transforms.random_crop(line, 16, np.full(8, 0.5), transforms.CROP) == 7).all()
  assert (transforms.centre_crop(line.swapaxes(0, 1), 16) == 7).all()
  with pytest.raises(sources.BadRecord, match="10000 x 1 pixels, too long"):
    transforms.trim(line)


def test_captions_that_say_nothing():
  given = {"alt": ["", "a dog", "  "], "long": [" "]}
  assert transforms.usable_captions(given) == {"alt": ["a dog"]}
  with pytest.raises(sources.BadRecord, match="empty caption"):
    transforms.usable_captions({"alt": ["", " \n"]})
  for nothing in ({}, {"alt": []}):
    with pytest.raises(sources.BadRecord, match="no caption"):
      transforms.usable_captions(nothing)


@given(st.integers(1, 6), st.lists(st.floats(0, 0.999), min_size=1, max_size=5))
def test_choices_are_distinct_as_far_as_they_go(count, draws):
  chosen = transforms.choose_distinct(range(count), np.array(draws))
  assert len(chosen) == len(draws)
  assert len(set(chosen)) == min(count, len(draws))


def test_choices_are_even():
  draws = noise.uniform(0, np.arange(3000), np.zeros(3000, int), 0, 2)
  pairs = [tuple(transforms.choose_distinct("abc", row)) for row in draws]
  counts = [pairs.count(pair) for pair in set(pairs)]
  assert len(counts) == 6 and min(counts) > 400
