"""What may be given to `encode_image` and `encode_text`: every form is taken, or refused with what to give instead."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping, Set
from typing import Any

import numpy as np
from PIL import Image

from mmcontrast import folders
from mmcontrast.data.images import decode, pixels_of
from mmcontrast.data.sources import BadRecord
from mmcontrast.errors import UserError, one_line

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""The path of an image file, its bytes, a Pillow image, or uint8 [H, W, 3]."""
_IMAGES = "give a path, a Pillow image, the bytes of a file or uint8 [H, W, 3]"
_TEXTS = "give a str or a list of them"


def images_of(images: ImageLike | Iterable[ImageLike], where: str) -> list[ImageLike]:
  """One image or many as a list. Raises UserError, which begins with `where`, for what is neither."""
  if _is_array(images):
    return list(np.asarray(images)) if images.ndim in (1, 4) else [images]
  if isinstance(images, str | os.PathLike | bytes | bytearray | Image.Image):
    return [images]
  return _list(images, where, "not an image", _IMAGES)


def texts_of(texts: str | Iterable[str], where: str) -> list[str]:
  """One text or many as a list. Raises UserError, which begins with `where`, for what is neither."""
  if isinstance(texts, str):
    return [texts]
  if isinstance(texts, bytes | bytearray):
    raise UserError(f"{where}: {_shown(texts)} is bytes, not text; decode it: {_TEXTS}")
  if isinstance(texts, np.ndarray) and texts.ndim == 0:
    texts = [texts.item()]
  many = _list(texts, where, "not a text", _TEXTS)
  for number, text in enumerate(many):
    if not isinstance(text, str):
      raise UserError(f"{where}: {_shown(text)} is not a text, number {number} of {len(many)}; {_TEXTS}")
  return many


def read_pixels(image: ImageLike, limits: Mapping[str, int], name: str) -> np.ndarray:
  """RGB pixels of an image: uint8 [H, W, 3]. Raises UserError, which begins with `name`, for what is none."""
  if isinstance(image, str | os.PathLike):
    name = os.fspath(image)
  try:
    if isinstance(image, str | os.PathLike):
      path = folders.at(image, "image") if folders.of_store(image) else pathlib.Path(image)
      return decode(path.read_bytes(), limits)
    if isinstance(image, bytes | bytearray | memoryview):
      return decode(bytes(image), limits)
    if isinstance(image, Image.Image):
      pixels = pixels_of(image)
      if not pixels.size:
        raise BadRecord(f"an image of {image.width} x {image.height} pixels")
      return pixels
    return _checked(image)
  except BadRecord as error:
    raise UserError(f"{name}: {error}; {_IMAGES}") from None
  except (OSError, ValueError) as error:  # ValueError: a path that no system has
    reason = getattr(error, "strerror", None) or one_line(error)
    hint = "; download it first" if "://" in str(name) else ""
    raise UserError(f"{name}: {reason}; give the path of an image{hint}") from None


def _checked(image: Any) -> np.ndarray:
  """An array that is uint8 [H, W, 3]. Raises BadRecord, which says how to make one of what it is."""
  if not _is_array(image):
    raise BadRecord(f"{_shown(image)} is not an image")
  pixels = np.asarray(image)
  if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size:
    return pixels
  said = f"{pixels.dtype} {list(pixels.shape)} is not uint8 [H, W, 3]"
  if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3, 4):
    raise BadRecord(f"{said}; channels come last here: image.transpose(1, 2, 0)")
  if pixels.dtype.kind == "f" and pixels.size:
    low, high = np.min(pixels), np.max(pixels)
    unit = (
      "; of values in [0, 1]: (255 * image).round().astype('uint8')"
      if low >= 0 and high <= 1
      else f"; its values are {low:g} to {high:g}: give pixels as they were before normalisation"
    )
    raise BadRecord(said + unit)
  if pixels.dtype == np.uint8 and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 2, 4))):
    raise BadRecord(f"{said}; grey and transparent images by Pillow: Image.fromarray(image)")
  if pixels.dtype.kind in "iub" and pixels.ndim == 3 and pixels.dtype != np.uint8:
    raise BadRecord(f"{said}; of values in [0, 255]: image.astype('uint8')")
  raise BadRecord(said)


def _is_array(value: Any) -> bool:
  """numpy's, JAX's, and torch's tensors on a CPU."""
  return hasattr(value, "ndim") and hasattr(value, "__array__")


def _list(values: Any, where: str, what: str, instead: str) -> list:
  if isinstance(values, Mapping | Set):
    raise UserError(f"{where}: a {type(values).__name__} has no order; give a list")
  try:
    return list(values)
  except TypeError:
    raise UserError(f"{where}: {_shown(values)} is {what}; {instead}") from None


def _shown(value: Any) -> str:
  """A value in a message: as it is where that is short, else its type."""
  if value is None or isinstance(value, str | bytes | bytearray | int | float | list | tuple | os.PathLike):
    return one_line(repr(value), 40)
  return f"a {type(value).__name__}"
