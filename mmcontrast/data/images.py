"""Images: decoding of untrusted bytes within limits, and the resize of training crops.

JPEG is decoded by libjpeg-turbo (simplejpeg), all else by Pillow. A picture that is damaged is bad, even where a
decoder could show a part of it; whatever else in the file is damaged (EXIF, a profile, a comment) is passed over.
Content decides, never a file name.
"""

from __future__ import annotations

import contextlib
import io
import math
import pathlib
import re
import threading
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import simplejpeg
from PIL import Image

from mmcontrast.data.filters import Filtered
from mmcontrast.data.image_parts import is_exif, is_jpeg, jpeg_segments, picture_only
from mmcontrast.data.record import BadRecord
from mmcontrast.errors import one_line

try:
  import cykooz_resizer
except ImportError:  # it has no build for every machine; Pillow takes three times as long
  cykooz_resizer = None

LIMITS = {"pixels": 2**26, "bytes": 2**26}  # of one image: pixels decoded, bytes as stored
# Formats of pictures only: Pillow would hand PostScript to another program.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
WHITE = (255, 255, 255)
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# What is lost. Fewer than ten stray bytes before the end marker are padding that some cameras write.
_DAMAGE = re.compile(r"Premature end|Corrupt JPEG data: (?!\d extraneous bytes before marker 0xd9)")
_ORIENTATION = 0x0112  # EXIF tag: 1 upright, 2 to 8 turned and mirrored

_kept = threading.local()  # a resizer of each thread, with its scratch memory

# Once and for all: `catch_warnings` is not safe with threads. Errors are not touched by it.
warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(data: bytes, limits: Mapping[str, int] = LIMITS, exact: bool = True) -> np.ndarray:
  """RGB pixels of an encoded image, upright: uint8 [H, W, 3].

  Transparency is laid on white, 16-bit grey becomes 8-bit, an animation gives its first frame, and
  the EXIF orientation is applied.

  Args:
    limits: checked before pixels take memory.
    exact: False, as training has it, repeats the chroma of a JPEG instead of interpolating it, which
      takes a twelfth off the time; brightness is the same.

  Raises:
    BadRecord: no image, a damaged one, or one over `limits`.
  """
  if not data:
    raise BadRecord("empty image")
  if len(data) > limits["bytes"]:
    raise BadRecord(f"image of {len(data)} bytes, over data.limits.bytes={limits['bytes']}")
  pixels = _decode_jpeg(data, limits, exact) if is_jpeg(data) else None
  return _decode_any(data, limits) if pixels is None else pixels


def header(data: bytes) -> tuple[str, tuple[int, int]] | None:
  """(format, (width, height) in pixels) that an encoded image says of itself; None where nothing is known of it."""
  for part in _tries(data):
    try:
      with Image.open(io.BytesIO(part), formats=FORMATS) as image:
        return image.format, image.size
    except Exception:  # whatever it is, decoding will meet it and say so
      continue
  return None


def pixels_of(image: Image.Image) -> np.ndarray:
  """RGB pixels of a Pillow image, as `decode` has them: uint8 [H, W, 3].

  Raises BadRecord for 32-bit values, and for what Pillow cannot read.
  """
  try:
    return _upright(np.asarray(_to_rgb(image)), _orientation(image))
  except BadRecord:
    raise
  except Exception as error:  # of the file behind the image, which is read only now
    if data := _stored(image):
      return decode(data)
    raise BadRecord(f"not a readable image ({one_line(error, most=80)})") from None


def _stored(image: Image.Image) -> bytes:
  """What the file behind a Pillow image holds; nothing where there is none."""
  try:
    image.fp.seek(0)
    return image.fp.read()
  except Exception:
    try:
      return pathlib.Path(image.filename).read_bytes()
    except Exception:
      return b""


def _orientation(image: Image.Image) -> int | None:
  try:
    return image.getexif().get(_ORIENTATION)
  except Exception:  # of the many ways in which EXIF can be broken, none touches the picture
    return None


def _tries(data: bytes) -> Iterator[bytes]:
  """An encoded image, or where that fails, only its picture."""
  yield data
  if (part := picture_only(data)) and part != data:
    yield part


def _decode_jpeg(data: bytes, limits: Mapping[str, int], exact: bool) -> np.ndarray | None:
  """As `decode`; None for what is left to Pillow: CMYK, and headers that break a rule harmlessly."""
  damage = ""
  for part in _tries(data):
    try:
      height, width, colours, _ = simplejpeg.decode_jpeg_header(part)
      _check_size(width, height, limits)
      if colours in ("CMYK", "YCCK"):
        return None
      pixels = simplejpeg.decode_jpeg(part, "RGB", fastupsample=not exact)
      break
    except BadRecord:
      raise
    except ValueError as error:
      if not _DAMAGE.match(str(error)):
        return None
      damage = damage or str(error)
  else:
    raise BadRecord(f"not a readable image ({damage})")
  if not any(is_exif(data, marker, start) for marker, start, _ in jpeg_segments(data)):
    return pixels
  for part in _tries(data):
    with contextlib.suppress(Exception):  # another segment may be broken, or this one
      return _upright(pixels, _orientation(Image.open(io.BytesIO(part), formats=FORMATS)))
  return pixels


