"""Signals of several channels: what is read and refused, what a view and a tower see, what a formula makes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.data import noise
from mmcontrast.data.inspection import inspect, pictures
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.data.sources import open_source
from mmcontrast.encoders.series_transformer import SeriesTransformer
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.rows import to_npy

SERIES = MODALITIES["series"]
SIGNAL = np.random.default_rng(0).normal(3, 2, (40, 3)).astype(np.float32)


def settings(**options):
  options = {"channels": 3, "length": 24, **options}
  return resolve({"views": {"series": options.pop("views", 1)}, "series": options})


def broken(value, where=(7, 2)):
  changed = SIGNAL.copy()
  changed[where] = value
  return to_npy(changed)


@pytest.mark.parametrize(("raw", "message"), [
  (broken(np.nan), r"1 numbers are not finite, the first at sample 7, channel 2: nan"), (b"x", "not a readable .npy"),
  (broken(np.inf), "sample 7, channel 2: inf"),
  (to_npy(np.zeros((4, 2))), "2 channels where data.series.channels is 3"),
  (to_npy(np.zeros((0, 3))), "without a sample"), (to_npy(np.zeros((2, 2, 2))), r"shape \(2, 2, 2\)"),
  (to_npy(SIGNAL.T), r"40 channels .* is 3; is it \[channels, samp"),
  (b"1,2,3\n", "not a readable .npy file: it begins with b'1,2,3"), (b"", "empty file"),
  (b"PK\x03\x04", "of an .npz store one array as .npy"),
  (to_npy(np.zeros((200, 3))), "200 samples, over data.series.longest=100"),
])  # fmt: skip
def test_what_is_no_series_is_a_bad_record(raw, message):
  of = settings(longest=100)
  with pytest.raises(BadRecord, match=message):
    SERIES.decode({"series": {"leads": raw}}, of)
  with pytest.raises(UserError, match=message) as caught:
    SERIES.accepts(raw, of, "series 0")
  assert "\n" not in str(caught.value)


def test_an_array_of_what_is_no_number_is_refused():
  for value in ([[10**400, 0, 1]], [["a"]], [[1], [2, 3]]):
    with pytest.raises(BadRecord, match="column 'leads': not rows of numbers: "):
      SERIES.raw_of(value, "leads", {}, {})
  for values in (np.ones((4, 3), complex), np.zeros((4, 3), "M8[s]")):
    with pytest.raises(UserError, match=f"series 0: an array of {values.dtype.name[:9]}.* is not a series"):
      SERIES.accepts(values, settings(), "series 0")


@pytest.mark.parametrize(("options", "message"), [
  (dict(channels=0), r"series\.channels"), (dict(crop="middl"), "did you mean 'middle'"), (dict(noise=-1), "noise: -1"),
  (dict(norm="standard"), "did you mean 'standardize'"), (dict(lenght=3), "did you mean 'length'"),
])  # fmt: skip
def test_wrong_settings_are_one_line(options, message):
  with pytest.raises(UserError, match=message):
    settings(**options)


def test_a_view_is_a_cut_by_its_numbers():
  of = settings(views=2)
  into = {"series": np.zeros((2, 24, 3), np.float32), "series_length": np.zeros(2, np.int32)}
  SERIES.view({"leads": SIGNAL}, {noise.stream("series"): np.array([0, 0, 0.0, 0.99])}, of, into)
  np.testing.assert_array_equal(into["series"], np.stack([SIGNAL[:24], SIGNAL[-24:]]))
  np.testing.assert_array_equal(SERIES.accepts(SIGNAL, of, ""), SIGNAL[:24])
  batch = SERIES.batch([SIGNAL[:24], SIGNAL[:5]], of, None)
  assert batch["series_length"].tolist() == [24, 5] and not batch["series"][1, 5:].any()


def prepared(lengths, train=False, **options):
  config = {"data": settings(**options), "augment": {}}
  batch = SERIES.batch([SIGNAL[:length] for length in lengths], config["data"], None)
  arrays = {name: array[:, None] for name, array in batch.items()}
  seeds = np.arange(len(lengths), dtype=np.uint32)
  return SERIES.preparation(config)({**arrays, "seed": seeds}, train)["series"].view(0)


def test_channels_are_standardised_over_what_is_real():
  values, mask = prepared([24, 9])[:2]
  assert mask.sum(1).tolist() == [24, 9] and not np.asarray(values)[1, 9:].any()
  part = np.asarray(values)[1, :9]
  np.testing.assert_allclose(part.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(part.std(0), 1, atol=1e-4)
  noisy = prepared([24, 9], train=True, noise=0.5).values
  alone = prepared([24], train=True, noise=0.5).values
  np.testing.assert_array_equal(noisy[0], alone[0])
  assert np.abs(noisy - values).max() > 0.1 and not np.asarray(noisy)[1, 9:].any()


def test_units_and_offsets_do_not_matter():
  config = {"data": settings(), "augment": {}}

  def seen(raw):
    batch = SERIES.batch([SERIES.evaluation_view(raw, config["data"])], config["data"], None)
    arrays = {name: array[:, None] for name, array in batch.items()}
    made = SERIES.preparation(config)({**arrays, "seed": np.zeros(1, np.uint32)}, False)
    return np.asarray(made["series"].values)[0, 0]

  expected = seen(to_npy(SIGNAL))
  np.testing.assert_allclose(expected.std(0), 1, atol=1e-4)
  for scale, offset in ((1e-7, 0), (1e-30, 0), (1e30, 0), (1, 1e8)):
    np.testing.assert_allclose(seen(to_npy(scale * SIGNAL.astype(np.float64) + offset)), expected, atol=1e-4)
  assert not seen(to_npy(np.full((40, 3), 1e6 + 0.1))).any()  # a channel that stands still


def test_a_tower_does_not_see_padding():
  tower = SeriesTransformer(width=8, depth=1, heads=2, stem=4)
  x = jnp.asarray(SIGNAL[None])
  mask = jnp.arange(40)[None] < 22

  def run(variables, x, mask):
    return tower.apply(variables, x, mask, train=False)

  variables = jax.jit(lambda: tower.init(jax.random.key(0), x, mask, train=False))()
  made = jax.jit(run)(variables, x, mask)
  short = jax.jit(run)(variables, x[:, :22], mask[:, :22])
  assert made.tokens.shape == (1, 8, 8) and made.mask.sum() == 5 == short.mask.sum()
  np.testing.assert_allclose(made.pooled, short.pooled, atol=1e-6)
  np.testing.assert_array_equal(made.pooled, jax.jit(run)(variables, x.at[:, 22:].set(7), mask).pooled)
  with pytest.raises(UserError, match=r"stride=50 is longer than series of 40 samples; set it to 40 or less"):
    SeriesTransformer(width=8, depth=1, heads=2, stride=50).init(jax.random.key(0), x, train=False)
  with pytest.raises(UserError, match="stride=0"):
    SeriesTransformer(stride=0)


def test_heartbeats_are_of_their_class():
  source = open_source({"dataset": "heartbeats", "source": {"count": 36}}, "train")
  assert len(source) == 36 and source[3]["series"] == source[3]["series"]
  for index in (0, 2):  # slow and fast, regular
    lead = SERIES.rows(source[index]["series"]["leads"])[:, 1]
    peaks = (lead[1:-1] > 0.5) & (lead[1:-1] >= lead[:-2]) & (lead[1:-1] > lead[2:])
    assert (7 <= peaks.sum() <= 10) if index == 0 else (17 <= peaks.sum() <= 23)
  assert {source[n]["id"] for n in range(18)} == set(range(18))
  assert source[4]["captions"]["caption"][0] == "heartbeat of normal rate, irregular rhythm without P waves"
  text = inspect(source).text
  assert "series: leads" in text and "3 channels; 1000 / 1000 / 1000 samples" in text and "made by a formula" in text
  shown, _ = pictures(source)
  assert any(one.picture.shape == (192, 192, 3) for one in shown)
  with pytest.raises(UserError, match=r"data\.split"):
    open_source({"dataset": "heartbeats"}, "tset")
