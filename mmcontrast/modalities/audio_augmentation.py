"""Augmentation of sounds on the device, batched and jitted with the train step.

The host decodes and cuts; what is left of a method's recipe happens here: of waveforms mixing, concatenating,
reversing, gain and noise, of spectrograms the masks of SpecAugment (Park et al., arXiv:1904.08779). An example's draws
are a pure function of (its seed, the view). What is mixed in or appended is another example of the batch, which is
found by the order of the seeds: so a view is the same at any place in the batch and on any number of devices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError
from mmcontrast.registry import vary


@dataclasses.dataclass(frozen=True)
class Recipe:
  """What may happen to a view: strengths and probabilities. Hashable, so jit-static.

  mix, concatenate, reverse and noise are probabilities. mix_snr and noise_snr are ranges in decibels: by how much the
  example's mean power is above what is added, of another example or of white noise. A concatenated view is the example
  before or after another one, each at least half of it where both are long enough. gain g draws decibels from [-g, g].
  Of the spectrogram time_masks (frequency_masks) stretches are set to zero, its mean, each up to time_width of the
  sound's frames (frequency_width of the filters) wide.
  """

  mix: float = 0.0
  mix_snr: tuple[float, float] = (0.0, 20.0)
  concatenate: float = 0.0
  reverse: float = 0.0
  gain: float = 0.0
  noise: float = 0.0
  noise_snr: tuple[float, float] = (10.0, 40.0)
  time_masks: int = 0
  time_width: float = 0.1
  frequency_masks: int = 0
  frequency_width: float = 0.15

  @property
  def reads_others(self) -> bool:
    """Whether a view depends on other examples of the batch."""
    return self.mix > 0 or self.concatenate > 0


_SPEC = {"time_masks": 2, "frequency_masks": 2}
RECIPES: dict[str, Recipe] = {
  "none": Recipe(),
  "spec_augment": Recipe(**_SPEC),
  "speech": Recipe(gain=6.0, noise=0.5, **_SPEC),
  "sounds": Recipe(gain=6.0, noise=0.25, mix=0.5, mix_snr=(5.0, 20.0), **_SPEC),
}


class Draws(NamedTuple):
  """One view's random choices, [B] each but the last two: bool for switches, float32 for amounts."""

  other: jax.Array  # uniform: which other example
  mix: jax.Array
  mix_snr: jax.Array
  concatenate: jax.Array
  first: jax.Array  # the example is before the other one
  reverse: jax.Array
  gain: jax.Array  # dB
  noise: jax.Array
  noise_snr: jax.Array
  time: jax.Array  # [B, time_masks, 2] uniform: width and place
  frequency: jax.Array  # [B, frequency_masks, 2]


def parse_recipe(spec: str | Mapping[str, Any] | Recipe, where: str = "augment.audio") -> Recipe:
  """A recipe from its name, or from a mapping of Recipe's fields ("base" names a start).

  Raises:
    UserError: an unknown name or key, or a value out of range.
  """
  if isinstance(spec, Recipe):
    return spec
  recipe = vary(RECIPES, spec, where)
  _check(recipe, where)
  return recipe


def view_recipes(
  spec: str | Mapping[str, Any] | Recipe | Sequence[Any], views: int, where: str = "augment.audio"
) -> tuple[Recipe, ...]:
  """The recipe of each of `views` views: one for all, or a list of them."""
  if isinstance(spec, list | tuple):
    if len(spec) != views:
      raise UserError(f"{where}: {len(spec)} recipes for {views} views; give one for each")
    return tuple(parse_recipe(each, f"{where}[{i}]") for i, each in enumerate(spec))
  return (parse_recipe(spec, where),) * views


