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
from mmcontrast.data.left_behind import is_left_behind
from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError, one_line
from mmcontrast.modalities.video_bytes import gif_delays, is_upright, missing_bytes, webp_delays

LIMITS = images.LIMITS
MOST_FRAMES = 200_000
PICTURES = tuple(f".{suffix}" for suffix in torn_samples.IMAGES)
_RATE = 10.0  # frames a second of a folder of frames, which says nothing of time
# What FFmpeg may take bytes for: containers of videos, and of sounds, to say that it is one. Others name files and
# addresses that it would open (playlists, descriptions of sessions).
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,ogg,asf,mxf,ivf,yuv4mpegpipe,h264,hevc,wav,mp3,flac,aac,aiff,amr"
_UNEVEN = 1.5  # times the usual time from frame to frame: what is more, or less than its inverse, is a variable rate


class Clip(NamedTuple):
  """An opened video: its bytes, and what is known of its frames.

  Attributes:
    format: "MP4", "WEBM", "GIF", "WEBP", "FRAMES", ...
    times: float64 [N], seconds, rising: when each frame is shown.
    size: width and height in pixels, before it is turned.
    keys: int64, the frames that are decoded without any other; of FFmpeg's formats.
    stamps: int64 [N], `times` as the file counts them; of FFmpeg's formats.
    turned, mirrored: degrees counter-clockwise by which frames are to be turned to be upright; whether they are to be
      mirrored, left for right, before.
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
  mirrored: bool = False
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
  if missing := missing_bytes(data):
    raise BadRecord(f"video that is cut off: {missing} bytes of its end are missing")
  clip = _opened(data, limits)
  width, height = clip.size
  if not clip.count:
    raise BadRecord("video without frames")
  if clip.count > MOST_FRAMES:
    raise BadRecord(f"video of {clip.count} frames, more than {MOST_FRAMES}")
  if width * height > limits["pixels"]:
    raise BadRecord(f"video of {width} x {height} pixels, over data.limits.pixels={limits['pixels']}")
  if (clip.turned or clip.mirrored) and rotated == "bad":
    raise BadRecord(f"{_asked(clip.turned, clip.mirrored)}; data.video.rotated='turn' does so")
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
    raise BadRecord(f"video whose frames cannot be decoded ({_reason(error)})") from None
  if len({frame.shape for frame in found.values()}) > 1:
    raise BadRecord("video whose frames are of different sizes")
  if clip.turned or clip.mirrored:
    step = -1 if clip.mirrored else 1
    found = {
      index: np.ascontiguousarray(np.rot90(frame[:, ::step], clip.turned // 90)) for index, frame in found.items()
    }
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
  """The names of pictures as frames follow each other: numbers in them as numbers, frame_2 before frame_10.

  Without those of files that a system left there.
  """

  def key(name: str) -> list[Any]:
    parts = re.split(r"(\d+)", name)  # words and numbers in turn
    return [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else part for at, part in enumerate(parts)]

  pictures = (name for name in names if name.lower().endswith(PICTURES))
  found = [name for name in pictures if not any(map(is_left_behind, name.split("/")))]
  return sorted(found, key=lambda name: (key(name), name))


def _png(frame: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
  return buffer.getvalue()


def _opened(data: bytes, limits: Mapping[str, int]) -> Clip:
  if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
    return _open_zip(data, limits)
  if data[:6] in (b"GIF87a", b"GIF89a"):
    return Clip(data, "GIF", _times(gif_delays(data)), struct.unpack("<HH", data[6:10]))
  if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
    return _open_webp(data)
  if images.header(data) is not None:
    raise BadRecord("a picture, and no video")
  try:
    return _open_ffmpeg(data)
  except (BadRecord, UserError):
    raise
  except Exception as error:
    if data[4:8] == b"ftyp" and b"moov" not in data:
      raise BadRecord("video that is cut off: its index (moov) is missing") from None
    raise BadRecord(f"not a readable video ({_reason(error)}; it begins with {data[:8]!r})") from None


def _reason(error: Exception) -> str:
  return one_line(getattr(error, "strerror", None) or error, most=80)


def _asked(turned: int, mirrored: bool, what: str = "its frames are") -> str:
  """How a video asks to be shown."""
  how = ["mirrored"] * mirrored + [f"turned by {turned} degrees"] * bool(turned or not mirrored)
  return f"{'rotated' if turned else 'mirrored'} video: {what} to be {' and '.join(how)}"


def _times(seconds: Sequence[float]) -> np.ndarray:
  """When frames begin that are shown so long."""
  return np.concatenate([[0.0], np.cumsum(seconds)])[: len(seconds)]


def _open_zip(data: bytes, limits: Mapping[str, int]) -> Clip:
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as file:
      names = tuple(in_order(file.namelist()))
      if not names:
        raise BadRecord("video without frames: a zip file without pictures")
      sizes = [file.getinfo(name).file_size for name in names]
      if max(sizes) > limits["bytes"]:
        raise BadRecord(f"video whose frame {names[int(np.argmax(sizes))]} has {max(sizes)} bytes, over "
                        f"data.limits.bytes={limits['bytes']}")  # fmt: skip
      first = images.header(file.read(names[0]))
  except BadRecord:
    raise
  except Exception as error:  # encrypted, of a compression that is not known, damaged: each has an error of its own
    raise BadRecord(f"not a readable zip file of frames ({_reason(error)})") from None
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
  return found


def _open_webp(data: bytes) -> Clip:
  delays = webp_delays(data)
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


def _file(data: bytes, options: Mapping[str, str] = {}) -> Any:
  return _library().open(io.BytesIO(data), container_options={"format_whitelist": _CONTAINERS, **options})


def _pictures(container: Any) -> Any:
  """The stream of a file's frames; the cover of a record of music is none. None where there is no such stream."""
  cover = _library().stream.Disposition.attached_pic
  return next((stream for stream in container.streams.video if not stream.disposition & cover), None)


