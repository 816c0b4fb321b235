"""Host transforms of one example: choose views, crop, resize; the numbers they draw are given (noise.py)."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from PIL import Image

from mmcontrast.data import native
from mmcontrast.data.images import FILTERS, LIMITS, WHITE, pillow_resize, resize
from mmcontrast.data.record import BadRecord

CROP = {"scale": (0.5, 1.0), "ratio": (3 / 4, 4 / 3), "zoom_out": 1.0, "rotate": 0.0}
DRAWS = 8  # numbers that one view of an image takes

_UNSEEN = ("Cc", "Cf")  # Unicode's control and format characters
_SELECTORS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # of a variant of the letter before


def trim(pixels: np.ndarray, margin: float = 0.04, most: float = 1.5) -> np.ndarray:
  """Enlarges a drawing on white until its ink nearly fills a square, at most `most` times.

  Artists leave different margins; this takes the difference away. The bound keeps a small
  square smaller than a large one. A photograph, ink to the edge, is only made square.

  Args:
    pixels: uint8 [H, W, 3].

  Returns:
    uint8 [S, S, 3].

  Raises:
    BadRecord: too thin for its square to be held.
  """
  if max(pixels.shape[:2]) ** 2 > LIMITS["pixels"]:
    raise BadRecord(f"image of {pixels.shape[1]} x {pixels.shape[0]} pixels, too long to be made square")
  image = Image.fromarray(pixels)
  ink = Image.eval(image.convert("L"), lambda value: 255 if value < 250 else 0).getbbox()
  x0, y0, x1, y1 = ink or (0, 0, *image.size)
  side = max((1 + 2 * margin) * max(x1 - x0, y1 - y0), max(image.size) / most)
  side = max(1, round(min(side, max(image.size)) if ink else max(image.size)))
  canvas = Image.new("RGB", (side, side), WHITE)
  canvas.paste(image, (round((side - x0 - x1) / 2), round((side - y0 - y1) / 2)))
  return np.asarray(canvas)


def random_crop(
  pixels: np.ndarray,
  size: int | Callable[[float, float], tuple[int, int]],
  draws: np.ndarray,
  crop: Mapping[str, object],
) -> np.ndarray:
  """A random crop of the area and aspect ratio in `crop`, resized: uint8 [size, size, 3].

  Args:
    pixels: uint8 [H, W, 3].
    size: side of a square; or (height, width) of a box -> (width, height) that it is resized to.
    draws: DRAWS uniform numbers.
    crop: `scale`, a range of the share of the area; `ratio`, a range of width / height, or None for
      the image's own, so that scale (1, 1) is the whole image squeezed into the square;
      `zoom_out`, at least 1: first pads the image with white up to so many times its side;
      `rotate`, degrees: first turns it by an angle in [-rotate, rotate] on white.

  As torchvision's RandomResizedCrop, except that a box that does not fit is cut to fit
  instead of drawn again, so the cost is bounded and the numbers used are fixed.
  """
  if rotate := float(crop["rotate"]):
    angle = (2 * draws[4] - 1) * rotate
    pixels = np.asarray(Image.fromarray(pixels).rotate(angle, Image.Resampling.BILINEAR, fillcolor=WHITE))
  height, width, _ = pixels.shape
  (wide, high), (left, top), box = _place(width, height, draws, crop)
  if (wide, high) != (width, height):
    canvas = np.full((high, wide, 3), WHITE, np.uint8)
    canvas[top : top + height, left : left + width] = pixels
    pixels = canvas
  return resize(pixels, size if isinstance(size, int) else size(box[3] - box[1], box[2] - box[0]), box)


def crop_box(pixels: np.ndarray, draws: np.ndarray, crop: Mapping[str, object]) -> tuple[float, float, float, float]:
  """Where `random_crop` cuts with the same numbers, without `rotate`: x0, y0, x1, y1 in shares of the image's sides.

  With `zoom_out` a box may reach over the image: below 0, above 1.
  """
  height, width, _ = pixels.shape
  _, (left, top), (x0, y0, x1, y1) = _place(width, height, draws, crop)
  return (x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height


def _place(width: int, height: int, draws: np.ndarray, crop: Mapping) -> tuple[tuple, tuple, tuple]:
  """(size of the canvas, where the image lies on it, the box to cut from it), in pixels."""
  factor = 1 + draws[5] * (float(crop["zoom_out"]) - 1)
  canvas = wide, high = math.ceil(width * factor), math.ceil(height * factor)
  offset = int(draws[6] * (wide - width + 1)), int(draws[7] * (high - height + 1))
  low, most = crop["scale"]
  area = (low + draws[0] * (most - low)) * wide * high
  flat, tall = crop["ratio"] or (wide / high, wide / high)
  ratio = math.exp(math.log(flat) + draws[1] * (math.log(tall) - math.log(flat)))
  across, down = min(math.sqrt(area * ratio), wide), min(math.sqrt(area / ratio), high)
  left, top = draws[2] * (wide - across), draws[3] * (high - down)
  return canvas, offset, (left, top, left + across, top + down)


def centre_crop(pixels: np.ndarray, size: int, share: float = 1.0, interpolation: str = "bilinear") -> np.ndarray:
  """The middle of the largest centred square, `share` of its side, resized: uint8 [size, size, 3]."""
  height, width, _ = pixels.shape
  side = share * min(width, height)
  left, top = (width - side) / 2, (height - side) / 2
  return pillow_resize(pixels, size, (left, top, left + side, top + side), interpolation)


def resize_and_crop(pixels: np.ndarray, size: int, share: float, mode: str, interpolation: str) -> np.ndarray:
  """The whole image resized, then its middle cut out: uint8 [size, size, 3].

  Pixel for pixel what torchvision's Resize and CenterCrop make of a Pillow image, which open_clip, timm and
  torchvision's own weights use. `centre_crop` cuts first, within pixels.

  Args:
    pixels: uint8 [H, W, 3].
    share: of the resized image's (shorter) side that is cut out: the image is resized to floor(size / share).
    mode: "shortest", the shorter side has that length and the ratio is kept; "squash", both have.
    interpolation: of FILTERS; antialiased.

  Raises:
    BadRecord: too thin for its resized form to be held.
  """
  short = math.floor(size / share)
  height, width, _ = pixels.shape
  if mode == "squash":
    wide = high = short
  else:  # the longer side is cut to a whole number, not rounded
    wide, high = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
  if wide * high > LIMITS["pixels"]:
    raise BadRecord(f"image of {width} x {height} pixels, too thin to be {short} pixels wide")
  resized = Image.fromarray(pixels).resize((wide, high), FILTERS[interpolation])
  left, top = round((wide - size) / 2), round((high - size) / 2)  # to the even neighbour
  return np.asarray(resized.crop((left, top, left + size, top + size)))


def evaluation_view(pixels: np.ndarray, data: Mapping[str, object]) -> np.ndarray:
  """What evaluation sees of an image, by `image_size`, `trim`, `resize`, `centre_crop` and `native` of config.data."""
  pixels = trim(pixels) if data["trim"] else pixels
  if (given := data.get("native", native.DEFAULTS))["patches"]:
    return native.resized(pixels, given["patch"], given["patches"][-1], data["resize"]["interpolation"])
  size, share, resize = data["image_size"], data["centre_crop"], data["resize"]
  if resize["mode"] == "crop":
    return centre_crop(pixels, size, share, resize["interpolation"])
  return resize_and_crop(pixels, size, share, resize["mode"], resize["interpolation"])


def evaluation_parts(parts: np.ndarray, data: Mapping[str, object]) -> np.ndarray:
  """Numbers [H, W] of what each pixel shows, as `evaluation_view` makes the image: [S, S], each the nearest.

  Raises BadRecord under `trim`, which looks at the image.
  """
  if data.get("native", native.DEFAULTS)["patches"]:
    raise BadRecord("data.native.patches keeps the ratio of images, and maps are of squares; set it to ()")
  if data["trim"]:
    raise BadRecord("data.trim=True moves images by what they show; use a run that was trained without it")
  size, share, (height, width) = data["image_size"], data["centre_crop"], parts.shape
  middle = np.arange(size) + 0.5
  if data["resize"]["mode"] == "crop":
    side = share * min(width, height)
    rows, columns = ((whole - side) / 2 + middle * side / size for whole in (height, width))
  else:
    short = math.floor(size / share)
    wide, high = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if data["resize"]["mode"] == "squash":
      wide = high = short
    rows = (round((high - size) / 2) + middle) * height / high
    columns = (round((wide - size) / 2) + middle) * width / wide
  rows, columns = (np.clip(np.floor(at), 0, whole - 1).astype(int) for at, whole in ((rows, height), (columns, width)))
  return parts[rows[:, None], columns[None, :]]


def _is_blank(text: str) -> bool:
  """Whether nothing of a text can be seen: white space, marks of direction and of joining, characters of no width."""
  if text.isascii():
    return not text.strip()
  return all(letter.isspace() or letter in _SELECTORS or unicodedata.category(letter) in _UNSEEN for letter in text)


def usable_captions(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
  """The captions of each field that say something. Raises BadRecord when none does."""
  usable = {field: [text for text in texts if not _is_blank(text)] for field, texts in captions.items()}
  usable = {field: texts for field, texts in usable.items() if texts}
  if not usable:
    raise BadRecord("empty caption" if any(captions.values()) else "no caption")
  return usable


def choose_distinct(options: Sequence, draws: np.ndarray) -> list:
  """len(draws) of `options` in random order, distinct as far as they go, then over again."""
  order = list(options)
  for last in range(min(len(draws), len(order) - 1)):  # Fisher-Yates, as far as needed
    other = last + int(draws[last] * (len(order) - last))
    order[last], order[other] = order[other], order[last]
  return [order[i % len(order)] for i in range(len(draws))]
