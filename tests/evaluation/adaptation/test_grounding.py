"""Grounding of phrases: the map against its formula, both measures against numbers by hand, what is left out."""

import numpy as np
import pytest

from mmcontrast.evaluation.adaptation import grounding

NOTHING = -1


def test_a_heat_map_is_smoothed_over_patches_as_a_gaussian_of_one_and_a_half():
  """Of a single patch that is like the phrase, at the middle of a large grid: the weights of a Gaussian, both ways."""
  patches = np.zeros((15, 15, 2), np.float32)
  patches[..., 1], patches[7, 7] = 1, (1, 0)
  heat = grounding.heat_map(patches, np.eye(2, dtype=np.float32)[:1], 15)[..., 0]
  line = np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2)
  wanted = np.outer(line, line) / line.sum() ** 2
  np.testing.assert_allclose(heat[1:14, 1:14], wanted, atol=1e-6)
  assert not heat[0].any()  # 4 sigma away it ends


def test_contrast_to_noise_and_boxes():
  mask = np.zeros((6, 6), bool)
  mask[1, 2] = mask[3, 4] = True
  box = grounding.box_of(mask)
  assert box.sum() == 9 and box[1:4, 2:5].all() and not grounding.box_of(np.zeros((3, 3), bool)).any()
  heat = np.where(box, 3.0, 1.0)
  heat[1, 2], heat[0, 0] = 12.0, -8.0
  inside, outside = heat[box], heat[~box]
  assert (inside.mean(), outside.mean()) == (4.0, pytest.approx(2 / 3))
  wanted = (4 - 2 / 3) / np.sqrt(8 + (26 + 64) / 27 - 4 / 9)
  assert grounding.contrast_to_noise(heat, box) == pytest.approx(wanted)
  assert grounding.contrast_to_noise(np.ones((6, 6)), box) == 0


def test_measures_are_means_over_the_names_of_each_image():
  """One image of two halves, one of a name alone, which has no outside, and one of nothing."""
  maps = np.full((3, 16, 16), NOTHING)
  maps[0, :, :8], maps[0, 4:, 8:], maps[1] = 0, 2, 1
  patches = np.zeros((3, 4, 4, 3), np.float32)
  patches[:, :, :2, 0] = patches[:, :, 2:, 1] = 1  # nothing is like the third
  found = grounding.measure(patches, np.eye(3, dtype=np.float32), maps, NOTHING)
  assert found["phrases"] == 2 and found["pointing"] == 0.5  # the first place of a map of zeros is not in the other box
  assert found["pointing_by_chance"] == pytest.approx((0.5 + 0.375) / 2)
  assert found["contrast_to_noise"] > 0.5
  none = grounding.measure(patches[2:], np.eye(3, dtype=np.float32), maps[2:], NOTHING)
  assert none == {"pointing": 0.0, "contrast_to_noise": 0.0, "pointing_by_chance": 0.0, "phrases": 0.0}
