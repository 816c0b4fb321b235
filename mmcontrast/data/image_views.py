"""Views of images: drawings chosen, cropped at one or two sizes.

image         [N, V, S, S, 3]  data.views.image crops of data.image_size
image_small   [N, K, s, s, 3]  multi-crop (SwAV, Caron et al., arXiv:2006.09882): data.multi_crop
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data import noise, transforms

Shapes = dict[str, tuple[tuple[int, ...], type]]


def shapes(settings: Mapping) -> Shapes:
  """Name -> (shape of one example, dtype) of what `draw` gives."""
  return {name: ((views, size, size, 3), np.uint8) for name, views, size, _ in _families(settings)}


def draw(example: Callable[[int], tuple[int, Mapping[str, np.ndarray]]], settings: Mapping, seed: int,
         wanted: np.ndarray, epochs: np.ndarray) -> dict:  # fmt: skip
  """The views of examples, a pure function of (seed, index, epoch) and the example.

  The small crops go on where the views stop: of V distinct drawings, small crop k is of the one that
  view V + k would show.

  Args:
    example: gives (index, pixels by style, uint8 [H, W, 3]) of row 0, 1, ... N - 1, each when the one before is drawn
      and let go. One without pixels has black views.
    settings: resolved config.data; with "as_evaluated" images are cropped as in evaluation.
    wanted, epochs: int [N]; an example of another index replaces the one wanted.

  Returns:
    uint8 arrays by name, as above. None without views of images.
  """
  styles, draws = _numbers(settings, seed, wanted, epochs)
  arrays = {name: np.zeros((len(wanted), *shape), dtype) for name, (shape, dtype) in shapes(settings).items()}
  for row in range(len(wanted)):
    index, drawings = example(row)
    if drawings and arrays:
      if index != wanted[row]:
        styles[row], draws[row] = (own[0] for own in _numbers(settings, seed, np.array([index]), epochs[row : row + 1]))
      _draw_one(drawings, settings, styles[row], draws[row], {name: array[row] for name, array in arrays.items()})
    del drawings  # its memory is warm, and free for the next
  return arrays


def _numbers(settings: Mapping, seed: int, index: np.ndarray, epochs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(choices of drawings [N, V], numbers for the crops [N, V, DRAWS]), all uniform, of V views of both sizes."""
  views = sum(count for _, count, _, _ in _families(settings))
  styles = noise.uniform(seed, index, epochs, noise.STYLE, views)
  draws = noise.uniform(seed, index, epochs, noise.IMAGE, views * transforms.DRAWS)
  return styles, draws.reshape(len(index), views, transforms.DRAWS)


def _draw_one(drawings: Mapping[str, np.ndarray], settings: Mapping, styles: np.ndarray, draws: np.ndarray,
              into: Mapping[str, np.ndarray]) -> None:  # fmt: skip
  given = zip(_choose(list(drawings.values()), styles, settings["drawings"]), draws)
  for name, count, size, crop in _families(settings):
    for view, (image, numbers) in zip(range(count), given):
      if settings.get("as_evaluated"):
        into[name][view] = transforms.evaluation_view(image, {**settings, "image_size": size})
      else:
        into[name][view] = transforms.random_crop(image, size, numbers, crop)


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
  if how == "same":
    return [drawings[int(draws[0] * len(drawings))]] * len(draws)
  return [drawings[int(draw * len(drawings))] for draw in draws]