def draw(recipe: Recipe, seeds: jax.Array, view: int | jax.Array = 0) -> Draws:
  """All random choices of a view; `seeds` [B] uint32, one an example."""
  scalars = len(Draws._fields) - 2
  masks = recipe.time_masks + recipe.frequency_masks

  def uniforms(seed):
    # A vector of its own for the masks: their number changes nothing of the other draws.
    keys = (jax.random.fold_in(_key(seed, view), k) for k in range(2))
    return tuple(jax.random.uniform(key, shape) for key, shape in zip(keys, ((scalars,), (masks, 2))))

  amounts, places = jax.vmap(uniforms)(seeds)
  other, mix, mix_snr, concatenate, first, reverse, gain, noise, noise_snr = amounts.T

  def between(u, low_high):
    return low_high[0] + (low_high[1] - low_high[0]) * u

  return Draws(
    other=other,
    mix=mix < recipe.mix,
    mix_snr=between(mix_snr, recipe.mix_snr),
    concatenate=concatenate < recipe.concatenate,
    first=first < 0.5,
    reverse=reverse < recipe.reverse,
    gain=between(gain, (-recipe.gain, recipe.gain)),
    noise=noise < recipe.noise,
    noise_snr=between(noise_snr, recipe.noise_snr),
    time=places[:, : recipe.time_masks],
    frequency=places[:, recipe.time_masks :],
  )


@jax.named_scope("audio_augmentation")
def apply_to_waves(
  recipe: Recipe, waves: jax.Array, lengths: jax.Array, seeds: jax.Array, draws: Draws, view: int | jax.Array = 0
) -> tuple[jax.Array, jax.Array]:
  """Applies the choices that concern waveforms. What `recipe` excludes costs nothing.

  Args:
    waves: [B, S] float, zero beyond each sound's length.
    lengths: int [B], samples of each sound; 0 of an example without one, which stays empty.
    seeds: [B] uint32, of which the noise is made (with `view`).

  Returns:
    ([B, S], int [B]): waveforms and lengths. Only concatenating changes a length.
  """
  if recipe.reads_others:
    others = partners(seeds, draws.other)
    other_waves, other_lengths = waves[others], lengths[others]
  if recipe.mix:
    added = jnp.where(_real(waves, lengths), other_waves, 0)
    mixed = waves + _scaled(added, lengths, _power(waves, lengths), draws.mix_snr)
    waves = jnp.where(draws.mix[:, None], mixed, waves)
  if recipe.concatenate:
    joined, joint = _joined(waves, lengths, other_waves, other_lengths, draws.first)
    chosen = draws.concatenate & (lengths > 0) & (other_lengths > 0)
    waves, lengths = jnp.where(chosen[:, None], joined, waves), jnp.where(chosen, joint, lengths)
  if recipe.reverse:
    backwards = _moved(waves[:, ::-1], lengths - waves.shape[1])
    waves = jnp.where(draws.reverse[:, None], backwards, waves)
  if recipe.noise:

    def normal(seed):
      return jax.random.normal(jax.random.fold_in(_key(seed, view), 2), waves.shape[1:], waves.dtype)

    noise = jnp.where(_real(waves, lengths), jax.vmap(normal)(seeds), 0)
    noisy = waves + _scaled(noise, lengths, _power(waves, lengths), draws.noise_snr)
    waves = jnp.where(draws.noise[:, None], noisy, waves)
  if recipe.gain:
    waves = waves * (10 ** (draws.gain / 20))[:, None].astype(waves.dtype)
  return waves, lengths


def mask_spectrogram(recipe: Recipe, spectrogram: jax.Array, real: jax.Array, draws: Draws) -> jax.Array:
  """SpecAugment: stretches of time and of frequency set to zero.

  Args:
    spectrogram: [B, F, mels], normalised so that zero is the mean.
    real: bool [B, F], which frames are of the sound; a mask's width is a share of these.
  """
  frames, mels = spectrogram.shape[1:]
  if recipe.time_masks:
    hidden = _stretches(draws.time, real.sum(1), recipe.time_width, frames)
    spectrogram = jnp.where(hidden[:, :, None], 0, spectrogram)
  if recipe.frequency_masks:
    hidden = _stretches(draws.frequency, jnp.full(len(real), mels), recipe.frequency_width, mels)
    spectrogram = jnp.where(hidden[:, None, :], 0, spectrogram)
  return spectrogram


