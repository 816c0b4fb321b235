"""Sounds of every format, rate, width and fault: the right samples, or a record that is bad for the right reason."""

import io
import struct
import sys

import numpy as np
import pytest
import soundfile
import soxr

from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError
from mmcontrast.modalities import audio_reading
from mmcontrast.modalities.audio_reading import cut, decode, from_array, header, to_wav

RATE = 16_000
SECONDS = 0.5


def tone(rate=RATE, seconds=SECONDS, channels=1):
  at = np.arange(round(rate * seconds)) / rate
  wave = 0.4 * np.sin(2 * np.pi * 440 * at) + 0.05 * np.random.default_rng(0).standard_normal(len(at))
  return (wave if channels == 1 else np.stack([wave * (k + 1) / channels for k in range(channels)], 1)).astype(
    np.float32
  )


def encoded(samples, rate=RATE, kind="WAV", subtype=None):
  file = io.BytesIO()
  soundfile.write(file, samples, rate, format=kind, subtype=subtype)
  return file.getvalue()


@pytest.mark.parametrize(
  "kind, subtype, tolerance",
  [
    ("WAV", "PCM_16", 1e-4),
    ("WAV", "PCM_U8", 1e-2),
    ("WAV", "PCM_24", 1e-6),
    ("WAV", "PCM_32", 1e-6),
    ("WAV", "FLOAT", 0),
    ("WAV", "DOUBLE", 0),
    ("WAV", "ULAW", 0.05),
    ("WAVEX", "PCM_24", 1e-6),
    ("RF64", "PCM_16", 1e-4),
    ("AIFF", "PCM_24", 1e-6),
    ("FLAC", "PCM_16", 1e-4),
    ("FLAC", "PCM_24", 1e-6),
  ],
)
def test_samples_are_those_that_were_written(kind, subtype, tolerance):
  data = encoded(tone(), kind=kind, subtype=subtype)
  wave = decode(data, RATE)
  assert wave.dtype == np.float32 and wave.flags.c_contiguous
  np.testing.assert_allclose(wave, tone(), atol=tolerance, rtol=0)
  assert header(data)[1:] == (RATE, 1, SECONDS)


@pytest.mark.parametrize(
  "kind, subtype, rate", [("OGG", "VORBIS", 44_100), ("OGG", "OPUS", 48_000), ("MP3", None, 44_100)]
)
def test_what_is_compressed_with_loss_is_near(kind, subtype, rate):
  clean = np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) / 2
  wave = decode(encoded(clean, rate, kind, subtype), rate)
  assert len(wave) == len(clean)
  assert np.corrcoef(wave[2_000:-2_000], clean[2_000:-2_000])[0, 1] > 0.9999  # codecs fade in and out


