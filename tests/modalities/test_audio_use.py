"""Sounds as inference, search and people take them: any form, one line for what is none, a waveform and a player."""

import io

import numpy as np
import pytest
import soundfile

from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError
from mmcontrast.modalities.audio_reading import header
from mmcontrast.modalities.audio_use import AudioInUse, waveform

RATE, SETTINGS = 8000, resolve({"audio": {"rate": 8000, "seconds": 0.25}})
AUDIO = AudioInUse()
TONE = np.sin(2 * np.pi * 440 * np.arange(1000) / RATE).astype(np.float32) / 2


def encoded(samples, rate=RATE, kind="WAV", subtype="FLOAT"):
  file = io.BytesIO()
  soundfile.write(file, samples, rate, format=kind, subtype=subtype)
  return file.getvalue()


def test_every_form_of_a_sound_is_one_value(tmp_path):
  (tmp_path / "tone.wav").write_bytes(encoded(TONE))
  for thing in (
    encoded(TONE),
    tmp_path / "tone.wav",
    str(tmp_path / "tone.wav"),
    TONE,
    (TONE, RATE),
    (TONE[:, None], RATE),
  ):
    (one,) = AUDIO.many(thing, "encode_audio")
    np.testing.assert_allclose(AUDIO.accepts(one, SETTINGS, "audio 0"), TONE, atol=1e-6)
  assert [len(AUDIO.accepts(one, SETTINGS, "")) for one in AUDIO.many(np.stack([TONE, TONE]), "")] == [1000, 1000]
  assert len(AUDIO.evaluation_view(encoded(np.tile(TONE, 5)), SETTINGS)) == 2000  # data.audio.seconds
  half = AUDIO.accepts((np.repeat(TONE, 2), 2 * RATE), SETTINGS, "")
  assert len(half) == 1000
  batch = AUDIO.batch([TONE, TONE[:10]], SETTINGS, None)
  assert batch["audio"].shape == (2, 2000) and batch["audio_length"].tolist() == [1000, 10]
  assert not batch["audio"][1, 10:].any()


@pytest.mark.parametrize(("thing", "message"), [
  (b"no sound", "audio 0: not a readable sound.*; give a path, the bytes of a file"), (b"", "empty sound"),
  (encoded(np.zeros(100)), "silen"), ("none.wav", "none.wav: No such file.*; give the path of a sound"),
  (None, "audio 0: None is not a sound"), (np.zeros((3, 4, 5), np.float32), "samples of shape"),
  ((TONE, -3), "rate of -3"), (np.array([np.nan, 1], np.float32), "not finite"),
])  # fmt: skip
def test_what_is_no_sound_is_one_line(thing, message):
  with pytest.raises(UserError, match=message) as caught:
    AUDIO.accepts(thing, SETTINGS, "audio 0")
  assert "\n" not in str(caught.value)


def test_a_person_sees_a_waveform_and_hears_a_file():
  raw = encoded(np.stack([TONE, TONE], 1), 2 * RATE, "FLAC", "PCM_16")
  seen = AUDIO.show(raw)
  assert seen.picture.dtype == np.uint8 and seen.picture.shape == (192, 192, 3)
  suffix, data = seen.file
  assert suffix == ".wav" and header(data).rate == 2 * RATE
  assert AUDIO.describe(raw).startswith("FLAC 16000 Hz stereo 0.06 s, ")
  assert AUDIO.describe(b"x") == "NOT READABLE, 1 bytes"
  text = AUDIO.described([[raw], [b"x"], []])
  assert "2 of 3 records; FLAC 16000 Hz 1, NOT READABLE 1" in text and "0.06 / 0.06 / 0.06 seconds" in text
  with pytest.raises(BadRecord, match="not a readable sound"):
    AUDIO.check_raw(b"no sound")


def test_a_waveform_is_as_high_as_its_loudest_and_says_when():
  quiet_then_loud = np.concatenate([0.1 * np.ones(500), -np.ones(500)]).astype(np.float32)
  ink = (waveform(quiet_then_loud) < 200).all(-1)
  first, second = ink[:, :96].sum(), ink[:, 96:].sum()
  assert second > 5 * first and not ink[:80, 96:].any()
  assert waveform(np.zeros(3)).shape == waveform(np.zeros(0)).shape == (192, 192, 3)
