"""`simulated_ecg`: twelve leads of electrocardiograms that NeuroKit2 simulates, of seven named conditions.

    pip install 'mmcontrast[ecg]'
    mmcontrast data build simulated_ecg

No recording of a person: NeuroKit2's "multileads" (Makowski et al., Behavior Research Methods 53, 2021) moves a point
around a circle for each lead (ECGSYN, McSharry et al., IEEE Trans. Biomed. Eng. 50, 2003). A condition is what that
model can be told: the mean rate, how much it varies, and the heights of the five waves (CONDITIONS). The names say
which settings, and nothing of patients. An example is a function of its number and NeuroKit2's version: 10 s at 100 Hz,
simulated at 500 Hz, since an R wave is little more than one sample wide at 100, and filtered.
"""

from __future__ import annotations

import concurrent.futures
import importlib.metadata
import io
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from scipy.signal import resample_poly

from mmcontrast.data import noise
from mmcontrast.data.sources.heartbeats import drawn
from mmcontrast.errors import UserError

RATE, SECONDS = 100, 10
FINER = 5  # times the rate, at which signals are simulated
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
COUNTS = {"train": 1024, "validation": 128, "test": 256}
WAVES = (1.2, -5.0, 30.0, -7.5, 0.75)  # heights of P, Q, R, S and T, ECGSYN's
_STREAM = noise.stream("simulated_ecg")


class Condition(NamedTuple):
  """What the model is told.

  Attributes:
    rate: beats a minute, from and to, of the mean.
    spread: standard deviation of the rate, from and to.
    waves: heights of P, Q, R, S and T.
  """

  rate: tuple[float, float]
  spread: tuple[float, float]
  waves: tuple[float, ...] = WAVES


CONDITIONS = {
  "normal sinus rhythm": Condition((60, 90), (1, 3)),
  "sinus bradycardia": Condition((40, 52), (1, 3)),
  "sinus tachycardia": Condition((110, 140), (1, 3)),
  "sinus arrhythmia": Condition((60, 90), (9, 13)),
  "irregular rhythm without P waves": Condition((80, 120), (18, 25), (0.0, *WAVES[1:])),
  "inverted T waves": Condition((60, 90), (1, 3), (*WAVES[:4], -WAVES[4])),
  "tall T waves": Condition((60, 90), (1, 3), (*WAVES[:4], 3 * WAVES[4])),
}


ATTRIBUTION = """# Simulated electrocardiograms

The signals in this folder were simulated by NeuroKit2 {version} (MIT licence; Makowski et al., 2021), after ECGSYN.
They are no recordings, and what is trained on them says nothing of patients.
"""


class SimulatedEcg(tfds.core.GeneratorBasedBuilder):
  """The signals; splits by number, each condition as often as the others."""

  VERSION = tfds.core.Version("1.0.0")
  name = "simulated_ecg"

  def _info(self) -> tfds.core.DatasetInfo:
    text, size = tfds.features.Text, (64, 64, 3)
    return tfds.core.DatasetInfo(
      builder=self,
      description="Electrocardiograms of twelve leads, simulated by NeuroKit2; no recordings.",
      features=tfds.features.FeaturesDict(
        {
          "images": {"paper": tfds.features.Image(shape=size, encoding_format="png")},
          "captions": tfds.features.Sequence(text()),
          "tags": tfds.features.Sequence(tfds.features.Scalar(np.int64)),
          "labels": {"condition": tfds.features.ClassLabel(names=list(CONDITIONS))},
          "id": tfds.features.Scalar(np.int32),
          "key": text(),
          "mirror_safe": tfds.features.Scalar(np.bool_),
          "series": {"leads": text()},
        }
      ),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager) -> dict[str, Iterator]:
    del dl_manager
    return {split: self._generate_examples(split) for split in COUNTS}

  def _generate_examples(self, split: str):
    first = sum(count for name, count in COUNTS.items() if list(COUNTS).index(name) < list(COUNTS).index(split))
    numbers = range(first, first + COUNTS[split])
    for number, leads in zip(numbers, of_all(numbers)):
      condition = condition_of(number)
      yield (
        number,
        {
          "images": {"paper": io.BytesIO(drawn(leads[:, LEADS.index("I")]))},
          "captions": captions_of(condition),
          "tags": [],
          "labels": {"condition": condition},
          "id": list(CONDITIONS).index(condition),
          "key": f"simulated {number}",
          "mirror_safe": False,
          "series": {"leads": _npy(leads)},
        },
      )

  def side_files(self) -> dict[str, bytes | dict]:
    """As of EmojiViews, without a tokenizer: captions are few, and read as bytes."""
    version = importlib.metadata.version("neurokit2")
    return {
      "metadata.json": {
        "name": self.name,
        "version": str(self.version),
        "trainable": True,
        "simulated": True,
        "styles": ["paper"],
        "tags": [],
        "labels": {"condition": list(CONDITIONS)},
        "concepts": [],
        "things": {"series": ["leads"]},
        "packages": {"neurokit2": version},
      },
      "ATTRIBUTION.md": ATTRIBUTION.format(version=version).encode(),
    }


def condition_of(number: int) -> str:
  """The condition of an example, each in turn."""
  return list(CONDITIONS)[number % len(CONDITIONS)]


def captions_of(condition: str) -> list[str]:
  """Two captions of a condition."""
  return [condition, f"a simulated electrocardiogram of {condition}"]


def settings_of(number: int) -> dict[str, Any]:
  """What `neurokit2.ecg_simulate` is told of an example: a function of its number."""
  draw = np.random.Generator(np.random.Philox(int(noise.hashed(0, number, _STREAM % 2**31))))
  rate, spread, waves = CONDITIONS[condition_of(number)]
  return {
    "duration": SECONDS,
    "sampling_rate": FINER * RATE,
    "heart_rate": draw.uniform(*rate),
    "heart_rate_std": draw.uniform(*spread),
    "ai": waves,
    "noise": draw.uniform(0.005, 0.03),
    "method": "multileads",
    "random_state": int(draw.integers(2**31)),
  }


def simulated(number: int) -> np.ndarray:
  """float32 [RATE * SECONDS, leads]: an example. Raises UserError without NeuroKit2."""
  leads = np.asarray(_simulator()(**settings_of(number)), np.float64)
  if leads.shape != (FINER * RATE * SECONDS, len(LEADS)) or not np.isfinite(leads).all():
    raise UserError(f"simulated_ecg: NeuroKit2 gave {leads.shape} numbers of example {number}, not all usable; take "
                    "another version, pip install 'mmcontrast[ecg]'")  # fmt: skip
  return resample_poly(leads, 1, FINER, axis=0).astype(np.float32)


def _simulator() -> Any:
  try:
    from neurokit2 import ecg_simulate
  except ImportError as error:
    raise UserError(f"simulated_ecg: NeuroKit2 is missing ({error}); pip install 'mmcontrast[ecg]'") from None
  return ecg_simulate


def of_all(numbers: Sequence[int]) -> Iterator[np.ndarray]:
  """The examples of some numbers, by as many processes as there are cores."""
  _simulator()
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(os.cpu_count(), context) as pool:
    yield from pool.map(simulated, numbers, chunksize=8)


def _npy(leads: np.ndarray) -> bytes:
  file = io.BytesIO()
  np.save(file, leads.astype(np.float16))
  return file.getvalue()