@pytest.mark.parametrize("rate", [4_000, 8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 12_345])
def test_any_rate_becomes_the_one_asked_for(rate):
  at = np.arange(round(0.3 * RATE)) / RATE
  clean = np.sin(2 * np.pi * 300 * np.arange(round(0.3 * rate)) / rate).astype(np.float32)
  wave = decode(encoded(clean, rate, subtype="FLOAT"), RATE)
  assert abs(len(wave) - len(at)) <= 1
  middle = slice(400, min(len(wave), len(at)) - 400)
  np.testing.assert_allclose(wave[middle], np.sin(2 * np.pi * 300 * at)[middle], atol=2e-3)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_channels_are_averaged(channels):
  samples = tone(channels=channels)
  expected = samples.reshape(len(samples), -1).mean(1)
  np.testing.assert_allclose(decode(encoded(samples, subtype="FLOAT"), RATE), expected, atol=1e-6)
  for array in (samples, samples.T):
    np.testing.assert_allclose(from_array(array, RATE, RATE), expected, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_arrays_of_every_type(dtype):
  wave = tone()
  if np.issubdtype(dtype, np.integer):
    half = 2 ** (8 * np.dtype(dtype).itemsize - 1)
    array = np.round(wave.astype(np.float64) * half + (half if dtype == np.uint8 else 0)).astype(dtype)
  else:
    array = wave.astype(dtype)
  np.testing.assert_allclose(from_array(array, RATE, RATE), wave, atol=5e-3)
  resampled = from_array(array, RATE, 8_000)
  np.testing.assert_allclose(resampled, soxr.resample(from_array(array, RATE, RATE), RATE, 8_000), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_array_becomes_a_file_of_the_same_numbers(channels, rate):
  samples = tone(channels=channels)
  data = to_wav(samples.T, rate)
  assert header(data) == ("WAV", rate, channels, len(samples) / rate)
  np.testing.assert_array_equal(decode(data, 16_000), from_array(samples, rate, 16_000))
  read, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
  np.testing.assert_array_equal(read, samples.reshape(len(samples), -1))


def damaged(data):
  half = len(data) // 2
  return data[:half] + bytes(255 - byte for byte in data[half : half + 400]) + data[half + 400 :]


LONG = tone(44_100, 2.0)
COMPRESSED = [("FLAC", None), ("OGG", "VORBIS"), ("MP3", None)]


@pytest.mark.parametrize("kind, subtype", [*COMPRESSED, ("WAV", None), ("WAV", "PCM_U8"), ("WAVEX", None),
                                           ("RF64", None), ("AIFF", None)])  # fmt: skip
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_what_is_cut_off_is_bad(kind, subtype, share):
  data = encoded(LONG, 44_100, kind, subtype)
  assert abs(len(decode(data, 44_100)) - len(LONG)) < 2_400
  with pytest.raises(BadRecord, match=r"cut off: \d+ bytes|damaged sound: \d+ of 88200|lost sync"):
    decode(data[: round(share * len(data))], 44_100)


@pytest.mark.parametrize("kind, subtype", COMPRESSED[:2])
def test_what_is_damaged_is_bad(kind, subtype):
  with pytest.raises(BadRecord, match=r"damaged sound: \d+ of 88200|not a readable sound \(flac decoder lost sync\)"):
    decode(damaged(encoded(LONG, 44_100, kind, subtype)), 44_100)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_wav_that_was_streamed_says_no_size(size):
  data = bytearray(encoded(tone()))
  struct.pack_into("<I", data, data.index(b"data") + 4, size)
  struct.pack_into("<I", data, 4, size)
  if size:
    np.testing.assert_allclose(decode(bytes(data), RATE), tone(), atol=1e-4)
  else:  # libsndfile takes it at its word
    with pytest.raises(BadRecord, match="sound without samples"):
      decode(bytes(data), RATE)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(value):
  samples = tone()
  samples[100] = value
  for read in (lambda: decode(encoded(samples, subtype="FLOAT"), RATE), lambda: from_array(samples, RATE, RATE)):
    with pytest.raises(BadRecord, match="values that are not finite"):
      read()


@pytest.mark.parametrize(
  "data, message",
  [
    (b"", "empty sound"),
    (b"a text, and no sound at all" * 9, r"not a readable sound \(of no known format; it begins with b'a text, "),
    (b"\x89PNG\r\n\x1a\n" + bytes(300), "of no known format"),
    (b"\xff\xd8\xff\xe0" + bytes(300), "of no known format"),
    (bytes(2_000), "of no known format"),
    (b"ID3" + bytes(2_000), "not a readable sound"),
    (b"OggS" + bytes(40), "not a readable sound"),
    (b"RIFF\x00\x00\x00\x00WAVE", "not a readable sound"),
    (encoded(np.zeros(0, np.float32)), "sound without samples"),
    (encoded(np.zeros(1, np.float32)), "sound of 1 samples at 16000 Hz, too short"),
    (encoded(np.zeros(8_000, np.float32)), "silence: every sample is 0$"),
    (encoded(np.full(8_000, 0.25, np.float32)), "silence: every sample is 0.25$"),
    (encoded(np.stack([tone(), -tone()], 1), subtype="FLOAT"), "silence: .* one is the other upside down"),
    (encoded(1e4 * tone(), subtype="FLOAT"), "values up to .*, where full scale is 1: integers"),
    (encoded(tone(), 500), "sound with a rate of 500; samples a second are from 1000 to 768000"),
    (encoded(tone(), kind="AU"), r"AU \(Sun/NeXT\); RF64, AIFF, FLAC, OGG, MP3 and WAV are read"),
  ],
)  # fmt: skip
def test_what_is_no_sound(data, message):
  with pytest.raises(BadRecord, match=message):
    decode(data, RATE)


def test_limits_are_checked_before_samples_take_memory(monkeypatch):
  data = encoded(tone())
  with pytest.raises(BadRecord, match=rf"sound of {len(data)} bytes, over data.limits.bytes=1000"):
    decode(data, RATE, {"bytes": 1_000, "seconds": 1.0})
  monkeypatch.setattr(soundfile.SoundFile, "read", None)
  with pytest.raises(BadRecord, match=r"sound of 0.5 seconds, over data.audio.longest=0.4"):
    decode(data, RATE, {"bytes": 2**20, "seconds": 0.4})
  monkeypatch.setattr(audio_reading, "MOST_SAMPLES", 10)
  with pytest.raises(BadRecord, match="8000 samples in 1 channels, more than 10 together"):
    decode(data, RATE)


@pytest.mark.parametrize(
  "samples, rate, message",
  [
    (np.zeros((2, 3, 4)), RATE, r"sound of shape \(2, 3, 4\)"),
    (np.float32(1), RATE, r"sound of shape \(\)"),
    (np.zeros(0), RATE, "sound without samples"),
    (np.zeros((0, 2)), RATE, "sound without samples"),
    (np.zeros(100, bool), RATE, "sound of type bool; floats, uint8 and signed integers"),
    (np.zeros(100, complex), RATE, "sound of type complex128"),
    (["a", "b"], RATE, "sound of type <U1"),
    (tone(), 0, "sound with a rate of 0; samples a second are from"),
    (tone(), None, "sound with a rate of None"),
    (tone(), float("nan"), "sound with a rate of nan"),
  ],
)
def test_arrays_that_are_no_sound(samples, rate, message):
  with pytest.raises(BadRecord, match=message):
    from_array(samples, rate, RATE)


def test_a_cut_is_placed_by_a_share():
  wave = np.arange(10, dtype=np.float32)
  starts = [cut(wave, 4, place)[0][0] for place in (0.0, 0.5, 0.999999, 1.0)]
  assert starts == [0, 3, 6, 6]
  assert {int(cut(wave, 4, place)[0][0]) for place in np.linspace(0, 0.999, 200)} == set(range(7))
  short, count = cut(wave, 12, 0.7)
  assert count == 10 and np.array_equal(short, [*range(10), 0, 0])
  assert cut(wave, 10, 0.7)[1] == 10


def test_a_library_that_is_missing_is_named(monkeypatch):
  audio_reading._libraries.cache_clear()
  monkeypatch.setitem(sys.modules, "soxr", None)
  with pytest.raises(UserError, match=r"read with soundfile and soxr .*: pip install 'mmcontrast\[audio\]'$"):
    decode(encoded(tone()), RATE)
  audio_reading._libraries.cache_clear()
