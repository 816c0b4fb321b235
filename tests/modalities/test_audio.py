"""Sounds as a modality: views by seed, spectrograms and masks on the device, a run from files to search."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from mmcontrast.config import base_config
from mmcontrast.data import pipeline
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError
from mmcontrast.inference.trained_model import load
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.audio_log_mel import frame_count
from mmcontrast.train import train
from mmcontrast.training.program import make_preparations
from mmcontrast.training.step import prepared

AUDIO = MODALITIES["audio"]
RATE, SECONDS, COUNT = 8_000, 0.25, 24
MEL = dict(window=200, hop=80, fft=256, mels=16)


def tone(number, seconds=0.3, rate=RATE):
  at = np.arange(round(rate * seconds)) / rate
  return 0.5 * np.sin(2 * np.pi * (200 + 100 * (number % 8)) * at).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """24 sounds of eight pitches, of many kinds of file, one of them shorter than a view and one with another rate."""
  folder = tmp_path_factory.mktemp("sounds")
  rows = []
  for number in range(COUNT):
    kind = ("wav", "flac", "ogg")[number % 3]
    rate = 16_000 if number == 5 else RATE
    wave = tone(number, 0.1 if number == 4 else 0.3, rate)
    soundfile.write(folder / f"{number}.{kind}", wave, rate)
    rows.append({"clip": f"{number}.{kind}", "caption": f"pitch {number % 8}", "id": str(number % 8)})
  (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  return folder


def config(folder, views=1, augment="none", **audio):
  c = base_config()
  c.steps, c.batch.size, c.log.every_steps, c.checkpoint.every_steps = 4, 8, 1, 4
  c.data.update(
    dataset=f"jsonl:{folder}/a.jsonl",
    source=dict(audio="clip", id="id"),
    split="all",
    tokenizer="bytes",
    text_length=12,
    audio=dict(rate=RATE, seconds=SECONDS, log_mel=MEL, **audio),
  )
  c.data.views, c.augment = dict(audio=views, text=1), dict(audio=augment)
  c.towers = dict(
    audio=dict(name="audio_transformer", width=16, depth=1, heads=2, patch=(8, 8), stride=(6, 8)),
    text=dict(name="text_transformer", width=16, depth=1, heads=2),
  )
  c.heads = dict(
    audio_joint=dict(tower="audio", name="linear", dim=8), text_joint=dict(tower="text", name="linear", dim=8)
  )
  c.objective = dict(audio_text=dict(query="audio[0]/audio_joint", key="text[0]/text_joint", temperature=0.1))
  c.evaluation.update(audio="audio_joint", text="text_joint")
  return c.to_dict()


def batch(c, step=0):
  batches = pipeline.train_batches(c["data"], batch_size=c["batch"]["size"], seed=c["seed"], start_step=step)
  try:
    return next(batches)
  finally:
    batches.close()


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "run"
  state = train(config(folder, augment="sounds"), workdir)
  assert int(state.step) == 4
  return workdir


def test_a_batch_is_as_its_schema(folder):
  c = config(folder, views=2)
  made, spec = batch(c), pipeline.spec(c["data"], 8)
  for name in ("audio", "audio_length"):
    shape, dtype = spec.batch[name]
    assert made[name].shape == shape and made[name].dtype == dtype
  assert made["audio"].shape == (8, 2, 2_000) and made["audio"].any((1, 2)).all()


def test_views_are_cut_by_the_seed_and_short_sounds_are_padded(folder):
  c = config(folder, views=2)
  made, again = batch(c), batch(c)
  np.testing.assert_array_equal(made["audio"], again["audio"])
  for row, index in enumerate(made["index"]):
    length = 800 if index == 4 else 2_000
    assert made["audio_length"][row].tolist() == [length] * 2 and not made["audio"][row, :, length:].any()
    assert np.array_equal(made["audio"][row, 0], made["audio"][row, 1]) == (index == 4)
  first = batch(config(folder, views=2, crop="first"))
  row = next(row for row, index in enumerate(first["index"]) if index % 3 < 2 and index not in (4, 5))
  np.testing.assert_allclose(first["audio"][row], [tone(int(first["index"][row]))[:2_000]] * 2, atol=1e-4)


def test_preparation_makes_spectrograms_masks_and_facts(folder):
  c = config(folder, views=2, augment=["spec_augment", dict(concatenate=1.0, reverse=1.0, gain=3.0)])
  c["data"]["facts"] = ("seconds",)
  preparation = make_preparations(c)["audio"]
  made = batch(c)
  seen = jax.jit(lambda arrays: (preparation(arrays, True)["audio"], preparation.facts(arrays, True)))(
    {name: jnp.asarray(made[name]) for name in ("audio", "audio_length", "seed")}
  )
  (values, mask, *_), facts = seen
  frames = frame_count(preparation.log_mel, 2_000)
  assert values.shape == (8, 2, frames, 16) and mask.shape == (8, 2, frames)
  assert np.isfinite(values).all() and not np.any(np.asarray(values)[~np.asarray(mask)])
  np.testing.assert_allclose(facts["audio"]["seconds"][:, 0], made["audio_length"][:, 0] / RATE)
  assert np.array_equal(mask[:, 0].sum(1), made["audio_length"][:, 0] // 80 + 1)
  clean = preparation({name: jnp.asarray(made[name]) for name in ("audio", "audio_length", "seed")}, False)["audio"]
  hidden = np.asarray((values[:, 0] == 0) & (clean.values[:, 0] != 0))
  assert hidden.any() and np.array_equal(values[:, 0][~hidden], clean.values[:, 0][~hidden])


def test_a_view_is_the_same_on_one_device_and_on_eight(folder):
  c = config(folder, augment=dict(base="sounds", concatenate=0.5, reverse=0.5))
  preparations = {"audio": make_preparations(c)["audio"]}
  made = {name: jnp.asarray(array) for name, array in batch(c).items() if name in ("audio", "audio_length", "seed")}
  step = jax.jit(lambda arrays: prepared(preparations, arrays, train=True)["audio"])
  alone = step(made)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  spread = jax.device_put(made, jax.NamedSharding(mesh, jax.P("data")))
  for one, eight in zip(jax.tree.leaves(alone), jax.tree.leaves(step(spread)), strict=True):
    np.testing.assert_allclose(one, eight, atol=1e-4)


def test_it_trains_and_is_searched_by_a_sound(run, folder):
  model = load(run)
  path = folder / "7.flac"
  samples, rate = soundfile.read(path, dtype="float32")
  by_path, by_bytes = model.encode_audio(str(path)), model.encode_audio(path.read_bytes())
  by_array, by_own_rate = model.encode_audio((samples, rate)), model.encode_audio(samples)
  assert by_path.shape == (1, 8)
  for other in (by_bytes, by_array, by_own_rate):
    np.testing.assert_allclose(other, by_path, atol=1e-5)
  texts = model.encode_text([f"pitch {number}" for number in range(8)])
  assert (by_path @ texts.T).shape == (1, 8)
  with pytest.raises(UserError, match=r"not a readable sound .*; give a path, the bytes of a file"):
    model.encode_audio(b"no sound at all")


def test_what_is_bad_is_counted(folder, tmp_path):
  rows = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
  for row in rows:
    (tmp_path / row["clip"]).write_bytes((folder / row["clip"]).read_bytes())
  (tmp_path / "0.wav").write_bytes(b"")
  (tmp_path / "1.flac").write_bytes((folder / "1.flac").read_bytes()[:300])
  soundfile.write(tmp_path / "3.wav", np.zeros(900), RATE)
  rows.append({"caption": "no sound", "id": "9"})
  (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  c = config(tmp_path)
  c["data"]["on_error"]["max_share"] = 0.5
  batches = pipeline.train_batches(c["data"], batch_size=25, seed=0)
  next(batches)
  batches.close()
  reasons = " ".join(batches.bad_records.values())
  assert len(batches.bad_records) == 3 and batches.filtered == {"no sound": 1}
  for said in (
    "a.jsonl:1: empty sound",
    "a.jsonl:2: not a readable sound (flac",
    "a.jsonl:4: silence: every sample is 0",
  ):
    assert said in reasons, reasons


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(rate=0), r"data\.audio\.rate: 0; give a whole number, at least 1000"),
    (dict(seconds="2"), r"data\.audio\.seconds: '2'; give seconds"),
    (dict(crop="centre"), r"data\.audio\.crop: no such choice 'centre'; .*first, middle, random"),
    (dict(evaluation_crop="random"), r"data\.audio\.evaluation_crop: no such choice 'random'"),
    (dict(second=1), r"data\.audio\.second: unknown key; did you mean 'seconds'"),
    (dict(log_mel=dict(mel=3)), r"data\.audio\.log_mel\.mel: unknown key; did you mean 'mels'"),
    (dict(log_mel=dict(mels=300)), r"data\.audio\.log_mel\.mels: \d+ of 300 filters"),
    (dict(rate=8_000, log_mel=dict(high=7_000.0)), r"filters from low=0 to high=7000 Hz; give .* 4000, half the rate"),
  ],
)
def test_wrong_settings_are_one_line(change, message):
  with pytest.raises(UserError, match=message):
    resolve(dict(views=dict(audio=1), audio=change))


def test_a_wrong_recipe_and_mixing_in_chunks_are_refused(folder, tmp_path):
  c = config(folder, augment="sound")
  with pytest.raises(UserError, match=r"config\.augment\.audio: no such choice 'sound'; did you mean 'sounds'"):
    train(c, tmp_path / "run")
  c = config(folder, augment="sounds")
  c["batch"]["microbatches"] = 2
  with pytest.raises(UserError, match=r"config\.augment\.audio mixes examples of the whole batch"):
    train(c, tmp_path / "run")
  c = config(folder)
  c["data"]["source"] = dict(id="id", image=None)
  with pytest.raises(UserError, match=r"data\.views\.audio: dataset .* has no sounds at all; set it to 0"):
    train(c, tmp_path / "run")
  assert not (tmp_path / "run").exists()
