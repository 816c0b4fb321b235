"""Sound: decoding of untrusted bytes within limits, to one channel at one rate, and the cut of training.

WAV, AIFF, FLAC, OGG (Vorbis, Opus) and MP3 are decoded by libsndfile (soundfile), rates are changed by soxr. Both are
in the extra `audio` and imported when the first sound is read. A sound that is damaged or cut off is bad, even where a
decoder could play a part of it. Content decides, never a file name.
"""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError, one_line

LIMITS = {"bytes": 2**26, "seconds": 600.0}  # of one sound: as stored, and as it plays
FORMATS = ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "MP3")
RATES = (1_000, 768_000)  # samples a second: what lies outside is a damaged header
MOST_SAMPLES = 2**28  # of all channels together
LOUDEST = 100.0  # full scale is 1; floats beyond this are integers that nobody divided
_SLOPPY_BYTES = 64  # by which some programs write the size of WAV's samples too large
_MP3_FRAMES = 2 * 1152  # samples at the end that an encoder counts and a decoder may not give


class Header(NamedTuple):
  """What an encoded sound says of itself."""

  format: str
  rate: int
  channels: int
  seconds: float


@functools.cache
def _libraries() -> tuple[Any, Any]:
  """(soundfile, soxr)."""
  try:
    import soundfile
    import soxr
  except (ImportError, OSError) as error:  # OSError: soundfile without libsndfile
    raise UserError(
      f"sound is read with soundfile and soxr ({one_line(error, most=80)}): pip install 'mmcontrast[audio]'"
    ) from None
  return soundfile, soxr


def check_installed() -> None:
  """Raises UserError, with the line that installs them, where soundfile or soxr is missing."""
  _libraries()


def decode(data: bytes, rate: int, limits: Mapping[str, float] = LIMITS) -> np.ndarray:
  """An encoded sound as float32 [S] at `rate` samples a second, its channels averaged.

  Full scale is 1. 8, 16, 24 and 32 bits, floats, and any rate and number of channels are read alike.

  Raises:
    BadRecord: no sound, a damaged one, one that is cut off, silence, values that are not finite, or one over `limits`
      (checked before samples take memory).
  """
  soundfile, _ = _libraries()
  if not data:
    raise BadRecord("empty sound")
  if len(data) > limits["bytes"]:
    raise BadRecord(f"sound of {len(data)} bytes, over data.limits.bytes={limits['bytes']}")
  try:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
      _check_format(file, data)
      _check_size(file.frames, file.channels, file.samplerate, limits)
      expected, lossy = file.frames, _MP3_FRAMES if file.format == "MP3" else 0
      samples, source_rate = file.read(dtype="float32", always_2d=True), file.samplerate
  except soundfile.LibsndfileError as error:
    raise BadRecord(f"not a readable sound ({_reason(error, data)})") from None
  if missing := _missing_bytes(data):
    raise BadRecord(f"sound that is cut off: {missing} bytes of it are missing")
  if len(samples) + lossy < expected:
    raise BadRecord(f"damaged sound: {len(samples)} of {expected} samples can be read")
  return _mono(samples, source_rate, rate)


def from_array(samples: Any, source_rate: float, rate: int, limits: Mapping[str, float] = LIMITS) -> np.ndarray:
  """Samples that are decoded already, as `decode` has them: float32 [S].

  Args:
    samples: [S], [S, channels] or [channels, S]: of two axes the shorter is the channels. Floats have full scale 1,
      integers that of their type (uint8, as WAV has it, lies round 128).
    source_rate: samples a second.

  Raises BadRecord as `decode`, and for other shapes and types.
  """
  samples = _floats(samples, source_rate)
  _check_size(*samples.shape, int(source_rate), limits)
  return _mono(samples, int(source_rate), rate)


def to_wav(samples: Any, rate: float) -> bytes:
  """Samples that are decoded already as a WAV file of 32-bit floats, which `decode` reads to the same numbers.

  So a record holds sound in one form, whatever a table held. Arguments and errors as of `from_array`.
  """
  samples = np.ascontiguousarray(_floats(samples, rate), "<f4")
  channels, size = samples.shape[1], samples.nbytes
  form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, channels, int(rate), int(rate) * channels * 4, channels * 4, 32)
  return (
    struct.pack("<4sI4s", b"RIFF", size + 36, b"WAVE") + form + struct.pack("<4sI", b"data", size) + samples.tobytes()
  )


def header(data: bytes) -> Header | None:
  """What an encoded sound says of itself; None where nothing is known of it."""
  soundfile, _ = _libraries()
  try:
    with soundfile.SoundFile(io.BytesIO(data)) as file:
      return Header(file.format, file.samplerate, file.channels, file.frames / max(file.samplerate, 1))
  except soundfile.LibsndfileError:
    return None


def cut(wave: np.ndarray, length: int, place: float) -> tuple[np.ndarray, int]:
  """`length` samples of a sound, and how many of them are sound; one that is shorter is followed by zeros.

  Args:
    wave: float32 [S].
    place: where in a longer sound they begin, a share of the places: 0 the beginning, 0.5 the middle, a uniform number
      anywhere.

  Returns:
    (float32 [length], min(S, length)).
  """
  spare = len(wave) - length
  if spare <= 0:
    return np.pad(wave, (0, -spare)), len(wave)
  start = min(int(place * (spare + 1)), spare)
  return wave[start : start + length], length


