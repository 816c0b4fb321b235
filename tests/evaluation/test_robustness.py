"""Corrupted pictures against Pillow's and matplotlib's own arithmetic; tags by their names; both as evaluators."""

import colorsys

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.protocols import corruptions
from mmcontrast.evaluation.protocols.corruptions import CORRUPTIONS, STRENGTHS, corrupted
from mmcontrast.evaluation.suite import check, embed_sets, run_suite
from mmcontrast.evaluation.tagging import mean_average_precision

PIXELS = np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)
PIXELS[0] = 0
PIXELS[1] = 90  # greys


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_stronger_is_further_away_and_the_seed_says_all(name):
  smooth = np.asarray(np.linspace(20, 230, 28)[:, None, None] * np.ones((1, 28, 3)), np.uint8)
  smooth[..., 1] //= 2
  found = [corrupted(smooth, name, strength) for strength in STRENGTHS]
  assert all(one.shape == smooth.shape and one.dtype == np.uint8 for one in found)
  away = [np.abs(one.astype(int) - smooth).mean() for one in found]
  assert away[4] > away[0] > 0 or name == "saturate"  # which first takes colour away, then adds
  np.testing.assert_array_equal(found[2], corrupted(smooth, name, 3))
  if name.endswith("_noise"):
    assert (found[2] != corrupted(smooth, name, 3, seed=1)).any()


@pytest.mark.parametrize(("name", "strength", "of"), [
  ("brightness", 3, lambda h, s, v: (h, s, min(v + 0.3, 1))),
  ("saturate", 1, lambda h, s, v: (h, min(s * 0.3, 1), v)),
  ("saturate", 5, lambda h, s, v: (h, min(s * 20 + 0.2, 1), v)),
])  # fmt: skip
def test_colours_are_those_of_hsv(name, strength, of):
  found = corrupted(PIXELS, name, strength).reshape(-1, 3)
  for pixel, ours in zip(PIXELS.reshape(-1, 3)[::7], found[::7]):
    expected = np.array(colorsys.hsv_to_rgb(*of(*colorsys.rgb_to_hsv(*(pixel / 255))))) * 255
    np.testing.assert_allclose(ours, expected, atol=1.01)  # cut to a byte


def test_amounts_of_noise():
  grey = np.full((200, 200, 3), 128, np.uint8)
  assert np.std(corrupted(grey, "gaussian_noise", 1) / 255) == pytest.approx(0.08, rel=0.05)
  assert np.std(corrupted(grey, "shot_noise", 1) / 255) == pytest.approx((128 / 255 / 60) ** 0.5, rel=0.05)
  assert (corrupted(grey, "impulse_noise", 5) != 128).mean() == pytest.approx(0.27, rel=0.05)
  contrast = corrupted(PIXELS, "contrast", 2).astype(float)
  np.testing.assert_allclose(contrast, (PIXELS - PIXELS.mean((0, 1))) * 0.3 + PIXELS.mean((0, 1)), atol=1.01)


def test_speckles_grow_with_the_brightness():
  found = corrupted(np.full((200, 200, 3), (0, 50, 100), np.uint8), "speckle_noise", 1) / 255
  np.testing.assert_allclose(found.std((0, 1)), 0.15 * np.array([0, 50, 100]) / 255, rtol=0.05, atol=0)


