"""Sounds a second: ours beside librosa's, decoding and log-mel spectrograms, on sounds that are made here.

    pip install librosa                 # into any environment; without it only ours is timed
    taskset -c 1 python benchmarks/audio_input.py --seconds 3 --rounds 5 --out docs/results/audio_input.json

Decoding: bytes of a file of 10 s, 44.1 kHz, two channels, to one channel of 16 kHz, as the loader reads it and as
`librosa.load(file, sr=16000)` does; both change the rate by soxr. Log-mel: 10 s of 16 kHz to 64 filters and decibels,
ours a batch of 16 in one jitted program, as a step has it, librosa's one after the other in float32 (`melspectrogram`,
`power_to_db`). Each round times both, one after the other. Rates are of wall time, and of processor time, which another
process on the machine does not change; the ratio is of the medians of the latter.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import time

import jax
import numpy as np
import soundfile
from record import record

from mmcontrast.modalities.audio_log_mel import LogMel, log_mel
from mmcontrast.modalities.audio_reading import decode

SECONDS, FROM, RATE, BATCH = 10, 44_100, 16_000, 16
FILES = {"WAV": "PCM_16", "FLAC": "PCM_16", "OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}
SETTINGS = LogMel()


def sound(rate: int, channels: int) -> np.ndarray:
  """float32 [samples, channels]: rising tones and noise."""
  at = np.arange(SECONDS * rate) / rate
  noise = np.random.default_rng(0).standard_normal((len(at), channels))
  return (0.3 * np.sin(2 * np.pi * 200 * at**1.5)[:, None] + 0.05 * noise).astype(np.float32)


def encoded(kind: str) -> bytes:
  file = io.BytesIO()
  soundfile.write(file, sound(FROM, 2), FROM, format=kind, subtype=FILES[kind])
  return file.getvalue()


def their_decode(data: bytes) -> np.ndarray:
  import librosa

  return librosa.load(io.BytesIO(data), sr=RATE)[0]


def their_log_mel(waves: np.ndarray) -> np.ndarray:
  import librosa

  def one(wave):
    power = librosa.feature.melspectrogram(
      y=wave, sr=RATE, n_fft=SETTINGS.fft, win_length=SETTINGS.window, hop_length=SETTINGS.hop, n_mels=SETTINGS.mels,
      pad_mode="constant",
    )  # fmt: skip
    return (librosa.power_to_db(power, amin=SETTINGS.floor, top_db=SETTINGS.top_db).T - SETTINGS.mean) / SETTINGS.std

  return np.stack([one(wave) for wave in waves])


def our_log_mel():
  lengths = np.full(BATCH, SECONDS * RATE, np.int32)
  program = jax.jit(lambda waves: log_mel(SETTINGS, RATE, waves, lengths)[0])
  return lambda waves: np.asarray(program(waves))


def rates(work, given, items: int, seconds: float) -> tuple[float, float]:
  """Items a second of wall time, and of processor time."""
  work(given)
  count, start, busy = 0, time.perf_counter(), time.process_time()
  while time.perf_counter() - start < seconds or count < 3:
    work(given)
    count += items
  return count / (time.perf_counter() - start), count / (time.process_time() - busy)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--seconds", type=float, default=3.0, help="of each side in each round")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--out", help="write the JSON here")
  options = parser.parse_args()
  beside = importlib.util.find_spec("librosa") is not None
  if not beside:
    print("librosa is not installed: only ours is timed")
  waves = np.stack([np.roll(sound(RATE, 1)[:, 0], 100 * row) for row in range(BATCH)])
  works = {f"decode {kind}": (lambda data: decode(data, RATE), their_decode, encoded(kind), 1) for kind in FILES}
  works["log-mel"] = (our_log_mel(), their_log_mel, waves, BATCH)
  rows = []
  for name, (mine, theirs, given, items) in works.items():
    sides = {"mmcontrast": mine, **({"librosa": theirs} if beside else {})}
    if beside:
      made = [side(given) for side in sides.values()]
      difference = float(np.abs(made[0] - made[1]).max())
    found = {side: [] for side in sides}
    for _ in range(options.rounds):
      for side, work in sides.items():
        found[side].append(rates(work, given, items, options.seconds))
    row = {"work": name}
    for side, measured in found.items():
      wall, busy = zip(*measured)
      row |= {f"{side} sounds/s": statistics.median(wall), f"{side} sounds/CPU s": statistics.median(busy)}
      row |= {f"{side} least": min(busy), f"{side} most": max(busy)}
    if beside:
      row |= {"ratio": row["mmcontrast sounds/CPU s"] / row["librosa sounds/CPU s"], "difference": difference}
    rows.append(row)
  record(rows, options.out)


if __name__ == "__main__":
  main()