def _decode_any(data: bytes, limits: Mapping[str, int]) -> np.ndarray:
  bad = None
  for part in _tries(data):
    try:
      with Image.open(io.BytesIO(part), formats=FORMATS) as image:
        _check_size(*image.size, limits)
        image.load()
        return _upright(np.asarray(_to_rgb(image)), _orientation(image))
    except BadRecord as error:
      bad = bad or error
    except Image.UnidentifiedImageError:
      bad = bad or BadRecord(f"not a readable image (of no known format; it begins with {data[:8]!r})")
    except Image.DecompressionBombError:
      bad = bad or BadRecord(f"image over data.limits.pixels={limits['pixels']}")
    except Exception as error:  # Pillow's readers raise nearly anything on bytes that make no sense
      bad = bad or BadRecord(f"not a readable image ({one_line(error, most=80)})")
  raise bad


def _check_size(width: int, height: int, limits: Mapping[str, int]) -> None:
  if width * height > limits["pixels"]:
    raise BadRecord(f"image of {width} x {height} pixels, over data.limits.pixels={limits['pixels']}")


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode in ("I", "F"):
    raise BadRecord("image of 32-bit values, whose range is not known")
  if image.mode.startswith("I;16"):  # Pillow would clip it to 255, not scale it
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
  if image.mode in ("RGBa", "La"):  # premultiplied
    image = image.convert(image.mode.upper())
  if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
    white = Image.new("RGBA", image.size, (*WHITE, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
  return image.convert("RGB")


def _upright(pixels: np.ndarray, orientation: int | None) -> np.ndarray:
  if orientation not in range(2, 9):
    return pixels
  if orientation > 4:
    pixels = pixels.swapaxes(0, 1)
  rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else None)
  columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else None)
  return np.ascontiguousarray(pixels[rows, columns])


def resize(pixels: np.ndarray, size: int | tuple[int, int], box: tuple[float, float, float, float]) -> np.ndarray:
  """The box (left, top, right, bottom) of `pixels`, in fractions of a pixel too, at size x size, or (width, height).

  Bilinear with antialiasing, as Pillow does it: the filter widens with the scale. Where
  cykooz.resizer is installed it does the same with vector instructions, to within one level of 255.

  Args:
    pixels: uint8 [H, W, 3].

  Returns:
    uint8 [size, size, 3].
  """
  if cykooz_resizer is None:
    return pillow_resize(pixels, size, box)
  wide, high = (size, size) if isinstance(size, int) else size
  # The part that the filter reaches: what is handed over is copied.
  left, top, right, bottom = box
  across, down = max(right - left, wide) / wide + 1, max(bottom - top, high) / high + 1
  x, y = max(0, math.floor(left - across)), max(0, math.floor(top - down))
  part = pixels[y : math.ceil(bottom + down), x : math.ceil(right + across)]
  height, width, _ = part.shape
  data = cykooz_resizer.ImageData(width, height, cykooz_resizer.PixelType.U8x3, part.tobytes())
  out = cykooz_resizer.ImageData(wide, high, cykooz_resizer.PixelType.U8x3)
  options = cykooz_resizer.ResizeOptions(
    resize_alg=cykooz_resizer.ResizeAlg.convolution(cykooz_resizer.FilterType.bilinear),
    crop_box=cykooz_resizer.CropBox(left - x, top - y, right - left, bottom - top),
    use_alpha=False,
  )
  if not hasattr(_kept, "resizer"):
    _kept.resizer = cykooz_resizer.Resizer()
  _kept.resizer.resize(data, out, options)
  return np.frombuffer(out.get_buffer(), np.uint8).reshape(high, wide, 3)


def pillow_resize(
  pixels: np.ndarray,
  size: int | tuple[int, int],
  box: tuple[float, float, float, float],
  interpolation: str = "bilinear",
) -> np.ndarray:
  """As `resize`, by Pillow, with one of FILTERS: what evaluation uses, the same on every machine."""
  size = (size, size) if isinstance(size, int) else size
  return np.asarray(Image.fromarray(pixels).resize(size, FILTERS[interpolation], box=box))


def passing(encoded: Mapping[str, bytes], filters: Mapping) -> dict[str, bytes]:
  """The images that pass config.data.filter, by style, from their headers only; one that cannot be read passes, for it
  is a bad record.

  Raises Filtered when none of them does.
  """
  if not filters["min_side"] and not filters["max_aspect"]:
    return dict(encoded)
  reasons = {style: _by_size(data, filters) for style, data in encoded.items()}
  found = {style: data for style, data in encoded.items() if not reasons[style]}
  if encoded and not found:
    raise Filtered(next(iter(reasons.values())))
  return found


def _by_size(data: bytes, filters: Mapping) -> str:
  """The filter that takes out an image, or ""."""
  found = header(data)
  if found is None:
    return ""
  short, long = sorted(found[1])
  if short < filters["min_side"]:
    return "min_side"
  return "max_aspect" if filters["max_aspect"] and long > filters["max_aspect"] * short else ""