def _open_ffmpeg(data: bytes) -> Clip:
  container = _file(data)
  try:
    clip = _listed(container, data)
    if is_upright(data):
      return clip._replace(ready=[container])
    stream = _pictures(container)
    container.seek(int(clip.stamps[0]), stream=stream)
    turned, mirrored = _way(next(container.decode(stream)))
    clip = clip._replace(turned=turned, mirrored=mirrored)
  except BaseException:
    container.close()
    raise
  container.close()
  return clip


def _listed(container: Any, data: bytes) -> Clip:
  """What packets there are, nothing of them decoded."""
  stream = _pictures(container)
  if stream is None:
    raise BadRecord("no video in it, only sound" if container.streams.audio else "no video in it")
  packets = [(packet.pts, packet.is_keyframe, packet.is_discard) for packet in container.demux(stream) if packet.size]
  if any(stamp is None for stamp, _, _ in packets):
    raise BadRecord("video whose frames say no time")
  promised = stream.frames
  if promised > len(packets) and promised > (there := _stored(data)):
    raise BadRecord(f"video with a broken tail: {there} of its {promised} frames are there")
  # What an edit list cuts off is decoded, for others are made of it, and never shown.
  order = sorted((stamp, key) for stamp, key, unseen in packets if not unseen)
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


def _stored(data: bytes) -> int:
  """How many frames there are, those among them that an edit list leaves out."""
  with _file(data, {"ignore_editlist": "1"} if b"elst" in data else {}) as container:
    return sum(packet.size > 0 for packet in container.demux(_pictures(container)))


