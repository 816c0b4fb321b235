"""Grounding of phrases: whether the places of an image that are most like a phrase lie in the box of what it names.

BioViL's way (Boecking et al., arXiv:2204.09817; microsoft/hi-ml@b67c1d27, hi-ml-multimodal): cosines of patches and
phrase, a Gaussian of 1.5 patches over them, made as large as the image (here linear between the middles of patches).
Of each phrase of an image by itself:

    contrast_to_noise   |mean inside - mean outside| / sqrt(variance inside + variance outside), of the box
    pointing            whether the largest lies in the box (the pointing game: Zhang et al., arXiv:1608.00507)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

from mmcontrast.evaluation.adaptation.segmentation import resized, score_maps

SIGMA = 1.5  # patches


def heat_map(patches: np.ndarray, phrases: np.ndarray, size: int) -> np.ndarray:
  """float [size, size, K]: how much each place of one image is like each phrase, by unit rows of its patches [rows,
  columns, D] and of the phrases [K, D]."""
  smooth = ndimage.gaussian_filter(score_maps(patches, phrases), (SIGMA, SIGMA, 0))
  return resized(smooth, size)


def box_of(mask: np.ndarray) -> np.ndarray:
  """bool [S, S]: the box round what a mask [S, S] shows."""
  box = np.zeros(mask.shape, bool)
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  if len(rows):
    box[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
  return box


def contrast_to_noise(heat: np.ndarray, box: np.ndarray) -> float:
  """Of one phrase, heat [S, S] and box bool [S, S]; 0 for a map that is the same everywhere."""
  inside, outside = heat[box], heat[~box]
  noise = np.sqrt(inside.var() + outside.var())
  return float(abs(inside.mean() - outside.mean()) / noise) if noise > 0 else 0.0


def measure(patches: np.ndarray, phrases: np.ndarray, maps: np.ndarray, nothing: int) -> dict[str, float]:
  """Means over the phrases of all images, and how many they are.

  Args:
    patches: unit rows [N, rows, columns, D]. phrases: unit rows [K, D].
    maps: int [N, S, S], which phrase names what a pixel shows; `nothing`: none does.
  Returns:
    "pointing" and "contrast_to_noise"; "pointing_by_chance", the mean share of the image that a box is; "phrases". A
    box that is all of the image is left out.
  """
  found = np.array(list(_each(patches, phrases, maps, nothing)), np.float64).reshape(-1, 3)
  means = found.mean(0) if len(found) else np.zeros(3)
  names = ("pointing", "contrast_to_noise", "pointing_by_chance")
  return {**{name: float(mean) for name, mean in zip(names, means)}, "phrases": float(len(found))}


def _each(patches: np.ndarray, phrases: np.ndarray, maps: np.ndarray, nothing: int) -> Iterator[tuple]:
  for of_image, truth in zip(patches, maps):
    shown = np.setdiff1d(truth, [nothing])
    heat = heat_map(of_image, phrases[shown], truth.shape[-1])
    for number, phrase in enumerate(shown):
      one, box = heat[..., number], box_of(truth == phrase)
      if not box.all():
        yield box.flat[one.argmax()], contrast_to_noise(one, box), box.mean()
