"""Host transforms of one example: decode, choose views, crop, resize.

Randomness is counter-based: `noise(seed, index, epoch, stream)` gives the same numbers
wherever and in whatever order they are asked for, so no generator state is carried and
any number of threads gives the same batch.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from mmcontrast.data.sources.record import BadRecord

WHITE = (255, 255, 255)
CROP = {"scale": (0.5, 1.0), "ratio": (3 / 4, 4 / 3), "zoom_out": 1.0, "rotate": 0.0}
DRAWS = 8  # numbers that one view of an image takes
IMAGE, TEXT, STYLE, ORDER, DEVICE, FIELD, ROWS = range(7)  # streams of noise

try:
  import simplejpeg
except ImportError:  # Pillow decodes JPEG too, a third slower
  simplejpeg = None


def hashed(*words: int | np.ndarray) -> np.ndarray:
  """uint64 hash of integer words, broadcast together (splitmix64 finaliser, Steele et al. 2014)."""
  state = np.zeros(np.broadcast_shapes(*(np.shape(word) for word in words)), np.uint64)
  with np.errstate(over="ignore"):
    for word in words:
      state = (state ^ np.asarray(word).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
      state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
      state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
      state = state ^ (state >> np.uint64(31))
  return state


def noise(seed: int, index: np.ndarray, epoch: np.ndarray, stream: int, count: int) -> np.ndarray:
  """Uniform numbers in [0, 1): float64 [N, count] for int [N] index and epoch."""
  index, epoch = np.asarray(index)[:, None], np.asarray(epoch)[:, None]
  bits = hashed(seed, index, epoch, stream, np.arange(count)[None])
  return (bits >> np.uint64(11)) * 2.0**-53


def decode(data: bytes) -> Image.Image:
  """RGB image of encoded bytes; transparency is laid on white. Raises BadRecord."""
  if not data:
    raise BadRecord("empty image")
  if simplejpeg is not None and data[:2] == b"\xff\xd8":
    try:
      return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB"))
    except ValueError:
      pass  # CMYK, or broken: Pillow decides
  try:
    image = Image.open(io.BytesIO(data))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
      white = Image.new("RGBA", image.size, (*WHITE, 255))
      return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
    raise BadRecord(f"not a readable image ({' '.join(str(error).split())[:80]})") from None


def trim(image: Image.Image, margin: float = 0.04, most: float = 1.5) -> Image.Image:
  """Enlarges a drawing on white until its ink nearly fills a square, at most `most` times.

  Artists leave different margins; this takes the difference away. The bound keeps a small
  square smaller than a large one. A photograph, ink to the edge, is only made square.
  """
  ink = Image.eval(image.convert("L"), lambda value: 255 if value < 250 else 0).getbbox()
  x0, y0, x1, y1 = ink or (0, 0, *image.size)
  side = max((1 + 2 * margin) * max(x1 - x0, y1 - y0), max(image.size) / most)
  side = max(1, round(min(side, max(image.size)) if ink else max(image.size)))
  canvas = Image.new("RGB", (side, side), WHITE)
  canvas.paste(image, (round((side - x0 - x1) / 2), round((side - y0 - y1) / 2)))
  return canvas


def random_crop(
  image: Image.Image, size: int, draws: np.ndarray, crop: Mapping[str, object]
) -> np.ndarray:
  """A random crop of the area and aspect ratio in `crop`, resized: uint8 [size, size, 3].

  Args:
    draws: DRAWS uniform numbers.
    crop: `scale`, a range of the share of the area; `ratio`, a range of width / height;
      `zoom_out`, at least 1: first pads the image with white up to so many times its side;
      `rotate`, degrees: first turns it by an angle in [-rotate, rotate] on white.

  As torchvision's RandomResizedCrop, except that a box that does not fit is cut to fit
  instead of drawn again, so the cost is bounded and the numbers used are fixed.
  """
  if rotate := float(crop["rotate"]):
    angle = (2 * draws[4] - 1) * rotate
    image = image.rotate(angle, Image.Resampling.BILINEAR, fillcolor=WHITE)
  if (zoom_out := float(crop["zoom_out"])) > 1:
    factor = 1 + draws[5] * (zoom_out - 1)
    width, height = (math.ceil(side * factor) for side in image.size)
    canvas = Image.new("RGB", (width, height), WHITE)
    spare = width - image.width, height - image.height
    canvas.paste(image, (int(draws[6] * (spare[0] + 1)), int(draws[7] * (spare[1] + 1))))
    image = canvas
  (low, high), (flat, tall) = crop["scale"], crop["ratio"]
  area = (low + draws[0] * (high - low)) * image.width * image.height
  ratio = math.exp(math.log(flat) + draws[1] * (math.log(tall) - math.log(flat)))
  width = min(math.sqrt(area * ratio), image.width)
  height = min(math.sqrt(area / ratio), image.height)
  left, top = draws[2] * (image.width - width), draws[3] * (image.height - height)
  box = (left, top, left + width, top + height)
  return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def centre_crop(image: Image.Image, size: int, share: float = 1.0) -> np.ndarray:
  """The middle of the largest centred square, `share` of its side, resized: uint8 [size, size, 3]."""
  side = share * min(image.size)
  left, top = (image.width - side) / 2, (image.height - side) / 2
  box = (left, top, left + side, top + side)
  return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box))


def evaluation_view(image: Image.Image, data: Mapping[str, object]) -> np.ndarray:
  """What evaluation sees of an image, by `image_size`, `trim` and `centre_crop` of config.data."""
  return centre_crop(trim(image) if data["trim"] else image, data["image_size"], data["centre_crop"])


def usable_captions(captions: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
  """The captions of each field that say something. Raises BadRecord when none does."""
  usable = {field: [text for text in texts if text.strip()] for field, texts in captions.items()}
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
