"""Videos: clips of untrusted bytes opened and checked, and frames of them decoded by index.

MP4, WebM, MKV, MOV and AVI are read by FFmpeg (PyAV, of the extra `video`, imported when the first of them is read),
GIF and animated WebP by Pillow, and a zip file of pictures, which is how a folder of frames is stored, frame by frame.
Content decides, never a file name. Opening decodes at most one frame, to see whether it is turned, and of an MP4 that
says so of itself none: what is in the file is listed, so that only the frames that are wanted are decoded, from the key
frame before each.
"""

from __future__ import annotations

import functools
import io
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mmcontrast.data import images, torn_samples
from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError, one_line

LIMITS = images.LIMITS
MOST_FRAMES = 200_000
PICTURES = tuple(f".{suffix}" for suffix in torn_samples.IMAGES)
_RATE = 10.0  # frames a second of a folder of frames, which says nothing of time
_UNEVEN = 1.5  # times the usual time from frame to frame: what is more, or less than its inverse, is a variable rate


class Clip(NamedTuple):
  """An opened video: its bytes, and what is known of its frames.

  Attributes:
    format: "MP4", "WEBM", "GIF", "WEBP", "FRAMES", ...
    times: float64 [N], seconds, rising: when each frame is shown.
    size: width and height in pixels, before it is turned.
    keys: int64, the frames that are decoded without any other; of FFmpeg's formats.
    stamps: int64 [N], `times` as the file counts them; of FFmpeg's formats.
    turned: degrees counter-clockwise by which frames are to be turned to be upright.
    names: of the pictures in a zip file.
    ready: the file as FFmpeg opened it, for the first who decodes frames: to look into it again takes as long as to
      decode many a frame.
  """

  data: bytes
  format: str
  times: np.ndarray
  size: tuple[int, int]
  keys: np.ndarray | None = None
  stamps: np.ndarray | None = None
  turned: int = 0
  names: tuple[str, ...] = ()
  ready: list[Any] | None = None

  @property
  def count(self) -> int:
    """How many frames it has."""
    return len(self.times)

  @property
  def seconds(self) -> float:
    """How long it plays, its last frame as long as the others usually are."""
    return float(self.times[-1] - self.times[0] + (np.median(np.diff(self.times)) if self.count > 1 else 1 / _RATE))


@functools.cache
def _library() -> Any:
  try:
    import av
  except ImportError as error:
    raise UserError(f"videos are read with av ({one_line(error, most=80)}): pip install 'mmcontrast[video]'") from None
  av.logging.set_level(None)
  return av


def check_installed() -> None:
  """Raises UserError, with the line that installs it, where PyAV is missing."""
  _library()


def open_clip(
  data: bytes, limits: Mapping[str, int] = LIMITS, variable_rate: str = "bad", rotated: str = "bad"
) -> Clip:
  """What a video says of itself, checked.

  Args:
    variable_rate: "bad", or "time": it is let through, with evenly timed frames in place of its frames: where one is
      shown longer it is repeated.
    rotated: "bad", or "turn": frames are turned upright.

  Raises:
    BadRecord: no video, one without frames, one that is cut off, one over `limits`, of a variable rate, or rotated.
  """
  if not data:
    raise BadRecord("empty video")
  if len(data) > limits["bytes"]:
    raise BadRecord(f"video of {len(data)} bytes, over data.limits.bytes={limits['bytes']}")
  if missing := _missing_bytes(data):
    raise BadRecord(f"video that is cut off: {missing} bytes of its end are missing")
  clip = _opened(data)
  width, height = clip.size
  if not clip.count:
    raise BadRecord("video without frames")
  if clip.count > MOST_FRAMES:
    raise BadRecord(f"video of {clip.count} frames, more than {MOST_FRAMES}")
  if width * height > limits["pixels"]:
    raise BadRecord(f"video of {width} x {height} pixels, over data.limits.pixels={limits['pixels']}")
  if clip.turned and rotated == "bad":
    raise BadRecord(
      f"rotated video: its frames are to be turned by {clip.turned} degrees; data.video.rotated='turn' does so"
    )
  gaps = np.diff(clip.times)
  if len(gaps) and variable_rate == "bad":
    low, usual, high = gaps.min(), np.median(gaps), gaps.max()
    if low < usual / _UNEVEN or high > usual * _UNEVEN:
      raise BadRecord(
        f"video of a variable rate: {1000 * low:.0f} to {1000 * high:.0f} ms from frame to frame; "
        "data.video.variable_rate='time' samples it by time"
      )
  return clip