def _floats(samples: Any, rate: Any) -> np.ndarray:
  """An array as `from_array` takes it as float32 [S, channels], full scale 1."""
  try:
    samples = np.asarray(samples)
  except ValueError as error:
    raise BadRecord(f"sound that is no array ({one_line(error, most=80)})") from None
  if samples.ndim not in (1, 2):
    raise BadRecord(f"sound of shape {samples.shape}; an array of samples, or of samples and channels, is read")
  if not samples.size:
    raise BadRecord("sound without samples")
  samples = samples.reshape(len(samples), -1)
  samples = samples.T if samples.shape[0] < samples.shape[1] else samples
  if not _is_rate(rate):
    raise BadRecord(f"sound with a rate of {rate!r}; samples a second are from {RATES[0]} to {RATES[1]}")
  if samples.dtype == np.uint8:
    return (samples.astype(np.float32) - 128) / 128
  if samples.dtype == np.int64:  # of JSON and of TFDS: 16 bits, or more where they do not fit
    samples = samples.astype(np.int16 if np.abs(samples).max() <= 2**15 else np.int32).reshape(samples.shape)
  if np.issubdtype(samples.dtype, np.signedinteger):
    return (samples / -float(np.iinfo(samples.dtype).min)).astype(np.float32)
  if not np.issubdtype(samples.dtype, np.floating):
    raise BadRecord(f"sound of type {samples.dtype}; floats, uint8 and signed integers are read")
  return samples.astype(np.float32)


def _mono(samples: np.ndarray, source_rate: int, rate: int) -> np.ndarray:
  """float32 [S, channels] at `source_rate` -> float32 [S] at `rate`, checked."""
  if not len(samples):
    raise BadRecord("sound without samples")
  if not np.isfinite(samples).all():
    raise BadRecord("sound with values that are not finite (NaN or infinity)")
  if (peak := float(np.abs(samples).max())) > LOUDEST:
    raise BadRecord(f"sound with values up to {peak:g}, where full scale is 1: integers, which nobody has divided?")
  wave = _averaged(samples)
  if len(wave) > 1 and wave.min() == wave.max():
    cause = " once its channels are averaged: one is the other upside down" if peak and samples.shape[1] > 1 else ""
    raise BadRecord(f"silence: every sample is {wave[0]:g}{cause}")
  if source_rate != rate:
    wave = _libraries()[1].resample(wave, source_rate, rate)
  if len(wave) < 2:
    raise BadRecord(f"sound of {len(samples)} samples at {source_rate} Hz, too short")
  return np.ascontiguousarray(wave, np.float32)


def _averaged(samples: np.ndarray) -> np.ndarray:
  """[S, channels] -> [S]. Column by column: numpy's mean of an axis of two takes forty times as long."""
  first, *others = samples.T
  wave = first.copy() if others else first
  for channel in others:
    wave += channel
  return wave / samples.dtype.type(len(others) + 1) if others else wave


def _is_rate(rate: Any) -> bool:
  number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
  return bool(number and RATES[0] <= rate <= RATES[1])


def _check_format(file: Any, data: bytes) -> None:
  if file.format not in FORMATS:
    raise BadRecord(f"not a readable sound ({file.format_info}; {', '.join(FORMATS[2:])} and WAV are read)")


def _check_size(frames: int, channels: int, rate: int, limits: Mapping[str, float]) -> None:
  if not _is_rate(rate):
    raise BadRecord(f"sound with a rate of {rate}; samples a second are from {RATES[0]} to {RATES[1]}")
  if frames / rate > limits["seconds"]:
    raise BadRecord(f"sound of {frames / rate:.1f} seconds, over data.audio.longest={limits['seconds']:g}")
  if frames * channels > MOST_SAMPLES:
    raise BadRecord(f"sound of {frames} samples in {channels} channels, more than {MOST_SAMPLES} together")


def _reason(error: Any, data: bytes) -> str:
  reason = one_line(error.error_string, most=80).removeprefix("Error : ").rstrip(".")
  unknown = "not recognised" in reason or "not a regular file" in reason
  return f"of no known format; it begins with {data[:8]!r}" if unknown else reason


def _missing_bytes(data: bytes) -> int:
  """How many bytes a WAV, AIFF or OGG file is short of what it says of itself; libsndfile plays what is left of it."""
  if data[:4] == b"OggS":
    end = max(end for _, end in _ogg_pages(data))
    return max(0, end - len(data))
  if data[:4] not in (b"RIFF", b"RF64", b"FORM"):
    return 0
  long_size = None
  for name, start, size in _chunks(data):
    if name == b"ds64":  # of RF64: sizes of the file and of its samples, in 64 bits
      long_size = struct.unpack_from("<Q", data, start + 8)[0] if start + 16 <= len(data) else None
    elif name in (b"data", b"SSND"):
      if size in (0, 0xFFFFFFFF, 0x7FFFFFFF):  # not known when the header was written: of a stream
        size = long_size or 0
      short = start + size - len(data)
      return short if short > _SLOPPY_BYTES else 0
  return 0


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
  """(name, where its content begins, its size) of each chunk of a RIFF, RF64 or FORM file."""
  order, at = ">" if data[:4] == b"FORM" else "<", 12
  while at + 8 <= len(data):
    name, size = struct.unpack_from(f"{order}4sI", data, at)
    yield name, at + 8, size
    at += 8 + size + size % 2


def _ogg_pages(data: bytes) -> Iterator[tuple[int, int]]:
  """(start, end) of each page of an OGG file, as far as one follows the other."""
  at, page = 0, 27  # bytes of a page's header before its table of sizes
  while data[at : at + 4] == b"OggS":
    count = data[at + page - 1] if at + page <= len(data) else 255
    sizes = data[at + page : at + page + count]
    end = at + page + count + sum(sizes)
    yield at, end
    at = end