@pytest.mark.parametrize("strength", [1, 5])
def test_out_of_focus_a_point_is_a_disk(strength):
  """At 224 pixels the kernel is the published one; at fewer it is as much smaller, and as heavy."""
  radius, sigma = ((3, 0.1), (10, 0.5))[strength == 5]
  point = np.zeros((224, 224, 3), np.uint8)
  point[112, 112] = 255
  kernel = corruptions._disk(radius, sigma)
  half = len(kernel) // 2
  found = corrupted(point, "defocus_blur", strength)[..., 0]
  expected = np.zeros((224, 224))
  expected[112 - half : 113 + half, 112 - half : 113 + half] = kernel
  np.testing.assert_array_equal(found, (expected * 255).astype(np.uint8))
  across = np.arange(-half, half + 1)
  inside = across[:, None] ** 2 + across**2 <= (radius - 3) ** 2
  np.testing.assert_allclose(kernel[inside], kernel.max(), rtol=1e-6)
  assert (kernel[across[:, None] ** 2 + across**2 > (radius + 3) ** 2] == 0).all()
  small = corruptions._shrunk(kernel, 0.25)
  assert len(small) == 2 * -(-half // 4) + 1 and small.sum() == pytest.approx(1)
  places = np.arange(len(small)) - len(small) // 2
  assert (small.sum(1) * places).sum() == pytest.approx(0, abs=1e-12)
  np.testing.assert_array_equal(corruptions._shrunk(kernel, 1.0), kernel)


def test_glass_takes_pixels_from_near_by_and_zoom_and_fog_keep_their_bounds():
  spots = np.zeros((64, 64, 3), np.uint8)
  spots[::4, ::4] = 255
  glass = corrupted(spots, "glass_blur", 1)
  assert glass.max() > 0 and abs(glass.mean() - spots.mean()) < 4
  edge = np.zeros((64, 64, 3), np.uint8)
  edge[:, 32:] = 255
  assert (corrupted(edge, "glass_blur", 5)[:, :26] == 0).all()  # nothing comes from further away
  flat = np.full((64, 64, 3), 77, np.uint8)
  assert np.abs(corrupted(flat, "zoom_blur", 5).astype(int) - 77).max() <= 1
  heights = corruptions._plasma(64, 2.0, np.random.default_rng(0))
  assert heights.min() == 0 and heights.max() == 1 and np.abs(np.diff(heights, axis=0)).mean() < 0.1
  fog = corrupted(np.stack([flat[..., 0]] * 3, -1), "fog", 1)
  assert fog.max() <= 78 and fog.std() > 3  # heights of 0 to 1, the brightest stays the brightest


def test_unknown_corruptions():
  with pytest.raises(UserError, match="did you mean 'gaussian_noise'"):
    corrupted(PIXELS, "gausian_noise", 1)
  with pytest.raises(UserError, match="strength 6; give 1 to 5"):
    corrupted(PIXELS, "contrast", 6)


def test_as_an_evaluator(world):
  """The world's pictures carry their concept in a pixel: contrast takes it away, and the accuracy with it."""
  config = {
    "sets": ("s",),
    "evaluators": {"robustness": {"label": "group", "corruptions": ("contrast", "pixelate"), "strengths": (1, 5)}},
  }
  data = world.set("s", True)
  found = run_suite(world.embed, config, lambda name: data)
  assert sorted(found) == sorted(metric_names(config, lambda name: data.label_names))
  assert found["s/robustness/group_clean"] > 0.8 > found["s/robustness/group_contrast"]
  both = [found[f"s/robustness/group_{one}"] for one in ("contrast", "pixelate")]
  assert found["s/robustness/group_corrupted"] == pytest.approx(np.mean(both))
  with pytest.raises(UserError, match="did you mean 'contrast'"):
    run_suite(world.embed, config | {"evaluators": {"robustness": {"corruptions": "contrats"}}}, lambda name: data)


def test_tags_by_their_names(world):
  data = world.set("s", True, tag_names=["group 0", "group 1", "group 2", "group 0 "])
  config = {"sets": ("s",), "evaluators": {"tags_by_text": {}, "tagging": {}}}
  check(config)
  sets = embed_sets(world.embed, config, lambda name: data)
  found = run_suite(world.embed, config, None, sets=sets)
  assert sorted(found) == sorted(metric_names(config, lambda name: {}))
  one = sets["s"]
  tested = np.isin(data.split, ("validation", "test"))
  texts = world.embed("text", ["group 0", "group 1", "group 2", "group 0"])
  scores = one.joint("image")[tested] @ (texts / np.linalg.norm(texts, axis=1, keepdims=True)).T
  expected = mean_average_precision(data.tags[tested], scores)
  assert found["s/tags_by_text/map_macro"] == pytest.approx(expected["map_macro"])
  assert found["s/tags_by_text/map_macro"] > 0.6 and found["s/tags_by_text/tags_left_out"] == 1
