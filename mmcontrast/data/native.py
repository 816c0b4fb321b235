"""Images that keep their ratio (NaFlex: SigLIP 2, Tschannen et al., arXiv:2502.14786, section 2.4.2).

An image is resized to as many whole patches as a budget allows, whatever its shape, and is a row of them, padded to
the budget: config.data.native. With several budgets each batch is of one, and `tokens` bounds what it holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.checks import check_counts
from mmcontrast.data.images import pillow_resize
from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError

# The side of a patch in pixels; how many an image has at most, one number or several, of which each batch has one
# (evaluation the largest), () for squares of data.image_size; how many patches of images the batch of one view has at
# most, over all devices, so that batches of larger images hold fewer (0: all hold batch.size); and of what number of
# examples such batches are multiples.
DEFAULTS = {"patch": 16, "patches": (), "tokens": 0, "multiple": 8}
_CLOSE = 1e-5  # how near to the largest scale is near enough
_MOST = 100.0  # times a side is enlarged


def check(settings: Mapping[str, Any]) -> None:
  """Raises UserError for bad values of config.data.native, and for what images that keep their ratio have not."""
  given = settings["native"]
  check_counts(given, {"patch": 1, "tokens": 0, "multiple": 1}, "data.native")
  patches = given["patches"]
  if isinstance(patches, int) and not isinstance(patches, bool):
    raise UserError(f"data.native.patches: {patches} is no list; write ({patches},)")
  whole = isinstance(patches, list | tuple) and all(isinstance(n, int) and not isinstance(n, bool) for n in patches)
  if not whole or any(n < 1 for n in patches) or list(patches) != sorted(set(patches)):
    raise UserError(
      f"data.native.patches: {patches!r} is no list of different numbers of patches, the smallest first, such as "
      "(128, 256, 576)"
    )
  if not patches:
    return
  if 0 < given["tokens"] < patches[-1]:
    raise UserError(
      f"data.native.tokens: a batch of {given['tokens']} patches does not hold an image of {patches[-1]}; set it to "
      f"{given['multiple'] * patches[-1]}, which holds {given['multiple']}, or more, or to 0 for any"
    )
  if given["tokens"] and given["tokens"] // patches[-1] < given["multiple"]:
    raise UserError(
      f"data.native.tokens: a batch of {given['tokens']} patches holds {given['tokens'] // patches[-1]} images of "
      f"{patches[-1]}, and data.native.multiple={given['multiple']}; set it to {given['multiple'] * patches[-1]} or "
      "more, or lower multiple"
    )
  for key, others in (("multi_crop", "small crops"), ("masked", "hidden patches"), ("maps", "maps")):
    if settings[key]["views"]:
      raise UserError(
        f"data.{key}.views: {others} are of squares, and data.native.patches keeps the ratio of images; set "
        f"data.{key}.views to 0, or data.native.patches to ()"
      )
  if settings["centre_crop"] != 1:
    raise UserError(
      f"data.centre_crop: {settings['centre_crop']}, and images that keep their ratio (data.native.patches) are seen "
      "whole; set it to 1"
    )


def batch_sizes(settings: Mapping[str, Any], batch_size: int) -> tuple[int, ...]:
  """How many examples the batches of each of config.data.native.patches hold: at most `batch_size`, and as many as
  `tokens` allows. Raises UserError where even those of the smallest images hold fewer than `batch_size`."""
  given = settings["native"]
  if not given["tokens"]:
    return (batch_size,) * len(given["patches"])
  multiple = given["multiple"]
  most = [given["tokens"] // patches // multiple * multiple for patches in given["patches"]]
  if most[0] < batch_size:
    raise UserError(
      f"config.batch.size: {batch_size}, and data.native.tokens={given['tokens']} holds {most[0]} images of "
      f"{given['patches'][0]} patches; set it to {most[0]}, or tokens to {batch_size * given['patches'][0]}"
    )
  return tuple(min(batch_size, size) for size in most)


def check_parts(sizes: Sequence[int], parts: int, chunks: int) -> None:
  """Raises UserError unless batches of `sizes` examples divide over `parts` devices and `chunks` microbatches."""
  for size in sizes:
    if size % (parts * chunks):
      raise UserError(
        f"config.data.native.multiple: a batch of {size} examples does not divide over {parts} devices and {chunks} "
        f"microbatches; set it to {parts * chunks} or a multiple of it"
      )


def grid_of(height: float, width: float, patch: int, most: int) -> tuple[int, int]:
  """Rows and columns of patches, `most` together, of the largest scale at which an image needs no more.

  Each side is rounded up to whole patches. The scale is found as SigLIP 2's processor in transformers does, by halving.

  Raises BadRecord for an image so long that not even one row of patches has its ratio.
  """
  if max(height, width) > most * min(height, width):
    raise BadRecord(
      f"image of {width:g} x {height:g} pixels, whose ratio a row of {most} patches (data.native.patches) does not "
      "hold; data.filter.max_aspect leaves such images out"
    )

  def at(scale: float) -> tuple[int, int]:
    return max(1, math.ceil(height * scale / patch)), max(1, math.ceil(width * scale / patch))

  low, high = _CLOSE / 10, _MOST
  while high - low >= _CLOSE:
    middle = (low + high) / 2
    low, high = (middle, high) if math.prod(at(middle)) <= most else (low, middle)
  return at(low)


def resized(pixels: np.ndarray, patch: int, most: int, interpolation: str) -> np.ndarray:
  """An image as evaluation sees it: uint8 [H, W, 3] -> [rows * patch, columns * patch, 3]. Raises BadRecord."""
  height, width, _ = pixels.shape
  rows, columns = grid_of(height, width, patch, most)
  return pillow_resize(pixels, (columns * patch, rows * patch), (0, 0, width, height), interpolation)


def cut(picture: np.ndarray, into: np.ndarray) -> tuple[int, int]:
  """Cuts an image of whole patches [rows * p, columns * p, 3] into `into` [L, p * p * 3], row after row, whose rest
  stays as it is. Returns (rows, columns)."""
  patch = math.isqrt(into.shape[1] // 3)
  rows, columns = picture.shape[0] // patch, picture.shape[1] // patch
  patches = picture.reshape(rows, patch, columns, patch, 3).transpose(0, 2, 1, 3, 4)
  into[: rows * columns] = patches.reshape(rows * columns, -1)
  return rows, columns
