"""Log-mel spectrograms against librosa's, which tests/golden/make_log_mel.py wrote; padding that changes nothing."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.modalities.audio_log_mel import LogMel, frame_count, log_mel, mel_filters, parse

GOLDEN = np.load(pathlib.Path(__file__).parent.parent / "golden" / "log_mel.npz")
CASES = sorted(set(GOLDEN.files) - {"sound"})
WAVE = GOLDEN["sound"]
spectrograms = jax.jit(log_mel, static_argnums=(0, 1))


def settings(case, **more):
  options = {**json.loads(case), "mean": 0.0, "std": 1.0, **more}
  rate = options.pop("rate")
  return parse(options, rate), rate


def ours(case, dtype, **more):
  made, rate = settings(case, **more)
  values, real = spectrograms(made, rate, jnp.asarray(WAVE, dtype)[None], jnp.array([len(WAVE)]))
  assert values.dtype == dtype and bool(real.all())
  return np.asarray(values[0])


@pytest.mark.parametrize("case", CASES)
def test_it_is_librosas(case):
  np.testing.assert_allclose(ours(case, jnp.float32), GOLDEN[case], rtol=1e-4, atol=1e-4)
  with jax.enable_x64(True):
    np.testing.assert_allclose(ours(case, jnp.float64), GOLDEN[case], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_padding_changes_nothing(case):
  made, rate = settings(case)
  length = 1_333
  padded = np.full((2, 4_000), np.nan, np.float32)  # not even read
  padded[:, :length] = WAVE[:length]
  short, whole = spectrograms(made, rate, jnp.asarray(padded[:1, :length]), jnp.array([length]))
  long, real = spectrograms(made, rate, jnp.asarray(padded), jnp.array([length, 0]))
  frames = frame_count(made, length)
  assert whole.shape == (1, frames) and np.array_equal(real.sum(1), [frames, 0])
  np.testing.assert_allclose(long[0, :frames], short[0], rtol=1e-5, atol=1e-5)
  assert not np.any(np.asarray(long)[~np.asarray(real)])


def test_filters_sum_and_peak():
  flat = mel_filters(LogMel(norm="none", mels=20, low=200.0, high=7000.0), 16_000)
  bins = np.linspace(0, 8000, 257)
  peaks = bins[flat.argmax(1)]
  inner = (bins > peaks[0] + 32) & (bins < peaks[-1] - 32)
  np.testing.assert_allclose(flat.sum(0)[inner], 1, atol=1e-9)  # neighbours share each bin
  assert not flat[:, (bins < 200) | (bins > 7000)].any()


def test_mean_and_deviation():
  case = CASES[0]
  np.testing.assert_allclose(
    ours(case, jnp.float32, mean=-20.0, std=10.0), (ours(case, jnp.float32) + 20) / 10, atol=1e-5
  )


@pytest.mark.parametrize("edges", ["zeros", "reflect", "none"])
@pytest.mark.parametrize("power", [1.0, 2.0])
def test_finite_values_and_gradients_of_anything(edges, power):
  made = parse(dict(edges=edges, power=power), 16_000)
  waves = jnp.zeros((4, 2_000)).at[1, 0].set(1.0).at[2].set(1e4).at[3].set(-1.0)
  lengths = jnp.array([2_000, 1, 2_000, 0])

  @jax.jit
  def total(waves):
    return log_mel(made, 16_000, waves, lengths)[0].sum()

  assert np.isfinite(total(waves)) and np.isfinite(jax.grad(total)(waves)).all()


@pytest.mark.parametrize(
  "options, message",
  [
    (dict(mel=3), r"data\.audio\.log_mel\.mel: unknown key; did you mean 'mels'"),
    (dict(scale="slany"), r"log_mel\.scale: no such choice 'slany'; did you mean 'slaney'"),
    (dict(window=600), r"log_mel\.window: 600 samples do not fit fft=512; raise fft to 600"),
    (dict(hop=0), r"log_mel\.hop: 0; give a whole number over 0"),
    (dict(std=float("nan")), r"log_mel\.std: nan; give a number over 0"),
    (dict(mean=float("inf")), r"log_mel\.mean: inf; give a number"),
    (dict(high=9000.0), r"filters from low=0 to high=9000 Hz; give 0 <= low < high <= 8000"),
    (dict(low="a"), r"log_mel\.low: 'a'; give a number"),
    (dict(mels=200), r"\d+ of 200 filters lie between the 257 bins of fft=512 .* set fewer mels or a longer fft"),
  ],
)
def test_wrong_settings_are_refused(options, message):
  with pytest.raises(UserError, match=message):
    parse(options, 16_000)