def decode_frames(clip: Clip, indices: Sequence[int], short: int | None = None) -> list[np.ndarray]:
  """Frames by index, upright: uint8 [H, W, 3] each, in the order of `indices`; equal indices are one array.

  Args:
    short: the shorter side that is enough; a larger picture of FFmpeg's formats is made smaller as it is converted,
      which takes less time. None: as large as it is.

  Raises:
    BadRecord: one of them cannot be decoded.
  """
  wanted = sorted({int(index) for index in indices})
  try:
    if clip.names:
      found = _of_zip(clip, wanted)
    elif clip.stamps is None:
      found = _of_pillow(clip, wanted)
    else:
      found = _of_ffmpeg(clip, wanted, short)
  except BadRecord:
    raise
  except Exception as error:  # each decoder has errors of its own
    raise BadRecord(f"video whose frames cannot be decoded ({one_line(error, most=80)})") from None
  if clip.turned:
    found = {index: np.ascontiguousarray(np.rot90(frame, clip.turned // 90)) for index, frame in found.items()}
  return [found[int(index)] for index in indices]


def by_time(clip: Clip) -> np.ndarray:
  """int64 [M]: the frame that is shown at each of M evenly spaced times, as far apart as frames usually are."""
  if clip.count < 2:
    return np.arange(clip.count)
  step = max(float(np.median(np.diff(clip.times))), clip.seconds / MOST_FRAMES)
  times = clip.times[0] + step * (np.arange(max(1, round(clip.seconds / step))) + 1e-6)
  return np.maximum(np.searchsorted(clip.times, times, side="right") - 1, 0)


def packed(frames: Iterable[bytes | np.ndarray]) -> bytes:
  """Frames, encoded pictures or uint8 [H, W, 3], as the zip file that stands for a folder of them."""
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as made:
    for number, frame in enumerate(frames):
      data = frame if isinstance(frame, bytes) else _png(frame)
      made.writestr(zipfile.ZipInfo(f"{number:06d}.png"), data)  # content decides what it is, never the name
  return buffer.getvalue()


def in_order(names: Iterable[str]) -> list[str]:
  """The names of pictures as frames follow each other: numbers in them as numbers, frame_2 before frame_10."""
  pictures = [name for name in names if name.lower().endswith(PICTURES)]
  return sorted(pictures, key=lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)])


def _png(frame: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
  return buffer.getvalue()


def _opened(data: bytes) -> Clip:
  if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
    return _open_zip(data)
  if data[:6] in (b"GIF87a", b"GIF89a"):
    return Clip(data, "GIF", _times(_gif_delays(data)), struct.unpack("<HH", data[6:10]))
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    return _open_webp(data)
  if images.header(data) is not None:
    raise BadRecord("a picture, and no video")
  try:
    return _open_ffmpeg(data)
  except BadRecord:
    raise
  except UserError:
    raise
  except Exception as error:
    raise BadRecord(f"not a readable video ({one_line(error, most=80)})") from None


def _times(seconds: Sequence[float]) -> np.ndarray:
  """When frames begin that are shown so long."""
  return np.concatenate([[0.0], np.cumsum(seconds)])[: len(seconds)]


def _open_zip(data: bytes) -> Clip:
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
      names = tuple(in_order(file.namelist()))
      first = images.header(file.read(names[0])) if names else ("", (0, 0))
  except (zipfile.BadZipFile, zipfile.LargeZipFile, OSError, EOFError, ValueError) as error:
    raise BadRecord(f"not a readable zip file of frames ({one_line(error, most=80)})") from None
  if first is None:
    raise BadRecord(f"video whose frame {names[0]} is no readable picture")
  return Clip(data, "FRAMES", np.arange(len(names)) / _RATE, first[1], names=names)


def _of_zip(clip: Clip, wanted: Sequence[int]) -> dict[int, np.ndarray]:
  found = {}
  with zipfile.ZipFile(io.BytesIO(clip.data)) as file:
    for index in wanted:
      try:
        found[index] = images.decode(file.read(clip.names[index]), exact=False)
      except BadRecord as error:
        raise BadRecord(f"video whose frame {index} is bad: {error}") from None
  if len({frame.shape for frame in found.values()}) > 1:
    raise BadRecord("video whose frames are of different sizes")
  return found


def _open_webp(data: bytes) -> Clip:
  delays, at = [], 12
  while at + 8 <= len(data):
    name, size = struct.unpack_from("<4sI", data, at)
    if name == b"ANMF" and at + 24 <= len(data):
      delays.append(int.from_bytes(data[at + 20 : at + 23], "little") / 1000)
    at += 8 + size + size % 2
  if not delays:
    raise BadRecord("a picture, and no video")
  found = images.header(data)
  if found is None:
    raise BadRecord("not a readable video (a WebP file without a picture)")
  return Clip(data, "WEBP", _times(delays), found[1])


def _of_pillow(clip: Clip, wanted: Sequence[int]) -> dict[int, np.ndarray]:
  """Both formats store what changes from frame to frame: all frames up to the last that is wanted are composed."""
  found = {}
  with Image.open(io.BytesIO(clip.data), formats=(clip.format,)) as image:
    for index in wanted:
      image.seek(index)
      found[index] = images.pixels_of(image.copy())
  return found


def _gif_delays(data: bytes) -> list[float]:
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
        delays.append((delay if delay > 1 else 10) / 100)  # what is shorter, every browser shows for 0.1 s
      else:
        raise BadRecord(f"damaged GIF: byte {at} begins no block")
  except (IndexError, struct.error):
    raise BadRecord("video that is cut off: its end is missing") from None
  return delays


def _open_ffmpeg(data: bytes) -> Clip:
  container = _library().open(io.BytesIO(data))
  try:
    clip = _listed(container, data)
    if _is_upright(data):
      return clip._replace(ready=[container])
    stream = container.streams.video[0]
    container.seek(int(clip.stamps[0]), stream=stream)
    clip = clip._replace(turned=round(next(container.decode(stream)).rotation) % 360)
  except BaseException:
    container.close()
    raise
  container.close()
  return clip


def _listed(container: Any, data: bytes) -> Clip:
  """What packets there are, nothing of them decoded."""
  if not container.streams.video:
    raise BadRecord("no video in it, only sound" if container.streams.audio else "no video in it")
  stream = container.streams.video[0]
  packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.size]
  if any(stamp is None for stamp, _ in packets):
    raise BadRecord("video whose frames say no time")
  promised = stream.frames
  if promised > len(packets):
    raise BadRecord(f"video with a broken tail: {len(packets)} of its {promised} frames are there")
  order = sorted(packets)
  stamps = np.array([stamp for stamp, _ in order], np.int64)
  keys = np.flatnonzero([key for _, key in order])
  size = (stream.codec_context.width, stream.codec_context.height)
  if not len(stamps):
    raise BadRecord("video without frames")
  if len(np.unique(stamps)) < len(stamps):
    raise BadRecord("video with two frames at one time")
  name = container.format.name.split(",")
  kind = "WEBM" if "webm" in name and b"webm" in data[:64] else "MKV" if "matroska" in name else name[0].upper()
  return Clip(data, "MP4" if kind == "MOV" else kind, stamps * float(stream.time_base), size, keys, stamps)


def _of_ffmpeg(clip: Clip, wanted: Sequence[int], short: int | None) -> dict[int, np.ndarray]:
  """Each wanted frame from the key frame before it on; of what is decoded in between only what others are made of."""
  keys = clip.keys if len(clip.keys) and clip.keys[0] == 0 else np.append(0, clip.keys)
  before = np.searchsorted(keys, wanted, side="right") - 1
  index_of = {int(clip.stamps[index]): index for index in wanted}
  found: dict[int, np.ndarray] = {}
  with _container(clip) as container:
    stream = container.streams.video[0]
    context = stream.codec_context
    context.thread_count = 1  # the loader's threads are what decodes side by side
    context.options = {"err_detect": "explode"}
    for group in np.unique(before):
      stamps = {int(clip.stamps[index]) for index, its in zip(wanted, before) if its == group}
      container.seek(int(clip.stamps[keys[group]]), stream=stream)
      for packet in container.demux(stream):
        context.skip_frame = "DEFAULT" if packet.pts is None or packet.pts in stamps else "NONREF"
        for frame in packet.decode():
          if frame.pts in stamps:
            if frame.is_corrupt:
              raise BadRecord(f"video whose frame {index_of[frame.pts]} is damaged")
            if (turned := round(frame.rotation) % 360) != clip.turned:
              raise BadRecord(f"rotated video: frame {index_of[frame.pts]} is to be turned by {turned} degrees")
            found[index_of[frame.pts]] = _rgb(frame, short)
            stamps.discard(frame.pts)
        if not stamps:
          break
      if stamps:
        raise BadRecord(f"video with a broken tail: frame {index_of[min(stamps)]} cannot be decoded")
  return found


def _container(clip: Clip) -> Any:
  """The file opened, anew for all but the first who asks."""
  try:
    return clip.ready.pop()
  except (AttributeError, IndexError):
    return _library().open(io.BytesIO(clip.data))


def _rgb(frame: Any, short: int | None) -> np.ndarray:
  scale = min(1.0, short / min(frame.width, frame.height)) if short else 1.0
  if scale == 1.0:
    return frame.to_ndarray(format="rgb24")
  width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
  return frame.reformat(width, height, format="rgb24", interpolation="AREA").to_ndarray()


_PLAIN = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
_MATRICES = {b"mvhd": (36, 48), b"tkhd": (40, 52)}  # box -> where its matrix begins, of versions 0 and 1


def _is_upright(data: bytes) -> bool:
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


def _missing_bytes(data: bytes) -> int:
  """How many bytes an MP4, WebM, AVI or WebP file is short of what it says of itself."""
  if data[:4] == b"RIFF":
    return max(0, 8 + struct.unpack_from("<I", data, 4)[0] - len(data)) if len(data) >= 8 else 0
  if data[4:8] == b"ftyp":
    at = 0
    while at + 8 <= len(data):
      size = struct.unpack_from(">I", data, at)[0]
      if size == 1 and at + 16 <= len(data):
        size = struct.unpack_from(">Q", data, at + 8)[0]
      if size < 8:  # to the end of the file
        return 0
      at += size
    return max(0, at - len(data))
  if data[:4] == b"\x1a\x45\xdf\xa3":
    at = 4
    size, at = _ebml_size(data, at)
    at += size or 0
    if data[at : at + 4] == b"\x18\x53\x80\x67":
      size, at = _ebml_size(data, at + 4)
      return max(0, at + size - len(data)) if size is not None else 0
  return 0


def _ebml_size(data: bytes, at: int) -> tuple[int | None, int]:
  """(the size that a Matroska element says it has, None where it says none; where its content begins)."""
  if at >= len(data) or not data[at]:
    return None, at
  length = 9 - data[at].bit_length()
  value = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
  return None if value == (1 << 7 * length) - 1 else value, at + length
