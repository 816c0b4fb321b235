"""Writes log_mel.npz: what librosa makes of a sound, in float64.

    pip install librosa==0.11.0 && python tests/golden/make_log_mel.py

The sound is a rising tone, a steady one and noise, quiet at the end. Each case is named by its settings as JSON, in the
words of mmcontrast.modalities.audio_log_mel.LogMel, with the rate.
"""

import json
import pathlib

import librosa
import numpy as np

DB = dict(log="db", top_db=None)
CASES = [
  dict(rate=16_000, window=400, hop=160, fft=512, mels=64, log="db", top_db=80.0, edges="zeros"),
  dict(rate=16_000, window=400, hop=160, fft=512, mels=40, scale="htk", norm="none", power=1.0, edges="reflect")
  | dict(log="ln", floor=1e-5),
  dict(rate=22_050, window=1024, hop=256, fft=1024, mels=80, low=50.0, high=8000.0, taper="hamming", edges="none") | DB,
  dict(rate=48_000, window=1024, hop=480, fft=1024, mels=64, low=50.0, high=14_000.0, scale="htk", edges="reflect")
  | DB,
  dict(rate=16_000, window=400, hop=130, fft=401, mels=24, norm="none", power=1.0, edges="zeros")
  | dict(log="db", top_db=30.0),
  dict(rate=8_000, window=200, hop=80, fft=256, mels=20, log="none", edges="zeros", taper="none"),
]
SAMPLES = 4_000


def sound() -> np.ndarray:
  at = np.arange(SAMPLES) / SAMPLES
  noise = np.random.default_rng(0).standard_normal(SAMPLES)
  loud = np.where(at < 0.7, 1.0, 0.03)
  return loud * (0.3 * np.sin(2 * np.pi * 300 * at**2) + 0.2 * np.sin(2 * np.pi * 180 * at) + 0.02 * noise)


def librosas(wave: np.ndarray, case: dict) -> np.ndarray:
  """[frames, mels]."""
  case = dict(case)
  rate, power = case["rate"], case.get("power", 2.0)
  window = {"hann": "hann", "hamming": "hamming", "none": "boxcar"}[case.get("taper", "hann")]
  mels = librosa.feature.melspectrogram(
    y=wave, sr=rate, n_fft=case["fft"], hop_length=case["hop"], win_length=case["window"], window=window,
    center=case["edges"] != "none", pad_mode="reflect" if case["edges"] == "reflect" else "constant",
    power=power, n_mels=case["mels"], fmin=case.get("low", 0.0), fmax=case.get("high"),
    htk=case.get("scale") == "htk", norm=None if case.get("norm") == "none" else "slaney", dtype=np.float64,
  )  # fmt: skip
  floor = case.get("floor", 1e-10)
  if case["log"] == "db":
    convert = librosa.power_to_db if power == 2 else librosa.amplitude_to_db
    mels = convert(mels, ref=1.0, amin=floor, top_db=case["top_db"])
  elif case["log"] == "ln":
    mels = np.log(np.maximum(mels, floor))
  return mels.T


if __name__ == "__main__":
  wave = sound()
  arrays = {json.dumps(case): librosas(wave, case).astype(np.float64) for case in CASES}
  np.savez_compressed(pathlib.Path(__file__).with_name("log_mel.npz"), sound=wave, **arrays)
  print(f"librosa {librosa.__version__}:", {name: array.shape for name, array in arrays.items()})
