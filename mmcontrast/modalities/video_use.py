"""Videos in use: files, folders of frames and arrays in, the frames that evaluation sees, frames in a row."""

from __future__ import annotations

import collections
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mmcontrast.data import native, transforms
from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError
from mmcontrast.modalities.use import InUse, Shown, as_list, frequent, is_array
from mmcontrast.modalities.video_reading import Clip, by_time, decode_frames, in_order, open_clip, packed
from mmcontrast.modalities.video_sampling import frame_indices

_SHOWN, _SIDE, _GAP = 4, 96, 2  # frames in a row of a picture, and pixels
_CHECKED = 64


class VideoInUse(InUse):
  """Raw: the bytes of a file, of a folder of frames those of a zip file. Value: uint8 [T, S, S, 3], T =
  data.video.frames, S = data.video.size.

  From outside: a path, of a folder of frames too, the bytes of a file, or uint8 [N, H, W, 3], N frames; opened, the
  bytes of a file.
  """

  name, a, nouns, asked = "video", "a video", "videos", "the path of a video"
  taken = "give a path, the bytes of a file, or frames uint8 [N, H, W, 3]"
  field = "video"
  source_options: ClassVar = {"video": None}
  suffixes = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi")
  folders = True

  def raw_of(self, value: Any, column: str, row: Mapping[str, Any], options: Mapping[str, Any]) -> bytes | None:
    """A zip file of the frames of an array, uint8 [N, H, W, 3], as TFDS gives videos."""
    if not is_array(value):
      return None
    try:
      return packed(_checked(value))
    except BadRecord as error:
      raise BadRecord(f"column {column!r}: {error}") from None

  def of_files(self, files: Sequence[bytes]) -> bytes:
    return packed(files)  # one that is missing is met as a frame that is no picture

  def files_in(self, names: Sequence[str]) -> list[str]:
    return in_order(names)

  def evaluation_view(self, raw: bytes, settings: Mapping) -> np.ndarray:
    return evaluation_frames(opened(raw, settings), settings)

  def many(self, things: Any, where: str) -> list:
    if is_array(things):
      return list(np.asarray(things)) if things.ndim in (1, 5) else [things]
    return [things] if self.takes(things) else as_list(things, where, "not a video", self.taken)

  def takes(self, thing: Any) -> bool:
    return (is_array(thing) and thing.ndim == 4) or super().takes(thing)

  def file_of(self, thing: Any, name: str) -> bytes:
    """As of any modality; of a folder of frames the zip file of them, of an array too."""
    try:
      if is_array(thing):
        return packed(_checked(thing))
      if isinstance(thing, str | os.PathLike) and "://" not in os.fspath(thing) and os.path.isdir(thing):
        folder = pathlib.Path(thing)
        frames = in_order(entry.name for entry in folder.iterdir())
        if not frames:
          raise UserError(f"{folder}: a folder without pictures; give the path of a video, or of a folder of frames")
        return packed((folder / frame).read_bytes() for frame in frames)
    except BadRecord as error:
      raise UserError(f"{name}: {error}; {self.taken}") from None
    except OSError as error:
      raise UserError(f"{error.filename}: {error.strerror}; {self.taken}") from None
    return super().file_of(thing, name)

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> np.ndarray:
    return np.asarray(values)

  def size(self, settings: Mapping) -> str:
    return f"videos of {settings['video']['frames']} frames of {settings['video']['size']} px"

  def show(self, thing: Any) -> Shown:
    if not isinstance(thing, bytes):
      frames = np.asarray(thing)
      return Shown(in_a_row([frames[index] for index in _spread(len(frames))]))
    clip = open_clip(thing, variable_rate="time", rotated="turn")
    return Shown(in_a_row(decode_frames(clip, _spread(clip.count), 2 * _SIDE)))

  def described(self, records: Sequence[Sequence[bytes]]) -> str:
    found = [raw for things in records for raw in things]
    if not found:
      return f"none in {len(records)} records"
    clips = [clip for raw in found if (clip := _lenient(raw))]
    kinds = collections.Counter(clip.format for clip in clips)
    kinds["NOT READABLE"] = len(found) - len(clips)
    text = f"{len(found)} of {len(records)} records; {frequent(kinds)}; "
    text += f"{sum(map(len, found)) / len(found) / 1024:.1f} KiB each"
    if not clips:
      return text
    frames, seconds = sorted(clip.count for clip in clips), sorted(clip.seconds for clip in clips)
    sizes = sorted({clip.size for clip in clips})
    places = [int(place * (len(clips) - 1)) for place in (0, 0.5, 1)]
    sides = " to ".join(f"{width}x{height}" for width, height in dict.fromkeys((sizes[0], sizes[-1])))
    counts, times = (" / ".join(f"{of[at]:{form}}" for at in places) for of, form in ((frames, "d"), (seconds, ".2f")))
    return f"{text}; {sides}; {counts} frames, {times} seconds (least / median / most)"

  def describe(self, raw: bytes) -> str:
    clip = _lenient(raw)
    if clip is None:
      return f"NOT READABLE, {len(raw)} bytes"
    return f"{clip.format} {clip.size[0]}x{clip.size[1]} {clip.count} frames {clip.seconds:.2f} s, {len(raw)} bytes"

  def check_raw(self, raw: bytes) -> None:
    """Its last frame is decoded too, which a broken tail lacks; of pictures, each of which may be bad, up to 64."""
    clip = open_clip(raw)
    most = min(clip.count, _CHECKED if clip.names else 2)
    decode_frames(clip, [round(place) for place in np.linspace(0, clip.count - 1, most)], _SIDE)


