"""Host transforms: noise, decoding, crops, choices."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmcontrast.data import sources, transforms


def encoded(image, form="png", **options):
  buffer = io.BytesIO()
  image.save(buffer, form, **options)
  return buffer.getvalue()


def test_noise_is_uniform_and_a_function_of_its_arguments_only():
  index, epoch = np.arange(4000), np.zeros(4000, int)
  values = transforms.noise(7, index, epoch, 0, 4)
  assert values.shape == (4000, 4) and values.min() >= 0 and values.max() < 1
  assert np.abs(values.mean(0) - 0.5).max() < 0.02 and np.abs(values.var(0) - 1 / 12).max() < 0.005
  assert np.abs(np.corrcoef(values.T) - np.eye(4)).max() < 0.06
  assert (transforms.noise(7, index[99:100], epoch[:1], 0, 4) == values[99]).all()
  for other in [(8, index, epoch, 0), (7, index, epoch + 1, 0), (7, index, epoch, 1)]:
    assert not np.isclose(transforms.noise(*other, 4), values).any(axis=1).mean() > 0.01


def test_decode_lays_transparency_on_white():
  image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
  image.putpixel((1, 1), (255, 0, 0, 255))
  image.putpixel((2, 2), (0, 0, 0, 128))
  out = np.asarray(transforms.decode(encoded(image)))
  assert (out[0, 0] == 255).all() and tuple(out[1, 1]) == (255, 0, 0)
  assert abs(int(out[2, 2, 0]) - 127) <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK", "P"])
def test_decode_gives_rgb_of_any_mode(mode):
  image = Image.new("RGB", (8, 6), (200, 40, 40)).convert(mode)
  for form in ("jpeg", "tiff") if mode != "P" else ("png", "gif"):
    out = transforms.decode(encoded(image, form))
    assert out.mode == "RGB" and out.size == (8, 6)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff broken", b"\x89PNG\r\n\x1a\n"])
def test_decode_says_what_is_no_image(data):
  with pytest.raises(sources.BadRecord, match="image"):
    transforms.decode(data)


def test_truncated_files_are_bad():
  image = Image.effect_noise((64, 64), 80).convert("RGB")
  for form in ("png", "jpeg"):
    data = encoded(image, form)
    with pytest.raises(sources.BadRecord, match="readable"):
      transforms.decode(data[: len(data) // 2])


def ramp(width, height):
  """Red grows with x, green with y, so that a crop's place can be read from its pixels."""
  x, y = np.meshgrid(np.arange(width), np.arange(height))
  return Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8))


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
  assert (out == np.asarray(image)).all()
  zoomed = transforms.random_crop(image, 32, draws, {**whole, "zoom_out": 3.0})
  white = (zoomed == 255).all(-1)
  assert 0.6 < white.mean() < 0.85 and white[0].all() and not white[16, 16]
  turned = transforms.random_crop(image, 32, np.ones(8) * 0.9, {**whole, "rotate": 45.0})
  assert (turned[0, 0] == 255).all() and not (turned[16, 16] == 255).all()


def test_centre_crop_takes_the_middle_square():
  out = transforms.centre_crop(ramp(96, 32), 32)
  assert out[0, 0, 0] == 32 and out[0, -1, 0] == 63 and out[-1, 0, 1] == 31


def test_evaluation_sees_a_share_of_the_middle():
  half = transforms.centre_crop(ramp(96, 32), 16, 0.5)
  assert half[0, 0, 0] == 40 and half[0, -1, 0] == 55
  data = dict(image_size=16, trim=False, centre_crop=0.5)
  assert (transforms.evaluation_view(ramp(96, 32), data) == half).all()
  dot = Image.new("RGB", (90, 90), "white")
  dot.paste((0, 0, 0), (0, 0, 30, 30))
  trimmed = transforms.evaluation_view(dot, {**data, "trim": True})
  assert (trimmed == transforms.centre_crop(transforms.trim(dot), 16, 0.5)).all() and trimmed[8, 8].max() < 128


def test_trim_centres_and_enlarges_within_its_bound():
  image = Image.new("RGB", (100, 100), "white")
  image.paste((0, 0, 0), (10, 20, 80, 60))  # 70 wide
  out = transforms.trim(image)
  dark = np.asarray(out.convert("L")) < 128
  columns, rows = np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))
  assert out.size == (76, 76)
  assert abs(columns[0] - (75 - columns[-1])) <= 1 and abs(rows[0] - (75 - rows[-1])) <= 1
  small = Image.new("RGB", (90, 90), "white")
  small.paste((0, 0, 0), (40, 40, 50, 50))
  assert transforms.trim(small).size == (60, 60)
  blank = Image.new("RGB", (20, 20), "white")
  assert transforms.trim(blank).size == (20, 20)


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
  draws = transforms.noise(0, np.arange(3000), np.zeros(3000, int), 0, 2)
  pairs = [tuple(transforms.choose_distinct("abc", row)) for row in draws]
  counts = [pairs.count(pair) for pair in set(pairs)]
  assert len(counts) == 6 and min(counts) > 400
