"""What the bytes of a video say before a decoder sees them: how long they are, delays, whether it is upright."""

from __future__ import annotations

import struct

from mmcontrast.data.record import BadRecord

_SHORTEST, _SHOWN_FOR = 0.011, 0.1  # seconds: what an animation shows for less, every browser shows for 0.1 s
# Boxes at the top of an MP4; what bears another name was written behind the file's end.
_WITHIN = (b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75")  # a segment, and a cluster in it
_BOXES = frozenset(b"ftyp moov mdat moof free skip wide uuid sidx ssix styp mfra meta udta pnot emsg prft pdin".split())


def shown_for(delay: float) -> float:
  """Seconds that a frame of an animation is shown which asks for so many."""
  return delay if delay >= _SHORTEST else _SHOWN_FOR


def gif_delays(data: bytes) -> list[float]:
  """Seconds that each frame of a GIF is shown. Raises BadRecord where it ends before its end is said."""
  delays, delay = [], 0

  def after_blocks(at: int) -> int:
    while data[at]:
      at += data[at] + 1
    return at + 1

  def after_table(at: int, flags: int) -> int:
    return at + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)

  try:
    at = after_table(13, data[10])
    while data[at] != 0x3B:
      if data[at] == 0x21:
        if data[at + 1] == 0xF9:
          delay = struct.unpack_from("<H", data, at + 4)[0]
        at = after_blocks(at + 2)
      elif data[at] == 0x2C:
        at = after_blocks(after_table(at + 10, data[at + 9]) + 1)
        delays.append(shown_for(delay / 100))
      else:
        raise BadRecord(f"damaged GIF: byte {at} begins no block")
  except (IndexError, struct.error):
    raise BadRecord("video that is cut off: its end is missing") from None
  return delays


def webp_delays(data: bytes) -> list[float]:
  """The same of a WebP, none of a still picture. Raises BadRecord where a frame is not whole."""
  delays, at = [], 12
  while at + 8 <= len(data):
    name, size = struct.unpack_from("<4sI", data, at)
    if name == b"ANMF":
      if at + 8 + size > len(data):
        raise BadRecord(f"video that is cut off: {at + 8 + size - len(data)} bytes of a frame are missing")
      if size >= 16:
        delays.append(shown_for(int.from_bytes(data[at + 20 : at + 23], "little") / 1000))
    at += 8 + size + size % 2
  return delays


_PLAIN = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_MATRICES = {b"mvhd": (36, 48), b"tkhd": (40, 52)}  # box -> where its matrix begins, of versions 0 and 1


def is_upright(data: bytes) -> bool:
  """Whether a file is an MP4 of which no part is to be turned, mirrored or scaled."""
  return data[4:8] == b"ftyp" and _matrices_are_plain(data, 0, len(data)) is True


def _matrices_are_plain(data: bytes, at: int, end: int) -> bool | None:
  """Whether all matrices in the boxes from byte `at` to `end` leave pictures as they are; None without one."""
  found = None
  while at + 8 <= end:
    size, name = struct.unpack_from(">I4s", data, at)
    inside = at + 8
    if size == 1 and at + 16 <= end:
      (size,), inside = struct.unpack_from(">Q", data, at + 8), at + 16
    until = at + size if size else end
    if until < inside or until > end:
      return False
    if name in (b"moov", b"trak"):
      plain = _matrices_are_plain(data, inside, until)
    elif name in _MATRICES and inside < until:
      start = inside + _MATRICES[name][data[inside] == 1]
      plain = data[start : start + len(_PLAIN)] == _PLAIN
    else:
      plain = None
    if plain is False:
      return False
    found, at = plain or found, until
  return found


def missing_bytes(data: bytes) -> int:
  """How many bytes an MP4, WebM, AVI or WebP file is short of what it says of itself."""
  if data[:4] == b"RIFF":
    return max(0, 8 + struct.unpack_from("<I", data, 4)[0] - len(data)) if len(data) >= 8 else 0
  if data[4:8] == b"ftyp":
    at = 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] in _BOXES:
      size = struct.unpack_from(">I", data, at)[0]
      if size == 1 and at + 16 <= len(data):
        size = struct.unpack_from(">Q", data, at + 8)[0]
      if size < 8:  # to the end of the file
        return 0
      at += size
    return max(0, at - len(data))
  return _short_of_elements(data) if data[:4] == b"\x1a\x45\xdf\xa3" else 0


def _short_of_elements(data: bytes) -> int:
  """The same of a Matroska file, by its elements; those of a file that was sent as it was made say no length."""
  at = 0
  while at < len(data):
    length = 9 - data[at].bit_length()
    if length > 4:  # no name of an element
      return 0
    name = data[at : at + length]
    size, at = _ebml_size(data, at + length)
    if size is None and name not in _WITHIN:
      return 0
    at += size or 0
  return at - len(data)


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
  """(the size that a Matroska element says it has, None where it says none; where its content begins)."""
  if at >= len(data) or not data[at]:
    return None, at
  length = 9 - data[at].bit_length()
  value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
  return None if value == (1 << 7 * length) - 1 else value, at + length
