"""Views of images: drawings chosen, cropped at one or two sizes.

image         [V, S, S, 3]  data.views.image crops of data.image_size
image_small   [K, s, s, 3]  multi-crop (SwAV, Caron et al., arXiv:2006.09882): data.multi_crop
image_box, image_small_box   [V, 4], [K, 4]  where they were cut, with "box" in data.facts
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data import transforms

Shapes = dict[str, tuple[tuple[int, ...], type]]


def shapes(settings: Mapping) -> Shapes:
  """Name -> (shape of one example, dtype) of what `draw` fills."""
  found: Shapes = {name: ((views, size, size, 3), np.uint8) for name, views, size, _ in _families(settings)}
  if "box" in settings["facts"]:
    found |= {f"{name}_box": ((views, 4), np.float32) for name, views, _, _ in _families(settings)}
  return found


def draw(
  drawings: Mapping[str, np.ndarray],
  settings: Mapping,
  styles: np.ndarray,
  draws: np.ndarray,
  into: Mapping[str, np.ndarray],
) -> None:
  """The views of one example, a pure function of its drawings and the numbers.

  The small crops go on where the views stop: of V distinct drawings, small crop k is of the one that
  view V + k would show.

  Args:
    drawings: pixels by style, uint8 [H, W, 3]; one at least.
    settings: resolved config.data; with "as_evaluated" images are cropped as in evaluation.
    styles: [V + K] uniform numbers that choose the drawings.
    draws: [V + K, transforms.DRAWS] uniform numbers for the crops.
    into: name -> array of `shapes`, which is filled.
  """
  chosen = zip(_choose(list(drawings.values()), styles, settings["drawings"]), draws)
  for name, count, size, crop in _families(settings):
    boxes = into.get(f"{name}_box")
    for view, (image, numbers) in zip(range(count), chosen):
      if settings.get("as_evaluated"):
        into[name][view] = transforms.evaluation_view(image, {**settings, "image_size": size})
        continue
      into[name][view] = transforms.random_crop(image, size, numbers, crop)
      if boxes is not None:
        boxes[view] = transforms.crop_box(image, numbers, crop)


def _families(settings: Mapping) -> Iterator[tuple[str, int, int, Mapping]]:
  """(name in the batch, views, pixels, crop) of the views of each size."""
  if settings["views"]["image"]:
    yield "image", settings["views"]["image"], settings["image_size"], settings["crop"]
  small = settings["multi_crop"]
  if small["views"]:
    yield "image_small", small["views"], small["size"], {**settings["crop"], "scale": small["scale"]}


def _choose(drawings: Sequence, draws: np.ndarray, how: str) -> list:
  """The drawing of each view, by `data.drawings`."""
  if how == "distinct":
    return transforms.choose_distinct(drawings, draws)
  if how == "in_order":
    return [drawings[view % len(drawings)] for view in range(len(draws))]
  if how == "same":
    return [drawings[int(draws[0] * len(drawings))]] * len(draws)
  return [drawings[int(draw * len(drawings))] for draw in draws]