def opened(raw: bytes, settings: Mapping) -> Clip:
  """A clip as resolved config.data lets it through. Raises BadRecord."""
  video = settings["video"]
  return open_clip(raw, settings["limits"], video["variable_rate"], video["rotated"])


def chosen_frames(clip: Clip, draws: np.ndarray, settings: Mapping) -> np.ndarray:
  """int64 [T]: the frames of a view, by data.video and T uniform numbers."""
  video = settings["video"]
  frames = by_time(clip) if video["variable_rate"] == "time" else np.arange(clip.count)
  return frames[frame_indices(len(frames), video["frames"], draws, video["sampling"], video["stride"])]


def evaluation_frames(clip: Clip, settings: Mapping) -> np.ndarray:
  """uint8 [T, S, S, 3]: the frames in the middle of equal parts, each as evaluation sees an image. Raises BadRecord."""
  video = settings["video"]
  shown = {**settings, "image_size": video["size"], "trim": False, "native": native.DEFAULTS}
  frames = decode_frames(clip, chosen_frames(clip, np.full(video["frames"], 0.5), settings))
  made = {id(frame): transforms.evaluation_view(frame, shown) for frame in frames}
  return np.stack([made[id(frame)] for frame in frames])


def in_a_row(frames: Sequence[np.ndarray]) -> np.ndarray:
  """Frames uint8 [H, W, 3] as one picture, from left to right: uint8 [_, _, 3]."""
  width = max(1, round(_SIDE * frames[0].shape[1] / frames[0].shape[0]))
  tiles = [np.asarray(Image.fromarray(frame).resize((width, _SIDE), Image.Resampling.BILINEAR)) for frame in frames]
  tiles = [np.pad(tile, ((0, _GAP), (0, _GAP), (0, 0)), constant_values=255) for tile in tiles]
  return np.concatenate(tiles, axis=1)


def _spread(count: int) -> list[int]:
  return [round(place) for place in np.linspace(0, count - 1, min(_SHOWN, count))]


def _lenient(raw: bytes) -> Clip | None:
  try:
    return open_clip(raw, variable_rate="time", rotated="turn")
  except BadRecord:
    return None


def _checked(frames: Any) -> np.ndarray:
  """Frames of an array. Raises BadRecord where it is none."""
  frames = np.asarray(frames)
  if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
    raise BadRecord(f"{frames.dtype} {list(frames.shape)} is not uint8 [N, H, W, 3]")
  return frames
