"""What of an image makes it match: how much a score falls when one property changes (Nauta et al., arXiv:2011.02863).

    fall = g(x) - g(x')        g: the cosine of an image and its nearest right caption; x': the image with one property
                               changed; the caption stays the one that was nearest to x

and over images their mean, weighed by g(x). Changes and their strengths are those of the authors' code: contrast 0.45,
saturation 0.7, brightness 0.8, a hue turned by 0.1, rows and columns rolled along a sine ("shape"), noise and texture
smoothed away ("texture"). ProtoExplain-style: theirs is of a prototype's place in a patch of the image, ours of a
whole image and a text; a median filter stands in for their non-local means, and the sine is scaled with the image, and
moves by one pixel at least.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from mmcontrast.data.things import taken_at
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import cosines, row_chunks, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.matches import Matches
from mmcontrast.evaluation.retrieval import ranks
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.modalities import stacked

WHERE = "properties"
_SIDE, _AMPLITUDE, _WAVES = 224, 4, 0.05  # pixels, pixels, half waves a pixel


def turned(image: Image.Image, turn: float = 0.1) -> Image.Image:
  """The image with its hue shifted by a share of the circle, as torchvision does of a Pillow image."""
  hue, saturation, value = image.convert("HSV").split()
  shifted = (np.asarray(hue).astype(np.int64) + int(turn * 255)) % 256
  return Image.merge("HSV", (Image.fromarray(shifted.astype(np.uint8)), saturation, value)).convert("RGB")


def rolled(pixels: np.ndarray) -> np.ndarray:
  """uint8 [H, W, 3]: each row rolled along a sine, then each column."""
  side = max(pixels.shape[:2])
  amplitude, waves = max(1.0, _AMPLITUDE * side / _SIDE), _WAVES * _SIDE / side
  shift = lambda at: round(amplitude * math.sin(math.pi * at * waves))  # noqa: E731
  rows = np.stack([np.roll(row, shift(at), axis=0) for at, row in enumerate(pixels)])
  return np.stack([np.roll(rows[:, at], shift(at), axis=0) for at in range(rows.shape[1])], axis=1)


CHANGES: Mapping[str, Callable[[Image.Image], Image.Image]] = {
  "contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.45),
  "saturation": lambda image: ImageEnhance.Color(image).enhance(0.7),
  "brightness": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
  "hue": turned,
  "shape": lambda image: Image.fromarray(rolled(np.asarray(image))),
  "texture": lambda image: image.filter(ImageFilter.MedianFilter(5)),
}


def changed(images: Sequence[np.ndarray], name: str) -> Any:
  """Images uint8 [H, W, 3] with one property changed; an array where all are of one shape."""
  return stacked([np.asarray(CHANGES[name](Image.fromarray(one))) for one in images])


def nearest_right(images: np.ndarray, texts: np.ndarray, matches: Matches, which: np.ndarray) -> np.ndarray:
  """int [A]: of the images `which` of unit rows [N, D] the place of the nearest caption that is right, of unit rows
  [C, D]."""
  out = np.empty(len(which), np.int64)
  for rows in row_chunks(len(which), len(texts)):
    scores = images[which[rows]] @ texts.T
    out[rows] = np.where(matches.dense(which[rows]), scores, -np.inf).argmax(1)
  return out


def weighed_fall(before: np.ndarray, after: np.ndarray) -> float:
  """The mean of before - after, float [A], weighed by `before` where that is above 0; plain where none is."""
  weight = np.maximum(before, 0)
  return float(np.average(before - after, weights=weight if weight.any() else None))


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  changes: Sequence[str] = tuple(CHANGES),
  most: int = 1000,
) -> dict[str, dict[str, float]]:
  """How much the score of an image and its caption falls, and how often the caption is still found among all of the
  set: "properties/hue_fall", "properties/hue_recall@1", and of images as they are "properties/original_recall@1".

  `bank` is not used.

  Args:
    changes: which properties are changed, of "contrast", "saturation", "brightness", "hue", "shape", "texture".
    most: how many images, the first that have a caption.
  Raises UserError for a run that compares no images with texts by single vectors, and another change.
  """
  del bank
  names = [changes] if isinstance(changes, str) else list(changes)
  for name in names:
    choose(name, CHANGES, f"{WHERE}.changes")
  if most < 1:
    raise UserError(f"{WHERE}.most: {most}; give 1 or more")
  out = {}
  for test in tests:
    if test.compare is not cosines or (
      test.space.joint is not None and PROMPTS not in test.space.joint.get("image", ())
    ):
      raise UserError(
        f"{WHERE}: needs a run with two heads of single vectors, of images and of texts; leave it out of "
        "config.evaluation.evaluators"
      )
    images, texts, matches = test.joint("image"), test.joint(PROMPTS), test.matches("image", PROMPTS)
    which = matches.answerable()[:most]
    if not len(which):
      raise UserError(f"{WHERE}: no image of {test.name!r} has a caption; leave it out with `sets`")
    right = nearest_right(images, texts, matches, which)
    found = {"original_recall@1": float(np.mean(ranks(images, texts, matches, which=which) == 1))}
    before = np.sum(images[which] * texts[right], axis=1)
    for name in names:
      rows = images.copy()
      rows[which] = unit(test.embed("image", changed(taken_at(test.data.things["image"].values, which), name)))
      found[f"{name}_fall"] = weighed_fall(before, np.sum(rows[which] * texts[right], axis=1))
      found[f"{name}_recall@1"] = float(np.mean(ranks(rows, texts, matches, which=which) == 1))
    out[test.name] = {f"{WHERE}/{metric}": value for metric, value in found.items()}
  return out


def metric_names(changes: str | Sequence[str]) -> list[str]:
  """What `evaluate` gives of a set."""
  names = [changes] if isinstance(changes, str) else list(changes)
  metrics = ["original_recall@1", *(f"{name}_{metric}" for name in names for metric in ("fall", "recall@1"))]
  return [f"{WHERE}/{metric}" for metric in metrics]
