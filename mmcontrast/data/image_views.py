"""Views of images: drawings chosen, cropped at one or two sizes, and where each crop lies.

    image         [N, V, S, S, 3]  data.views.image crops of data.image_size
    image_small   [N, K, s, s, 3]  multi-crop (SwAV, Caron et al., arXiv:2006.09882): data.multi_crop
    boxes         {name: [N, V, 4]} with data.crop_boxes: see `transforms.crop_box`
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data import transforms

Shapes = dict[str, tuple[tuple[int, ...], type]]


def shapes(settings: Mapping) -> Shapes:
  """Name -> (shape of one example, dtype) of what `draw` gives; "boxes/image" stands for boxes["image"]."""
  found: Shapes = {}
  for name, views, size, _ in _families(settings):
    found[name] = ((views, size, size, 3), np.uint8)
    if settings["crop_boxes"]:
      found[f"boxes/{name}"] = ((views, 4), np.float32)
  return found


def draw(examples: Sequence[Mapping[str, np.ndarray]], settings: Mapping, seed: int, index: np.ndarray,
         epochs: np.ndarray) -> dict:
  """The views of examples, a pure function of (seed, index, epoch) and the example.

  The small crops go on where the views stop: of V distinct drawings, small crop k is of the one that
  view V + k would show.

  Args:
    examples: pixels by style, uint8 [H, W, 3]; one without any keeps black views and empty boxes.
    settings: resolved config.data.
    index, epochs: int [N].
  Returns:
    Arrays by name, as above: uint8, float32 for boxes.
  """
  families = list(_families(settings))
  views = sum(count for _, count, _, _ in families)
  styles = transforms.noise(seed, index, epochs, transforms.STYLE, views)
  draws = transforms.noise(seed, index, epochs, transforms.IMAGE, views * transforms.DRAWS)
  draws = draws.reshape(len(index), views, transforms.DRAWS)
  arrays = {name: np.zeros((len(index), *shape), dtype) for name, (shape, dtype) in shapes(settings).items()}
  for row, drawings in enumerate(examples):
    if not drawings:
      continue
    chosen = _choose(list(drawings.values()), styles[row], settings["drawings"])
    given = zip(chosen, draws[row])
    for name, count, size, crop in families:
      for view, (image, numbers) in zip(range(count), given):
        arrays[name][row, view] = transforms.random_crop(image, size, numbers, crop)
        if settings["crop_boxes"]:
          arrays[f"boxes/{name}"][row, view] = transforms.crop_box(image.shape[1], image.shape[0], numbers, crop)
  boxes = {name.removeprefix("boxes/"): arrays.pop(name) for name in list(arrays) if name.startswith("boxes/")}
  return arrays | ({"boxes": boxes} if boxes else {})


def _families(settings: Mapping) -> Iterator[tuple[str, int, int, Mapping]]:
  """(name in the batch, views, pixels, crop) of the views of each size."""
  yield "image", settings["views"]["image"], settings["image_size"], settings["crop"]
  small = settings["multi_crop"]
  if small["views"]:
    yield "image_small", small["views"], small["size"], {**settings["crop"], "scale": small["scale"]}


def _choose(drawings: Sequence, draws: np.ndarray, how: str) -> list:
  """The drawing of each view, by `data.drawings`."""
  if how == "distinct":
    return transforms.choose_distinct(drawings, draws)
  if how == "same":
    return [drawings[int(draws[0] * len(drawings))]] * len(draws)
  return [drawings[int(draw * len(drawings))] for draw in draws]
