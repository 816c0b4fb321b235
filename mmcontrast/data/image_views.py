"""Views of images: drawings chosen, cropped at one or two sizes.

image         [V, S, S, 3]  data.views.image crops of data.image_size
image         [V, L, p * p * 3]  with data.native.patches: patches of crops that keep their ratio, and
image_grid    [V, 2]        the rows and columns of each (native.py)
image_small   [K, s, s, 3]  multi-crop (SwAV, Caron et al., arXiv:2006.09882): data.multi_crop
image_box, image_small_box   [V, 4], [K, 4]  where they were cut, with "box" in data.facts
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data import native, transforms

Shapes = dict[str, tuple[tuple[int, ...], type]]


def shapes(settings: Mapping) -> Shapes:
  """Name -> (shape of one example, dtype) of what `draw` fills."""
  found: Shapes = {name: ((views, size, size, 3), np.uint8) for name, views, size, _ in _families(settings)}
  if (given := settings["native"])["patches"] and found:
    views = settings["views"]["image"]
    found = {"image": ((views, given["patches"][-1], 3 * given["patch"] ** 2), np.uint8)}
    found["image_grid"] = ((views, 2), np.int32)
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
        _put(transforms.evaluation_view(image, {**settings, "image_size": size}), view, into, name)
        continue
      _put(transforms.random_crop(image, _size(settings, size), numbers, crop), view, into, name)
      if boxes is not None:
        boxes[view] = transforms.crop_box(image, numbers, crop)


def _size(settings: Mapping, side: int) -> int | Callable[[float, float], tuple[int, int]]:
  """What crops are resized to: a side, or a function of the box that is cut."""
  given = settings["native"]
  if not given["patches"]:
    return side

  def fitting(height: float, width: float) -> tuple[int, int]:
    rows, columns = native.grid_of(height, width, given["patch"], given["patches"][-1])
    return columns * given["patch"], rows * given["patch"]

  return fitting


def _put(picture: np.ndarray, view: int, into: Mapping[str, np.ndarray], name: str) -> None:
  """A view as it is, or cut into patches."""
  grids = into.get(f"{name}_grid")
  if grids is None:
    into[name][view] = picture
  else:
    grids[view] = native.cut(picture, into[name][view])


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
