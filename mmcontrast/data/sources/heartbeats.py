"""`heartbeats`: electrocardiograms that a formula makes, each with its picture and what is said of it in words.

No recordings of patients with their reports can be had freely, so these stand in for them; nothing here is measured on
a person, and nothing that is trained on it says anything of one. Three leads of 10 s at 100 Hz are sums of five waves
(P, Q, R, S, T) a beat, as of McSharry et al. (IEEE Trans. Biomed. Eng. 50, 2003), who move a point around a circle
instead: with beats at b, and RR the mean time between them, in seconds,

    lead_l(t) = sum_b sum_w  A_lw exp(-(t - b - t_w sqrt(RR))^2 / (2 s_w^2))

with the places t_w, widths s_w and amplitudes A_lw of WAVES, a slow sine for breathing and normal noise. Classes are
the rate (slow, normal, fast), the rhythm (regular; irregular, without P waves) and the end of the beat (usual, raised
ST segment, inverted T wave): 18 together. Every example is a function of its split and place.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from mmcontrast.data import noise
from mmcontrast.data.record import Info, Record
from mmcontrast.errors import choose
from mmcontrast.modalities.rows import to_npy
from mmcontrast.registry import check_options

RATE, SECONDS = 100, 10
COUNTS = {"train": 2048, "test": 512}
WAVES = {  # place in the beat, width, amplitude in millivolts of each lead
  "P": (-0.20, 0.025, (0.10, 0.15, 0.08)), "Q": (-0.035, 0.010, (-0.08, -0.10, -0.05)),
  "R": (0.0, 0.012, (0.70, 1.00, 0.50)), "S": (0.035, 0.012, (-0.15, -0.20, -0.40)),
  "T": (0.30, 0.045, (0.20, 0.30, 0.15)),
}  # fmt: skip
ST = (0.13, 0.060, (0.20, 0.30, 0.25))  # what a raised ST segment has besides
LABELS = {
  "rate": ("slow", "normal", "fast"),
  "rhythm": ("regular", "irregular"),
  "ending": ("usual", "raised ST segment", "inverted T wave"),
}
_BEATS = ((45, 56), (62, 90), (105, 135))  # a minute, by rate
_SAID = {
  "rate": ("slow heartbeat", "heartbeat of normal rate", "fast heartbeat"),
  "rhythm": ("regular rhythm", "irregular rhythm without P waves"),
  "ending": ("", ", raised ST segment", ", inverted T wave"),
}
_PER_BEAT, _WIDE, _HIGH = 64, 64, 64
_STREAM = noise.stream("heartbeats")


class Heartbeats:
  """See the module. Options: `count`, examples of the split; `noise`, millivolts."""

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    del path, data_dir
    defaults = {"count": 0, "noise": 0.03}
    check_options(options, defaults, "heartbeats: data.source")
    choose(split, ("all", *COUNTS), "data.split")
    self._options = {**defaults, **options}
    self._first = COUNTS["train"] if split == "test" else 0
    self._count = int(self._options["count"]) or (sum(COUNTS.values()) if split == "all" else COUNTS[split])
    note = "made by a formula (mmcontrast/data/sources/heartbeats.py); no recording of a person"
    self.info = Info("heartbeats", ("paper",), (), LABELS, notes=(note,), keys={"series": ("leads",)})

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int) -> Record:
    number = self._first + range(self._count)[index]
    labels = {name: (number // step) % len(names) for (name, names), step in zip(LABELS.items(), (1, 3, 6))}
    rng = np.random.Generator(np.random.Philox(int(noise.hashed(0, number, _STREAM % 2**31))))
    leads = signal(labels, rng, self._options["noise"])
    said = {name: _SAID[name][value] for name, value in labels.items()}
    return Record(
      images={"paper": drawn(leads[:, 1])},
      captions={
        "caption": [
          f"{said['rate']}, {said['rhythm']}{said['ending']}",
          f"{said['rhythm']} of a {said['rate']}{said['ending']}",
        ]
      },
      names={},
      tags=np.zeros(0, np.uint8),
      labels=labels,
      id=labels["rate"] + 3 * labels["rhythm"] + 6 * labels["ending"],
      name=f"heartbeat {number}",
      mirror_safe=False,
      series={"leads": to_npy(leads)},
    )


def signal(labels: Mapping[str, int], rng: np.random.Generator, deviation: float) -> np.ndarray:
  """Millivolts of three leads, float32 [RATE * SECONDS, 3], of a class."""
  mean = 60 / rng.uniform(*_BEATS[labels["rate"]])  # seconds from beat to beat
  irregular = labels["rhythm"] == 1
  spread = 0.22 if irregular else 0.02
  gaps = mean * np.clip(1 + spread * rng.standard_normal(_PER_BEAT), 0.5, 1.7)
  beats = np.cumsum(gaps) - rng.uniform(0, 1) * gaps[0] - gaps[0]
  beats = beats[beats < SECONDS + 1]
  time = np.arange(RATE * SECONDS) / RATE
  waves = [wave for name, wave in WAVES.items() if not (irregular and name == "P")]
  if labels["ending"] == 1:
    waves.append(ST)
  leads = np.zeros((len(time), 3))
  for place, width, amplitudes in waves:
    bell = np.exp(-(((time[:, None] - beats) - place * np.sqrt(mean)) ** 2) / (2 * width**2)).sum(1)
    sign = -1 if labels["ending"] == 2 and place == WAVES["T"][0] else 1
    leads += sign * bell[:, None] * np.asarray(amplitudes)
  breathing = 0.05 * np.sin(2 * np.pi * (0.25 * time + rng.uniform()))
  scale = rng.uniform(0.8, 1.2)
  return (scale * leads + breathing[:, None] + deviation * rng.standard_normal(leads.shape)).astype(np.float32)


def drawn(lead: np.ndarray) -> bytes:
  """A PNG of four seconds of a lead, as a pen draws it."""
  picture = Image.new("RGB", (_WIDE, _HIGH), (255, 244, 244))
  shown = lead[: 4 * RATE]
  across = np.arange(len(shown)) * _WIDE / len(shown)
  down = _HIGH * (0.7 - 0.4 * shown)
  ImageDraw.Draw(picture).line(list(zip(across, down)), (20, 20, 60), 1)
  file = io.BytesIO()
  picture.save(file, "PNG")
  return file.getvalue()