def partners(seeds: jax.Array, uniform: jax.Array) -> jax.Array:
  """int [B]: for each example another one (itself only in a batch of one), whatever the order of the batch.

  Args:
    seeds: [B] uint32. uniform: [B] in [0, 1), which other.
  """
  count = len(seeds)
  order = jnp.argsort(seeds)
  rank = jnp.zeros(count, jnp.int32).at[order].set(jnp.arange(count, dtype=jnp.int32))
  further = 1 + (uniform * (count - 1)).astype(jnp.int32)
  return order[(rank + jnp.minimum(further, max(count - 1, 1))) % count]


def _key(seed: jax.Array, view: int | jax.Array) -> jax.Array:
  # Threefry by name: under vmap other generators depend on the place in the batch.
  key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), view)
  return jax.random.fold_in(key, _DOMAIN)


def _real(waves: jax.Array, lengths: jax.Array) -> jax.Array:
  return jnp.arange(waves.shape[1]) < lengths[:, None]


def _power(waves: jax.Array, lengths: jax.Array) -> jax.Array:
  """[B]: the mean square over a sound's samples."""
  return jnp.square(waves).sum(1) / jnp.maximum(lengths, 1)


def _scaled(added: jax.Array, lengths: jax.Array, power: jax.Array, snr: jax.Array) -> jax.Array:
  """`added` [B, S] at the power that is `snr` dB below `power`; nothing where it is silent."""
  own = _power(added, lengths)
  factor = jnp.sqrt(power * 10 ** (-snr / 10) / jnp.where(own > 0, own, 1))
  return added * jnp.where(own > 0, factor, 0)[:, None].astype(added.dtype)


def _moved(waves: jax.Array, offset: jax.Array) -> jax.Array:
  """[B, S] with each row moved by `offset` [B] places to the right (left where negative), zeros coming in."""
  size = waves.shape[1]
  padded = jnp.pad(waves, ((0, 0), (size, size)))
  return jax.vmap(lambda wave, at: jax.lax.dynamic_slice(wave, (size - at,), (size,)))(padded, offset)


def _joined(
  waves: jax.Array, lengths: jax.Array, others: jax.Array, other_lengths: jax.Array, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(each example and another one, one after the other [B, S]; their length [B])."""
  size = waves.shape[1]
  kept = jnp.minimum(lengths, jnp.maximum(size // 2, size - other_lengths))
  rest = jnp.minimum(other_lengths, size - kept)
  waves, others = jnp.where(_real(waves, kept), waves, 0), jnp.where(_real(others, rest), others, 0)
  return _moved(waves, jnp.where(first, 0, rest)) + _moved(others, jnp.where(first, kept, 0)), kept + rest


def _stretches(draws: jax.Array, length: jax.Array, most: float, size: int) -> jax.Array:
  """bool [B, size]: where one of the stretches [B, K, 2] lies, each up to `most` of `length` [B] wide."""
  length = length[:, None]
  width = jnp.floor(draws[..., 0] * (jnp.floor(most * length) + 1))
  start = jnp.floor(draws[..., 1] * (length - width + 1))
  at = jnp.arange(size)
  inside = (at >= start[..., None]) & (at < (start + width)[..., None])
  return inside.any(1)


def _check(recipe: Recipe, where: str) -> None:
  def number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

  for key in ("mix", "concatenate", "reverse", "noise", "time_width", "frequency_width"):
    if not (number(value := getattr(recipe, key)) and 0 <= value <= 1):
      raise UserError(f"{where}.{key}: must be a number from 0 to 1, not {value!r}")
  if not (number(recipe.gain) and 0 <= recipe.gain <= 100):
    raise UserError(f"{where}.gain: must be decibels from 0 to 100, not {recipe.gain!r}")
  for key in ("mix_snr", "noise_snr"):
    value = getattr(recipe, key)
    if not (isinstance(value, tuple) and len(value) == 2 and all(map(number, value)) and value[0] <= value[1]):
      raise UserError(f"{where}.{key}: must be (low, high) decibels with low <= high, not {value!r}")
  for key in ("time_masks", "frequency_masks"):
    value = getattr(recipe, key)
    if not (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 20):
      raise UserError(f"{where}.{key}: must be a whole number from 0 to 20, not {value!r}")


_DOMAIN = 0x736F756E  # "soun": keeps these draws apart from other uses of the same seed.
