"""Images in use: files, Pillow images and arrays in, what evaluation shows, pictures."""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from mmcontrast.data import native, torn_samples
from mmcontrast.data.images import LIMITS, decode, header, pixels_of
from mmcontrast.data.record import BadRecord, Info
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError, one_line
from mmcontrast.modalities.use import InUse, Shown, as_list, frequent, is_array, place_of, shown

ImageLike = str | os.PathLike | bytes | Image.Image | np.ndarray
"""The path of an image file, its bytes, a Pillow image, or uint8 [H, W, 3]."""
_UNKNOWN = ("NOT READABLE", ())  # format and size


class ImageInUse(InUse):
  """Raw: the bytes of a file. Value: uint8 [S, S, 3], or of whole patches (data/native.py). A thing from outside:
  `ImageLike`; opened, its pixels."""

  name, a, nouns, asked = "image", "an image", "images", "the path of an image"
  field, key, shows_all, suffixes = "images", "style", False, tuple(f".{suffix}" for suffix in torn_samples.IMAGES)
  taken = "give a path, a Pillow image, the bytes of a file or uint8 [H, W, 3]"

  def columns(self, info: Info) -> Sequence[str]:
    return info.styles

  def evaluation_view(self, raw: bytes, settings: Mapping) -> np.ndarray:
    return evaluation_view(decode(raw, settings["limits"]), settings)

  def many(self, things: Any, where: str) -> list:
    if is_array(things):
      return list(np.asarray(things)) if things.ndim in (1, 4) else [things]
    return [things] if self.takes(things) else as_list(things, where, "not an image", self.taken)

  def takes(self, thing: Any) -> bool:
    array = is_array(thing) and thing.ndim != 1
    return array or isinstance(thing, str | os.PathLike | bytes | bytearray | Image.Image)

  def opened(self, data: bytes) -> np.ndarray:
    return decode(data)

  def checked(self, thing: Any, name: str) -> np.ndarray:
    return _pixels(thing, LIMITS, name)

  def accepts(self, thing: Any, settings: Mapping, name: str) -> np.ndarray:
    return evaluation_view(_pixels(thing, settings["limits"], name), settings)

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> Any:
    given = settings["native"]
    if not given["patches"] or isinstance(values, Mapping):
      return values if isinstance(values, Mapping) else np.asarray(values)
    patches = np.zeros((len(values), given["patches"][-1], 3 * given["patch"] ** 2), np.uint8)
    grids = [native.cut(picture, into) for picture, into in zip(values, patches)]
    return {"image": patches, "image_grid": np.array(grids, np.int32).reshape(-1, 2)}

  def size(self, settings: Mapping) -> str:
    if settings["native"]["patches"]:
      return f"images of up to {settings['native']['patches'][-1]} patches of {settings['native']['patch']} px"
    return f"images of {settings['image_size']} px"

  def show(self, thing: Any) -> Shown:
    return Shown(decode(thing) if isinstance(thing, bytes) else np.asarray(thing))

  def described(self, records: Sequence[Sequence[bytes]]) -> str:
    found = [raw for things in records for raw in things]
    if not found:
      return f"none in {len(records)} records"
    headers = [header(raw) or _UNKNOWN for raw in found]
    each = sum(map(len, found)) / len(found) / 1024
    kinds = frequent(collections.Counter(kind for kind, _ in headers))
    text = f"{len(found)} of {len(records)} records; {kinds}; {each:.1f} KiB each"
    if sizes := sorted(size for _, size in headers if size):
      few = dict.fromkeys(sizes[int(place * (len(sizes) - 1))] for place in (0, 0.5, 1))
      text += "; " + " / ".join(f"{width}x{height}" for width, height in few)
    return text

  def describe(self, raw: bytes) -> str:
    kind, size = header(raw) or _UNKNOWN
    return f"{kind} {'x'.join(map(str, size))}, {len(raw)} bytes"

  def check_raw(self, raw: bytes) -> None:
    decode(raw, exact=False)


def _pixels(image: ImageLike, limits: Mapping[str, int], name: str) -> np.ndarray:
  """RGB pixels of an image: uint8 [H, W, 3]. Raises UserError, which begins with `name`, for what is none."""
  if isinstance(image, str | os.PathLike):
    name = os.fspath(image)
  try:
    if isinstance(image, str | os.PathLike):
      return decode(place_of(image).read_bytes(), limits)
    if isinstance(image, bytes | bytearray | memoryview):
      return decode(bytes(image), limits)
    if isinstance(image, Image.Image):
      pixels = pixels_of(image)
      if not pixels.size:
        raise BadRecord(f"an image of {image.width} x {image.height} pixels")
      return pixels
    return _checked(image)
  except BadRecord as error:
    raise UserError(f"{name}: {error}; {ImageInUse.taken}") from None
  except (OSError, ValueError) as error:  # ValueError: a path that no system has
    reason = getattr(error, "strerror", None) or one_line(error)
    hint = "; download it first" if "://" in str(name) else ""
    raise UserError(f"{name}: {reason}; give the path of an image{hint}") from None


def _checked(image: Any) -> np.ndarray:
  """An array that is uint8 [H, W, 3]. Raises BadRecord, which says how to make one of what it is."""
  if not is_array(image):
    raise BadRecord(f"{shown(image)} is not an image")
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
