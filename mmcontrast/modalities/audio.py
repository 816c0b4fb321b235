"""Sounds: waveforms read on the host, augmented and turned into log-mel spectrograms on the device.

audio          [V, S]  float32, config.data.views.audio cuts of config.data.audio.seconds, followed by zeros
audio_length   [V]     int32, how many samples of each are sound; 0 of an example without one
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data import noise, transforms
from mmcontrast.data.checks import check_counts
from mmcontrast.data.record import Info, Record
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities import audio_augmentation as augmentation
from mmcontrast.modalities.audio_log_mel import LogMel, log_mel, parse
from mmcontrast.modalities.audio_reading import check_installed, cut, decode
from mmcontrast.modalities.audio_use import PLACES, AudioInUse, limits, view_length
from mmcontrast.modalities.modality import Modality
from mmcontrast.modalities.views import Inputs, Preparation, Schema, Settings


class Audio(AudioInUse, Modality):
  """Decoded: waveforms float32 [S] at config.data.audio.rate, by column."""

  source_option, absent = "audio", "no sound"
  view_sets = ("audio",)
  facts: ClassVar = {"seconds": "how long it is, without padding"}
  defaults: ClassVar = {
    "audio": {
      "rate": 16_000,  # samples a second, to which sounds are resampled
      "seconds": 2.0,  # length of a view; a shorter sound is followed by padding, which nothing reads
      # Where a longer sound is cut: anywhere by the example's seed, at its beginning, in its middle.
      "crop": "random",
      "evaluation_crop": "first",
      "columns": "distinct",  # which of an example's sounds views are: distinct ones, or "in_order": view k column k
      "longest": 600.0,  # seconds: a longer sound is bad
      "log_mel": dataclasses.asdict(LogMel()),
    }
  }

  # Settings.

  def check(self, settings: Settings) -> None:
    audio = settings["audio"]
    check_counts(audio, {"rate": 1_000}, "data.audio")
    for key in ("seconds", "longest"):
      value = audio[key]
      if isinstance(value, bool) or not isinstance(value, int | float) or not 0.01 <= value <= 3_600:
        raise UserError(f"data.audio.{key}: {value!r}; give seconds, from 0.01 to 3600")
    choose(audio["crop"], ("random", *PLACES), "data.audio.crop")
    choose(audio["evaluation_crop"], PLACES, "data.audio.evaluation_crop")
    choose(audio["columns"], ("distinct", "in_order"), "data.audio.columns")
    parse(audio["log_mel"], audio["rate"], "data.audio.log_mel")
    if settings["views"]["audio"]:
      check_installed()

  def recipe_options(self, base: str) -> dict[str, Any]:
    return dataclasses.asdict(augmentation.RECIPES.get(base, augmentation.Recipe()))

  def of_class(self, info: Info) -> str:
    of_files = ":" in info.name  # what is built has no columns to choose from
    return ", or say which column has it: data.source.audio=COLUMN" if of_files else ""

  # On the host.

  def arrays(self, settings: Settings) -> Schema:
    views = settings["views"]["audio"]
    shapes = {"audio": ((views, view_length(settings)), np.float32), "audio_length": ((views,), np.int32)}
    return shapes if views else {}

  def decode(self, record: Record, settings: Settings) -> dict[str, np.ndarray]:
    rate = settings["audio"]["rate"]
    return {key: decode(raw, rate, limits(settings)) for key, raw in record.get("audio", {}).items()}

  def nbytes(self, value: Mapping[str, np.ndarray]) -> int:
    return sum(wave.nbytes for wave in value.values())

  def numbers(self, settings: Settings) -> dict[int, int]:
    return {noise.stream("audio"): 2 * settings["views"]["audio"]}  # which column, and where it is cut

  def view(self, value: Mapping[str, np.ndarray], numbers: Mapping, settings: Settings, into: Mapping) -> None:
    if not value:
      return
    which, places = np.split(numbers[noise.stream("audio")], 2)
    place = PLACES.get(settings["audio"]["evaluation_crop" if settings.get("as_evaluated") else "crop"])
    waves = list(value.values())
    in_order = settings["audio"]["columns"] == "in_order"
    chosen = (
      [waves[view % len(waves)] for view in range(len(which))] if in_order else transforms.choose_distinct(waves, which)
    )
    for view, wave in enumerate(chosen):
      where = places[view] if place is None else place
      into["audio"][view], into["audio_length"][view] = cut(wave, view_length(settings), where)

  # On the device.

  def preparation(self, config: Mapping[str, Any]) -> AudioPreparation:
    settings, recipe = config["data"], config["augment"].get("audio", "none")
    rate = settings["audio"]["rate"]
    return AudioPreparation(
      tuple(self.arrays(settings)),
      augmentation.view_recipes(recipe, settings["views"]["audio"], "config.augment.audio"),
      rate,
      parse(settings["audio"]["log_mel"], rate, "config.data.audio.log_mel"),
      "seconds" in settings["facts"],
    )

  def check_shapes(self, error: UserError, view_set: str, inputs: Inputs) -> UserError:
    frames, mels = inputs.values.shape[2:]
    return UserError(f"config.data.audio: spectrograms of {frames} frames and {mels} filters: {error}")


@dataclasses.dataclass(frozen=True)
class AudioPreparation(Preparation):
  """Augmented by a recipe a view, and as log-mel spectrograms [B, V, F, mels] with the mask of their frames."""

  recipes: tuple[augmentation.Recipe, ...]
  rate: int
  log_mel: LogMel
  tells_seconds: bool = False

  @property
  def reads_others(self) -> bool:
    return any(recipe.reads_others for recipe in self.recipes)

  def __call__(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
    waves, lengths = self._waves(batch, train)
    size, views, samples = waves.shape
    values, real = log_mel(self.log_mel, self.rate, waves.reshape(-1, samples), lengths.reshape(-1))
    values, real = (x.reshape(size, views, *x.shape[1:]) for x in (values, real))
    if train:
      masked = [
        augmentation.mask_spectrogram(recipe, values[:, view], real[:, view], self._draws(batch, view))
        for view, recipe in enumerate(self.recipes)
      ]
      values = jnp.stack(masked, axis=1)
    return {"audio": Inputs(values, real)}

  def facts(self, batch: Mapping[str, jax.Array], train: bool) -> dict[str, dict[str, jax.Array]]:
    """ "seconds": float32 [B, V]."""
    return {"audio": {"seconds": self._waves(batch, train)[1] / self.rate}} if self.tells_seconds else {}

  def _waves(self, batch: Mapping[str, jax.Array], train: bool) -> tuple[jax.Array, jax.Array]:
    """([B, V, S], [B, V]): waveforms and their lengths, augmented in training."""
    waves, lengths = batch["audio"], batch["audio_length"]
    if not train:
      return waves, lengths
    changed = [
      augmentation.apply_to_waves(
        recipe, waves[:, view], lengths[:, view], batch["seed"], self._draws(batch, view), view
      )
      for view, recipe in enumerate(self.recipes)
    ]
    return tuple(jnp.stack(arrays, axis=1) for arrays in zip(*changed))

  def _draws(self, batch: Mapping[str, jax.Array], view: int) -> augmentation.Draws:
    return augmentation.draw(self.recipes[view], batch["seed"], view)
