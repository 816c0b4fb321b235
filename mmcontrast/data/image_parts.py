"""Image files cut down to what their picture and its orientation are made from.

A decoder refuses the whole of a file for a comment, a colour profile or a tag that is broken. `picture_only` makes the
file anew without all that, for another try; what belongs to the picture is kept as it is, damage included.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_PNG_ORIENTATION = b"eXIf"
_WEBP_PICTURE = (b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"EXIF")
_WEBP_FRAME = re.compile(rb"VP8 ....(?=...\x9d\x01\x2a)|VP8L....(?=\x2f)|ALPH....[\0-\x3f]|ANMF", re.DOTALL)
_WEBP_METADATA_FLAGS = 0x20 | 0x04  # of VP8X: a colour profile, XMP
_SOS, _COM = 0xDA, 0xFE
_JPEG_PICTURE = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD} - {0xC8})  # frames, Huffman and other tables, intervals
_JFIF_BYTES, _ADOBE_BYTES = 18, 16  # of a whole segment; libjpeg passes over shorter ones, Pillow fails
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
# Of TIFF 6.0 and its supplements: size, kind and place of strips and tiles, colours, orientation.
_TIFF_PICTURE = frozenset({*range(254, 260), 262, 263, 266, 273, 274, 277, 278, 279, 280, 281, 284, 292, 293, 301,
                           317, 318, 319, *range(320, 326), 330, 332, 333, 334, 336, 338, 339, 340, 341, 347,
                           *range(512, 516), *range(517, 522), *range(529, 533)})  # fmt: skip


def picture_only(data: bytes) -> bytes | None:
  """An encoded image without what is no part of its picture; None where it is of no format that is known here."""
  if is_jpeg(data):
    return _jpeg(data)
  if data[:8] == _PNG:
    return _PNG + b"".join(_png_chunks(data))
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    chunks = b"".join(_webp_chunks(data))
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks
  if data[:3] == b"GIF":
    return _gif(data)
  if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
    return _tiff(data)
  if data[4:8] == b"ftyp":
    # AVIF: an item of another type is passed over.
    return re.sub(rb"(infe\x02.{7})Exif", rb"\1skip", data, flags=re.DOTALL)
  return None


def is_jpeg(data: bytes) -> bool:
  """Whether an encoded image begins as a JPEG does; stray bytes may follow."""
  return data[:2] == b"\xff\xd8"


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
  """(marker, first byte, byte after the last) of the segments before the picture; the last one is it, marker 0xDA.

  Stray bytes between segments are passed over, as by any decoder. Ends early where another JPEG begins among them:
  that may be the small picture of a segment whose length is wrong.
  """
  at = 2
  while (at := data.find(b"\xff", at)) >= 0 and at + 4 <= len(data):
    marker = data[at + 1]
    if marker == _SOS:
      yield marker, at, len(data)
      return
    if marker == 0xD8:
      return
    if marker in _JPEG_PICTURE or 0xE0 <= marker <= 0xEF or marker == _COM:
      end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
      yield marker, at, end
      at = end
    else:  # padding, a marker without a length, or a stray byte
      at += 1 if marker == 0xFF else 2


def is_exif(data: bytes, marker: int, start: int) -> bool:
  """Whether a segment of a JPEG is EXIF."""
  return marker == 0xE1 and data[start + 4 : start + 9] == b"Exif\0"


def _jpeg(data: bytes) -> bytes | None:
  kept = [data[:2]]
  for marker, start, end in jpeg_segments(data):
    head, length = data[start + 4 : start + 9], end - start
    colours = ((marker == 0xE0 and head == b"JFIF\0" and length >= _JFIF_BYTES)
               or (marker == 0xEE and head == b"Adobe" and length >= _ADOBE_BYTES))  # fmt: skip
    if marker == _SOS or marker in _JPEG_PICTURE or colours or is_exif(data, marker, start):
      kept.append(data[start:end])
    if marker == _SOS:
      return b"".join(kept)
  return None


def _png_chunks(data: bytes) -> Iterator[bytes]:
  at = len(_PNG)
  while at + 12 <= len(data):
    end, kind = at + 12 + int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
    if kind in _PNG_PICTURE:
      yield data[at:end]
    elif not (end + 8 <= len(data) and data[end + 4 : end + 8].isalpha()):  # no chunk follows: its length is wrong
      end = _next_png_chunk(data, at + 1)
    elif kind == _PNG_ORIENTATION and _is_sound(data, at, end):
      yield data[at:end]
    at = end


def _is_sound(data: bytes, start: int, end: int) -> bool:
  return data[end - 4 : end] == struct.pack(">I", zlib.crc32(data[start + 4 : end - 4]))


def _next_png_chunk(data: bytes, start: int) -> int:
  """Where the next chunk begins that is kept and whose checksum fits; else the end."""
  for found in re.finditer(b"|".join((*_PNG_PICTURE, _PNG_ORIENTATION)), data[start + 4 :]):
    at = start + found.start()
    end = at + 12 + int.from_bytes(data[at : at + 4], "big")
    if end <= len(data) and _is_sound(data, at, end):
      return at
  return len(data)


def _webp_chunks(data: bytes) -> Iterator[bytes]:
  at = 12
  while at + 8 <= len(data):
    kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
    end = at + 8 + size + size % 2
    whole = at + 8 + size <= len(data)
    if kind == b"VP8X" and whole and size == 10:
      yield data[at : at + 8] + bytes([data[at + 8] & ~_WEBP_METADATA_FLAGS]) + data[at + 9 : end]
    elif kind in _WEBP_PICTURE and (whole or kind != b"EXIF"):
      yield data[at:end] + bytes(end - len(data) if whole and end > len(data) else 0)
    elif end != len(data) and not data[end : end + 3].isalnum():  # no chunk follows: its size is wrong
      found = _WEBP_FRAME.search(data, at + 4)
      end = found.start() if found else len(data)
    at = end


def _gif(data: bytes) -> bytes | None:
  """The header, and the first frame by the look of its descriptor: comments hold any bytes."""
  if len(data) < 13:
    return None
  width, height, flags = struct.unpack_from("<HHB", data, 6)
  first = 13 + (3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0)
  at = first - 1
  while (at := data.find(b",", at + 1)) >= 0 and at + 11 <= len(data):
    left, top, across, down, local = struct.unpack_from("<HHHHB", data, at + 1)
    codes = at + 10 + (3 * 2 ** ((local & 7) + 1) if local & 0x80 else 0)
    fits = 0 < across <= width - left and 0 < down <= height - top and not local & 0x18
    if fits and codes < len(data) and 2 <= data[codes] <= 8:
      controls = re.findall(rb"!\xf9\x04....\0", data[first:at], re.DOTALL)
      return data[:first] + b"".join(controls[-1:]) + data[at:]
  return None


def _tiff(data: bytes) -> bytes | None:
  """In place, so that offsets hold: the first directory keeps the tags of the picture, and no other follows."""
  order = "<" if data[:2] == b"II" else ">"
  big = data[2:4] in (b"+\0", b"\0+")
  count_form, entry, place_form = (order + "Q", 20, order + "Q") if big else (order + "H", 12, order + "I")
  try:
    (at,) = struct.unpack_from(place_form, data, 8 if big else 4)
    (count,) = struct.unpack_from(count_form, data, at)
  except struct.error:
    return None
  start = at + struct.calcsize(count_form)
  entries = [data[place : place + entry] for place in range(start, min(start + entry * count, len(data)), entry)]
  kept = [one for one in entries if len(one) == entry and struct.unpack_from(order + "H", one)[0] in _TIFF_PICTURE]
  table = struct.pack(count_form, len(kept)) + b"".join(kept) + struct.pack(place_form, 0)
  return data[:at] + table + data[at + len(table) :]
