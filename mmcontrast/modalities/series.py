"""Series: signals of several channels over time, such as an electrocardiogram's leads.

series         [V, L, C]  float32, config.data.views.series cuts of config.data.series.length samples
series_length  [V]        int32, how many of them are real; 0 of an example without one
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import noise, transforms
from mmcontrast.data.checks import check_counts
from mmcontrast.data.record import BadRecord, Record
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities.audio_use import PLACES, waveform
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.rows import RowsInUse
from mmcontrast.modalities.use import Shown
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings

_STREAM = noise.stream("series")
_SHOWN = 6  # channels of a picture
_NORMS = ("standardize", "none")


class Series(RowsInUse, Modality):
  """Decoded: float32 [T, C] by column."""

  name, a, nouns, asked = "series", "a series", "series", "the path of a series"
  taken = "give a path or the bytes of a .npy file, or an array [samples, channels]"
  row, column, field, suffixes = "sample", "channel", "series", (".npy",)
  source_option, absent, view_sets = "series", "no series", ("series",)
  source_options: ClassVar = {"series": None}
  facts: ClassVar = {"samples": "how long it is, without padding"}
  defaults: ClassVar = {
    "series": {
      "channels": 1,
      "length": 1000,  # samples of a view; a shorter series is followed by padding, which nothing reads
      "crop": "random",  # where a longer one is cut: anywhere by the example's seed, at its beginning, in its middle
      "evaluation_crop": "first",
      "norm": "standardize",  # each channel of a view has mean 0 and deviation 1; or "none"
      "noise": 0.0,  # normal noise of such a deviation is added in training, after that
      "longest": 10_000_000,  # samples: a longer series is bad
    }
  }

  def check(self, settings: Settings) -> None:
    of = settings["series"]
    check_counts(of, {"channels": 1, "length": 2, "longest": 2}, "data.series")
    choose(of["crop"], ("random", *PLACES), "data.series.crop")
    choose(of["evaluation_crop"], PLACES, "data.series.evaluation_crop")
    choose(of["norm"], _NORMS, "data.series.norm")
    if isinstance(of["noise"], bool) or not isinstance(of["noise"], int | float) or not 0 <= of["noise"] < 100:
      raise UserError(f"data.series.noise: {of['noise']!r} is not a deviation; give 0 or more, such as 0.1")

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views, of = settings["views"]["series"], settings["series"]
    shapes = {"series": ((views, of["length"], of["channels"]), np.float32), "series_length": ((views,), np.int32)}
    return shapes if views else {}

  def decode(self, record: Record, settings: Settings) -> dict[str, np.ndarray]:
    return {key: self._decoded(raw, settings) for key, raw in record.get("series", {}).items()}

  def nbytes(self, value: Mapping[str, np.ndarray]) -> int:
    return sum(series.nbytes for series in value.values())

  def numbers(self, settings: Settings) -> dict[int, int]:
    return {_STREAM: 2 * settings["views"]["series"]}  # which column, and where it is cut

  def view(self, value: Mapping[str, np.ndarray], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    if not value:
      return
    which, places = np.split(numbers[_STREAM], 2)
    place = PLACES.get(settings["series"]["evaluation_crop" if settings.get("as_evaluated") else "crop"])
    for view, series in enumerate(transforms.choose_distinct(list(value.values()), which)):
      shown = _cut(series, settings["series"]["length"], places[view] if place is None else place)
      into["series"][view, : len(shown)], into["series_length"][view] = shown, len(shown)

  def _decoded(self, raw: bytes, settings: Settings) -> np.ndarray:
    found, of = self.wide_rows(raw), settings["series"]
    if found.shape[1] != of["channels"]:
      turned = "; is it [channels, samples]? transpose it" if len(found) == of["channels"] else ""
      raise BadRecord(f"a series of {found.shape[1]} channels where data.series.channels is {of['channels']}{turned}")
    if len(found) > of["longest"]:
      raise BadRecord(f"a series of {len(found)} samples, over data.series.longest={of['longest']}")
    if of["norm"] == "standardize" and found.dtype == np.float64:  # a mean that float32 would round all else away for
      found = found - found[:1]
    return found.astype(np.float32)

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> SeriesPreparation:
    if (recipe := config["augment"].get("series", "none")) != "none":
      raise UserError(f"config.augment.series: {recipe!r}; series are changed by data.series.noise and .crop alone, "
                      "leave it out")  # fmt: skip
    settings = config["data"]
    of = settings["series"]
    return SeriesPreparation(
      tuple(self.arrays(settings)), of["norm"] == "standardize", float(of["noise"]), "samples" in settings["facts"]
    )

  # In use.

  def evaluation_view(self, raw: bytes, settings: Mapping) -> np.ndarray:
    of = settings["series"]
    return _cut(self._decoded(raw, settings), of["length"], PLACES[of["evaluation_crop"]])

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> dict[str, np.ndarray]:
    """Series, followed by zeros, and how many samples of each are real."""
    if isinstance(values, Mapping):
      return dict(values)
    length = settings["series"]["length"]
    padded = [np.pad(value, ((0, length - len(value)), (0, 0))) for value in values]
    return {"series": np.stack(padded), "series_length": np.array([len(value) for value in values], np.int32)}

  def size(self, settings: Mapping) -> str:
    return f"series of {settings['series']['length']} samples in {settings['series']['channels']} channels"

  def show(self, thing: Any) -> Shown:
    series = self.rows(thing) if isinstance(thing, bytes) else np.asarray(thing)
    shown = series[:, :_SHOWN].T
    rows = [waveform(channel - channel.mean())[:: len(shown)] for channel in shown]
    return Shown(np.concatenate(rows)[:192], f"{len(series)} samples, {series.shape[1]} channels")


@dataclasses.dataclass(frozen=True)
class SeriesPreparation(Preparation):
  """Each channel of a view with mean 0 and deviation 1 over its real samples, noise in training; zeros at padding."""

  standardize: bool
  noise: float
  tells_samples: bool = False

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    values, lengths = batch["series"], batch["series_length"]
    real = jnp.arange(values.shape[2]) < lengths[..., None]
    shown = real[..., None]
    if self.standardize:
      count = jnp.maximum(lengths, 1)[..., None, None]
      # About the first sample, and as shares of the largest: neither a large mean nor large or small units are rounded
      # away, and a channel that stands still is 0.
      values = jnp.where(shown, values - values[:, :, :1], 0)
      values = values / jnp.maximum(jnp.abs(values).max(2, keepdims=True), jnp.finfo(values.dtype).tiny)
      values = jnp.where(shown, values - jnp.where(shown, values, 0).sum(2, keepdims=True) / count, 0)
      values = values / (jnp.sqrt((values**2).sum(2, keepdims=True) / count) + 1e-6)
    if train and self.noise:
      keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(seed), _STREAM % 2**31))(batch["seed"])
      drawn = jax.vmap(lambda key: jax.random.normal(key, values.shape[1:], values.dtype))(keys)
      values = values + self.noise * drawn
    return {"series": Inputs(jnp.where(shown, values, 0), real)}

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "samples": int32 [B, V]."""
    return {"series": {"samples": batch["series_length"]}} if self.tells_samples else {}


def _cut(series: np.ndarray, length: int, place: float) -> np.ndarray:
  start = int(place * (max(len(series) - length, 0) + 1)) if place else 0
  return series[start : start + length]