def _way(frame: Any) -> tuple[int, bool]:
  """(degrees counter-clockwise, whether it is mirrored before) by which a frame becomes upright.

  Of the matrix of ISO/IEC 14496-12: a point (x, y), y down, is shown at (a x + c y, b x + d y).
  Raises BadRecord for what is no quarter of a turn.
  """
  matrix = next((side for side in frame.side_data if side.type.name == "DISPLAYMATRIX"), None)
  if matrix is None:
    return 0, False
  a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5] / 65536.0
  mirrored = a * d - b * c < 0
  if mirrored:
    a, b = -a, -b
  turned = round(np.degrees(np.arctan2(-b, a))) % 360
  if not a * d - b * c or turned % 90:
    raise BadRecord(f"video whose frames are to be shown by the matrix [{a:g} {c:g}; {b:g} {d:g}], which is no "
                    "quarter of a turn")  # fmt: skip
  return turned, bool(mirrored)


def _of_ffmpeg(clip: Clip, wanted: Sequence[int], short: int | None) -> dict[int, np.ndarray]:
  """Each wanted frame from the key frame before it on; of what is decoded in between only what others are made of.

  Some decoders cannot leave frames out, and some containers do not find a time: what is missing then is looked for once
  more, in all that is there.
  """
  found = _between_keys(clip, wanted, short)
  missing = [index for index in wanted if index not in found]
  if missing:
    with _ready(_file(clip.data)) as container:
      found |= _decoded(clip, container, missing, short, skip=False)
  missing = [index for index in wanted if index not in found]
  if missing:
    raise BadRecord(f"video with a broken tail: frame {missing[0]} cannot be decoded")
  return found


def _between_keys(clip: Clip, wanted: Sequence[int], short: int | None) -> dict[int, np.ndarray]:
  keys = clip.keys if len(clip.keys) and clip.keys[0] == 0 else np.append(0, clip.keys)
  before = np.searchsorted(keys, wanted, side="right") - 1
  found: dict[int, np.ndarray] = {}
  with _ready(_container(clip)) as container:
    for group in np.unique(before):
      container.seek(int(clip.stamps[keys[group]]), stream=_pictures(container))
      found |= _decoded(clip, container, [index for index, its in zip(wanted, before) if its == group], short)
  return found


def _decoded(
  clip: Clip, container: Any, wanted: Sequence[int], short: int | None, skip: bool = True
) -> dict[int, np.ndarray]:
  """Those of the wanted frames that come from where a file stands. `skip`: frames that nothing is made of are left."""
  index_of = {int(clip.stamps[index]): index for index in wanted}
  found: dict[int, np.ndarray] = {}
  stream = _pictures(container)
  context = stream.codec_context
  for packet in container.demux(stream):
    context.skip_frame = "NONREF" if skip and packet.pts is not None and packet.pts not in index_of else "DEFAULT"
    for frame in packet.decode():
      if (index := index_of.get(frame.pts)) is None:
        continue
      if frame.is_corrupt:
        raise BadRecord(f"video whose frame {index} is damaged")
      if (way := _way(frame)) != (clip.turned, clip.mirrored):
        raise BadRecord(_asked(*way, f"frame {index} is"))
      found[index] = _rgb(frame, short)
    if len(found) == len(index_of):
      break
  return found


def _ready(container: Any) -> Any:
  """A file of which nothing was decoded, set so that one thread decodes it and damage is an error."""
  context = _pictures(container).codec_context
  context.thread_count = 1  # the loader's threads are what decodes side by side
  context.options = {"err_detect": "explode"}
  return container


def _container(clip: Clip) -> Any:
  """The file opened, anew for all but the first who asks."""
  try:
    return clip.ready.pop()
  except (AttributeError, IndexError):
    return _file(clip.data)


def _rgb(frame: Any, short: int | None) -> np.ndarray:
  scale = min(1.0, short / min(frame.width, frame.height)) if short else 1.0
  if scale == 1.0:
    return frame.to_ndarray(format="rgb24")
  width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
  return frame.reformat(width, height, format="rgb24", interpolation="AREA").to_ndarray()
