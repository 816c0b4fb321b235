"""What to compare a number with: the same evaluator on raw pixels, and on the same towers before any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmcontrast.data.images import pillow_resize
from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import Embed, features_of
from mmcontrast.evaluation.embedded_set import EmbeddedSet

PIXELS, UNTRAINED = ALL = ("pixels", "untrained")
_TASKS = {PIXELS: "{}_of_pixels", UNTRAINED: "{}_untrained"}
_SIDE = 16  # pixels, to which larger images are averaged: as good to a probe as 32 x 32, and five times as fast


def names(options: Mapping[str, Any]) -> tuple[str, ...]:
  """The baselines that an evaluator's options ask for; a lone string is one."""
  given = options.get("baselines", ())
  return (given,) if isinstance(given, str) else tuple(given)


def named(metric: str, baseline: str | None) -> str:
  """ "knn/group_accuracy" of a baseline: "knn_of_pixels/group_accuracy"."""
  task, _, rest = metric.partition("/")
  return f"{_TASKS[baseline].format(task)}/{rest}" if baseline else metric


def set_of(one: EmbeddedSet, baseline: str, untrained: Callable[[], Embed] | None) -> EmbeddedSet:
  """A set as the baseline sees it. Raises UserError where there is no model to leave untrained."""
  if baseline == PIXELS:
    return one.with_embed(pixels)
  if untrained is None:
    raise UserError("baselines: 'untrained' needs a model whose initial weights can be made; leave it out")
  return one.with_embed(untrained())


def pixels(kind: str, values: Any) -> np.ndarray:
  """Images uint8 [N, H, W, 3] as their pixels, float32 [N, F] from 0 to 1; averaged to 16 x 16 where they are larger,
  squeezed to it where they keep their ratio.

  Raises UserError for any other kind than "image_features".
  """
  if kind != features_of("image"):
    raise UserError(f"baselines: there is no {kind!r} of pixels; they are for knn, linear_probe and tagging")
  if not isinstance(values, np.ndarray) or values.shape[1] != values.shape[2]:
    values = np.stack([pillow_resize(one, _SIDE, (0, 0, one.shape[1], one.shape[0])) for one in values])
  block = -(-values.shape[1] // _SIDE)
  side = values.shape[1] // block
  cut = values[:, : side * block, : side * block].reshape(len(values), side, block, side, block, 3)
  return cut.mean(axis=(2, 4), dtype=np.float32).reshape(len(values), -1) / 255
