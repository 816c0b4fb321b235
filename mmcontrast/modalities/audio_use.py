"""Sounds in use: files, arrays with a rate in, what evaluation hears of them, waveforms and players."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError
from mmcontrast.modalities.audio_reading import cut, decode, from_array, header, to_wav
from mmcontrast.modalities.use import InUse, Shown, as_list, frequent, is_array

_SIDE = 192  # pixels of a waveform
_INK, _PAPER = (42, 92, 140), (246, 247, 249)
PLACES = {"first": 0.0, "middle": 0.5}
"""Where a sound that is longer than a view is cut: the share of the places, see `audio_reading.cut`."""


class AudioInUse(InUse):
  """Raw: the bytes of a file. Value: float32 [S] at data.audio.rate, as long as the sound, at most data.audio.seconds.

  From outside: a path, the bytes of a file, (samples, rate), or float32 [S] at data.audio.rate; opened, the bytes of a
  file.
  """

  name, a, nouns, asked = "audio", "a sound", "sounds", "the path of a sound"
  taken = "give a path, the bytes of a file, (samples, rate), or float32 [S] at data.audio.rate"
  field, heard = "audio", True
  # Hz, or the column that says them, of sounds that are arrays without a rate.
  source_options: ClassVar = {"audio": None, "audio_rate": None}
  suffixes = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff")

  def raw_of(self, value: Any, column: str, row: Mapping[str, Any], options: Mapping[str, Any]) -> bytes | None:
    """A WAV file of samples: of {"array", "sampling_rate"} as Hugging Face writes, or of a list or an array."""
    rate = options["audio_rate"]
    rate = row.get(rate) if isinstance(rate, str) else rate
    if isinstance(value, Mapping):
      value, rate = value.get("array"), value.get("sampling_rate", rate)
    if not isinstance(value, list | np.ndarray):
      return None
    if rate is None:
      raise BadRecord(f"column {column!r} holds samples without a rate; set data.source.audio_rate to their Hz")
    try:
      return to_wav(value, float(rate))
    except (TypeError, ValueError) as error:
      raise BadRecord(f"column {column!r}: {error}") from None

  def evaluation_view(self, raw: bytes, settings: Mapping) -> np.ndarray:
    return self._cut(decode(raw, settings["audio"]["rate"], limits(settings)), settings)

  def many(self, things: Any, where: str) -> list:
    if is_array(things) and np.asarray(things).dtype.kind in "fiu":
      return list(np.asarray(things)) if things.ndim == 2 else [things]
    return [things] if self.takes(things) else as_list(things, where, "not a sound", self.taken)

  def takes(self, thing: Any) -> bool:
    with_rate = isinstance(thing, tuple) and len(thing) == 2 and is_array(thing[0]) and np.isscalar(thing[1])
    array = is_array(thing) and thing.ndim == 1 and np.asarray(thing).dtype.kind in "fiu"
    return with_rate or array or super().takes(thing)

  def checked(self, thing: Any, name: str) -> Any:
    if isinstance(thing, tuple) and self.takes(thing):
      try:
        return to_wav(*thing)
      except BadRecord as error:
        raise UserError(f"{name}: {error}; {self.taken}") from None
    return thing if is_array(thing) else super().checked(thing, name)

  def accepts(self, thing: Any, settings: Mapping, name: str) -> np.ndarray:
    samples, rate = thing if isinstance(thing, tuple) and self.takes(thing) else (thing, settings["audio"]["rate"])
    if not is_array(samples):
      return super().accepts(thing, settings, name)
    try:
      if samples.ndim != 1 and samples is thing:
        raise BadRecord(f"samples of shape {tuple(samples.shape)}")
      return self._cut(from_array(samples, rate, settings["audio"]["rate"], limits(settings)), settings)
    except BadRecord as error:
      raise UserError(f"{name}: {error}; {self.taken}") from None

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> dict[str, np.ndarray]:
    """Waveforms, followed by zeros, and how many samples of each are sound."""
    if isinstance(values, Mapping):
      return dict(values)
    padded = [cut(np.asarray(value, np.float32), view_length(settings), 0.0) for value in values]
    waves, lengths = zip(*padded)
    return {"audio": np.stack(waves), "audio_length": np.array(lengths, np.int32)}

  def size(self, settings: Mapping) -> str:
    return f"sounds of {settings['audio']['seconds']:g} s"

  def show(self, thing: Any) -> Shown:
    if not isinstance(thing, bytes):
      return Shown(waveform(np.asarray(thing)))
    rate = (header(thing) or header(to_wav(np.zeros(2, np.float32), 16_000))).rate
    wave = decode(thing, rate)
    return Shown(waveform(wave), file=(".wav", to_wav(wave, rate)))

  def described(self, records: Sequence[Sequence[bytes]]) -> str:
    found = [raw for things in records for raw in things]
    if not found:
      return f"none in {len(records)} records"
    headers = [header(raw) for raw in found]
    kinds = collections.Counter(f"{one.format} {one.rate} Hz" if one else "NOT READABLE" for one in headers)
    text = f"{len(found)} of {len(records)} records; {frequent(kinds)}; {sum(map(len, found)) / len(found) / 1024:.1f} "
    if seconds := sorted(one.seconds for one in headers if one):
      spread = " / ".join(f"{seconds[int(place * (len(seconds) - 1))]:.2f}" for place in (0, 0.5, 1))
      return f"{text}KiB each; {spread} seconds (least / median / most)"
    return f"{text}KiB each"

  def describe(self, raw: bytes) -> str:
    one = header(raw)
    if one is None:
      return f"NOT READABLE, {len(raw)} bytes"
    channels = {1: "mono", 2: "stereo"}.get(one.channels, f"{one.channels} channels")
    return f"{one.format} {one.rate} Hz {channels} {one.seconds:.2f} s, {len(raw)} bytes"

  def _cut(self, wave: np.ndarray, settings: Mapping) -> np.ndarray:
    samples, count = cut(wave, view_length(settings), PLACES[settings["audio"]["evaluation_crop"]])
    return samples[:count]


def view_length(settings: Mapping) -> int:
  """Samples of a view."""
  return round(settings["audio"]["rate"] * settings["audio"]["seconds"])


def limits(settings: Mapping) -> dict[str, float]:
  """What is read at most of one sound: see `audio_reading.LIMITS`."""
  return {"bytes": settings["limits"]["bytes"], "seconds": settings["audio"]["longest"]}


def waveform(wave: np.ndarray, side: int = _SIDE) -> np.ndarray:
  """A picture of a sound, uint8 [side, side, 3]: in each column from the least to the largest of its samples, the
  loudest as high as the picture."""
  wave = np.asarray(wave, np.float32).reshape(-1)
  peak = float(np.abs(wave).max(initial=0)) or 1.0
  parts = np.array_split(wave / peak, min(side, max(len(wave), 1)))
  low, high = (np.array([edge(part, initial=0) for part in parts]) for edge in (np.min, np.max))
  column = np.minimum(np.arange(side) * len(parts) // side, len(parts) - 1)
  height = np.linspace(1.06, -1.06, side)[:, None]
  ink = (height <= high[column] + 0.012) & (height >= low[column] - 0.012)
  return np.where(ink[..., None], np.array(_INK, np.uint8), np.array(_PAPER, np.uint8))
