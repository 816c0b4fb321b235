"""Augmentation of sounds: each operation against a plain formula; draws that follow the example, not its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.modalities import audio_augmentation as augmentation
from mmcontrast.modalities.audio_augmentation import Draws, Recipe, parse_recipe, view_recipes

SIZE = 12
LENGTHS = np.array([12, 7, 5, 0])
SEEDS = jnp.array([9, 4, 7, 1], jnp.uint32)
WAVES = np.where(np.arange(SIZE) < LENGTHS[:, None], np.random.default_rng(0).standard_normal((4, SIZE)), 0)
WAVES = WAVES.astype(np.float32)
# By order of seeds (3, 1, 2, 0): the next one of each.
NEXT = np.array([3, 2, 0, 1])


def draws(**some):
  """Draws that change nothing, but for `some`, the same for all."""
  values = dict(other=0.0, mix=False, mix_snr=0.0, concatenate=False, first=True, reverse=False, gain=0.0, noise=False,
                noise_snr=0.0) | some  # fmt: skip
  arrays = {name: jnp.full(4, value) for name, value in values.items() if np.ndim(value) < 2}
  return Draws(**{**dict(time=jnp.zeros((4, 0, 2)), frequency=jnp.zeros((4, 0, 2))), **values, **arrays})


def applied(recipe, waves=WAVES, lengths=LENGTHS, **some):
  changed, new = augmentation.apply_to_waves(recipe, jnp.asarray(waves), jnp.asarray(lengths), SEEDS, draws(**some))
  return np.asarray(changed), np.asarray(new)


def power(wave):
  return np.mean(np.square(wave)) if len(wave) else 0.0


def test_partners_are_others_whatever_the_order_of_the_batch():
  assert np.array_equal(augmentation.partners(SEEDS, jnp.zeros(4)), NEXT)
  seeds = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, 9, dtype=np.uint32))
  uniform = jnp.linspace(0, 0.999999, 9)
  found = np.asarray(augmentation.partners(seeds, uniform))
  assert not np.any(found == np.arange(9))
  order = np.random.default_rng(1).permutation(9)
  moved = np.asarray(augmentation.partners(seeds[order], uniform[order]))
  assert np.array_equal(order[moved], found[order])
  assert np.array_equal(augmentation.partners(SEEDS[:1], jnp.zeros(1)), [0])


@pytest.mark.parametrize("snr", [-10.0, 0.0, 12.0])
def test_mixing_adds_another_example_at_its_ratio(snr):
  mixed, lengths = applied(Recipe(mix=1.0), mix=True, mix_snr=snr)
  assert np.array_equal(lengths, LENGTHS)
  for row, other in enumerate(NEXT):
    length = LENGTHS[row]
    added = mixed[row] - WAVES[row]
    assert not added[length:].any()
    part = np.where(np.arange(SIZE) < length, WAVES[other], 0)[:length]
    if power(part):
      np.testing.assert_allclose(10 * np.log10(power(WAVES[row, :length]) / power(added[:length])), snr, atol=1e-4)
      np.testing.assert_allclose(added[:length] / np.linalg.norm(added), part / np.linalg.norm(part), atol=1e-5)
    else:
      assert not added.any()


@pytest.mark.parametrize("first", [True, False])
def test_concatenating_keeps_half_of_each(first):
  joined, lengths = applied(Recipe(concatenate=1.0), concatenate=True, first=first)
  parts = {1: (WAVES[1, :7], WAVES[2, :5]), 2: (WAVES[2, :5], WAVES[0, :7])}  # row 0's other is empty, row 3 is
  for row, (own, other) in parts.items():
    both = np.concatenate([own, other] if first else [other, own])
    assert lengths[row] == len(both) == 12
    np.testing.assert_array_equal(joined[row], both)
  for row in (0, 3):
    assert lengths[row] == LENGTHS[row]
    np.testing.assert_array_equal(joined[row], WAVES[row])


def test_reversing_is_of_the_sound_and_not_of_its_padding():
  backwards, lengths = applied(Recipe(reverse=1.0), reverse=True)
  for row, length in enumerate(LENGTHS):
    np.testing.assert_array_equal(backwards[row, :length], WAVES[row, :length][::-1])
    assert not backwards[row, length:].any() and lengths[row] == length


def test_gain_is_in_decibels():
  np.testing.assert_allclose(applied(Recipe(gain=20.0), gain=-20.0)[0], WAVES / 10, rtol=1e-6)


def test_noise_has_its_ratio_and_stays_within_the_sound():
  waves = np.where(np.arange(4_000) < np.array([4_000, 1_000, 10, 0])[:, None], np.ones((4, 4_000)), 0)
  lengths = np.array([4_000, 1_000, 10, 0])
  noisy, _ = applied(Recipe(noise=1.0), waves.astype(np.float32), lengths, noise=True, noise_snr=6.0)
  noise = noisy - waves
  for row in range(3):
    np.testing.assert_allclose(10 * np.log10(power(noise[row, : lengths[row]])), -6.0, atol=1e-3)
    assert not noise[row, lengths[row] :].any()
  assert not noise[3].any()
  assert abs(np.corrcoef(noise[0, :1_000], noise[1, :1_000])[0, 1]) < 0.1


def test_silence_stays_silent_and_finite():
  recipe = parse_recipe(dict(base="sounds", mix=1.0, noise=1.0, concatenate=1.0, reverse=1.0))
  waves, lengths = jnp.zeros((4, 100)), jnp.array([100, 50, 1, 0])
  drawn = augmentation.draw(recipe, SEEDS)
  changed, _ = augmentation.apply_to_waves(recipe, waves, lengths, SEEDS, drawn)
  assert not np.any(changed)


def test_spectrogram_masks_are_stretches_of_what_is_real():
  recipe = Recipe(time_masks=1, time_width=0.5, frequency_masks=1, frequency_width=0.25)
  real = np.arange(20) < np.array([20, 10, 4, 0])[:, None]
  time, frequency = np.full((4, 1, 2), [0.999, 0.5]), np.full((4, 1, 2), [0.999, 0.0])
  some = draws(time=jnp.asarray(time), frequency=jnp.asarray(frequency))
  masked = np.asarray(augmentation.mask_spectrogram(recipe, jnp.ones((4, 20, 8)), jnp.asarray(real), some))
  hidden = masked[:, :, -1] == 0
  for row, stretch in enumerate([range(5, 15), range(3, 8), range(1, 3), []]):
    assert np.array_equal(np.flatnonzero(hidden[row]), stretch)
  assert (masked[:, :, 0] == 0).all() and (masked[3, :, 2:] == 1).all()


def test_widths_are_drawn_up_to_the_most():
  recipe = Recipe(time_masks=1, time_width=0.3)
  seeds = jnp.arange(400, dtype=jnp.uint32)
  drawn = augmentation.draw(recipe, seeds)
  masked = augmentation.mask_spectrogram(recipe, jnp.ones((400, 50, 1)), jnp.ones((400, 50), bool), drawn)
  widths = np.asarray((masked[..., 0] == 0).sum(1))
  assert widths.max() <= 15 and widths.max() >= 13 and abs(widths.mean() - 7.5) < 0.6
  assert (np.asarray(masked)[:, [0, -1]] == 0).any((0, 2)).all()  # edges are reached


def test_a_view_does_not_depend_on_its_place():
  recipe = parse_recipe(dict(base="sounds", mix=0.5, concatenate=0.5, reverse=0.5, noise=0.5))
  seeds = jnp.asarray(np.random.default_rng(2).integers(0, 2**32, 8, dtype=np.uint32))
  lengths = jnp.asarray(np.random.default_rng(3).integers(1, 65, 8))
  waves = jnp.where(
    jnp.arange(64) < lengths[:, None], jnp.asarray(np.random.default_rng(4).standard_normal((8, 64))), 0
  )
  order = np.random.default_rng(5).permutation(8)

  @jax.jit
  def view(seeds, waves, lengths):
    drawn = augmentation.draw(recipe, seeds, 1)
    return *augmentation.apply_to_waves(recipe, waves, lengths, seeds, drawn, 1), drawn

  changed, new, drawn = view(seeds, waves, lengths)
  moved, moved_lengths, moved_draws = view(seeds[order], waves[order], lengths[order])
  np.testing.assert_array_equal(moved_lengths, np.asarray(new)[order])
  np.testing.assert_allclose(moved, np.asarray(changed)[order], rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, np.asarray(b)[order]), moved_draws, drawn)
  second = augmentation.draw(recipe, seeds, 2)
  assert not np.array_equal(second.gain, drawn.gain)


def test_shares_are_those_of_the_recipe():
  drawn = augmentation.draw(Recipe(mix=0.3, reverse=0.8, gain=6.0), jnp.arange(2_000, dtype=jnp.uint32))
  assert abs(np.mean(drawn.mix) - 0.3) < 0.03 and abs(np.mean(drawn.reverse) - 0.8) < 0.03
  assert not np.any(drawn.noise) and not np.any(drawn.concatenate)
  assert np.min(drawn.gain) >= -6 and np.max(drawn.gain) <= 6 and np.std(drawn.gain) > 3


@pytest.mark.parametrize(
  "spec, message",
  [
    ("speach", r"augment\.audio: no such choice 'speach'; did you mean 'speech'"),
    (dict(base="x"), r"augment\.audio\.base: no such choice 'x'"),
    (dict(mixx=0.5), r"augment\.audio: no option 'mixx'; did you mean 'mix'"),
    (dict(mix=1.5), r"augment\.audio\.mix: must be a number from 0 to 1, not 1\.5"),
    (dict(noise_snr=(20, 10)), r"augment\.audio\.noise_snr: must be \(low, high\) decibels with low <= high"),
    (dict(noise_snr=5), r"augment\.audio\.noise_snr: must be \(low, high\)"),
    (dict(gain=-1), r"augment\.audio\.gain: must be decibels from 0 to 100, not -1"),
    (dict(time_masks=1.5), r"augment\.audio\.time_masks: must be a whole number from 0 to 20"),
    (7, r"augment\.audio: 7 is neither a recipe's name nor a table"),
  ],
)
def test_wrong_recipes_are_refused(spec, message):
  with pytest.raises(UserError, match=message):
    parse_recipe(spec)


def test_views_may_differ():
  assert view_recipes(["none", dict(gain=3.0)], 2) == (Recipe(), Recipe(gain=3.0))
  assert view_recipes("speech", 2)[0] == view_recipes("speech", 2)[1]
  with pytest.raises(UserError, match=r"augment\.audio: 1 recipes for 2 views; give one for each"):
    view_recipes(["none"], 2)
  with pytest.raises(UserError, match=r"augment\.audio\[1\]: no option 'a'"):
    view_recipes(["none", dict(a=1)], 2)
