"""Corrupted pictures against Pillow's and matplotlib's own arithmetic; tags by their names; both as evaluators."""

import colorsys

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.metric_names import metric_names
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
