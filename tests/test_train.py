"""The training program on real data: what it leaves, exact resume, and what stops it."""

import json
import shutil

import jax
import numpy as np
import pytest
from tiny import tiny_config

from mmcontrast import train as training
from mmcontrast.data.pipeline import Batches
from mmcontrast.errors import UserError
from mmcontrast.parallel import sharding
from mmcontrast.runs.checkpoint import load_run
from mmcontrast.training.observe import read_jsonl
from mmcontrast.training.step import train_step


def train(workdir, data_dir, **changes):
  return training.train(tiny_config(**changes), workdir, data_dir)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
  """(workdir, final state) of an uninterrupted run of six steps."""
  workdir = tmp_path_factory.mktemp("whole")
  return workdir, train(workdir, data_dir)


def same(a, b):
  pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
  return pairs and all(np.array_equal(x, y) for x, y in pairs)


def test_what_a_run_leaves(whole):
  workdir, state = whole
  assert int(state.step) == 6
  lines = read_jsonl(workdir / "metrics.jsonl")
  assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
  assert {
    "loss",
    "image_tags/loss",
    "image_to_text/temperature",
    "learning_rate",
    "examples_per_second",
    "data_wait",
    "data/skipped",
  } <= set(lines[-1])
  assert json.loads((workdir / "config.json").read_text())["batch"] == {"size": 16, "microbatches": 1}
  assert list((workdir / "tensorboard").glob("events*"))


def test_resume_is_bit_equal(whole, tmp_path, data_dir, monkeypatch):
  class Killed(Exception):
    pass

  # Dies in the fourth step; the checkpoint of the third is what is left.
  jit, calls = jax.jit, []

  def dying_jit(function, **options):
    compiled = jit(function, **options)
    if getattr(function, "__name__", "") != train_step.__name__:
      return compiled

    def step(*arguments):
      calls.append(1)
      if len(calls) == 4:
        raise Killed
      return compiled(*arguments)

    return step

  monkeypatch.setattr(jax, "jit", dying_jit)
  with pytest.raises(Killed):
    train(tmp_path, data_dir)
  monkeypatch.undo()
  assert load_run(tmp_path)[2] == 3
  state = train(tmp_path, data_dir)
  assert same(state, whole[1])
  losses = [[line["loss"] for line in read_jsonl(d / "metrics.jsonl")] for d in (tmp_path, whole[0])]
  assert losses[0] == losses[1]


def test_a_finished_run_stays_as_it_is_and_takes_another_evaluation(whole, data_dir, capsys):
  workdir, state = whole
  evaluation = {**tiny_config()["evaluation"], "sets": ("emoji_views:twemoji",), "batch_size": 64}
  assert same(train(workdir, data_dir, evaluation=evaluation), state)
  assert len(read_jsonl(workdir / "metrics.jsonl")) == 6
  assert "config.evaluation.batch_size, config.evaluation.sets changed: `mmcontrast" in capsys.readouterr().out
  assert json.loads((workdir / "config.json").read_text())["evaluation"]["batch_size"] == 64


def test_checkpoints_kept_and_loaded_by_step(tmp_path, data_dir):
  checkpoint = {**tiny_config()["checkpoint"], "every_steps": 2, "keep_last": 2, "keep_best": 0}
  train(tmp_path, data_dir, checkpoint=checkpoint)
  config, variables, step = load_run(tmp_path, step=4)
  assert step == 4 and config["batch"]["size"] == 16
  assert not same(variables["params"], load_run(tmp_path)[1]["params"])
  with pytest.raises(UserError, match=r"no checkpoint of step 2; there are \[4, 6\]"):
    load_run(tmp_path, step=2)


def test_resume_on_fewer_devices(whole, tmp_path, data_dir, monkeypatch):
  ids, read, make_mesh = {}, Batches.__next__, sharding.make_mesh

  def logged(batches):
    batch = read(batches)
    assert ids.setdefault(batches.step, batch["index"].tolist()) == batch["index"].tolist()
    return batch

  monkeypatch.setattr(Batches, "__next__", logged)
  checkpoint = {**tiny_config()["checkpoint"], "every_steps": 2, "keep_last": 3, "keep_best": 0}
  for devices, done in ((8, 0), (4, 2), (1, 4)):
    for step in (4, 6):
      if done and step > done:
        shutil.rmtree(tmp_path / "checkpoints" / str(step))
    monkeypatch.setattr(sharding, "make_mesh", lambda sizes, _, n=devices: make_mesh(sizes, jax.devices()[:n]))
    state = train(tmp_path, data_dir, checkpoint=checkpoint)
    assert int(state.step) == 6 and len(state.step.sharding.device_set) == devices
  # Sums are taken in another order, and Adam's first steps turn any difference into a sign.
  losses = [[line["loss"] for line in read_jsonl(d / "metrics.jsonl")] for d in (tmp_path, whole[0])]
  np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_another_config_is_refused(whole, data_dir):
  with pytest.raises(UserError, match=r"another config: config\.seed was 0, now 1"):
    train(whole[0], data_dir, seed=1)


def test_nan_names_the_step_and_the_term_and_keeps_the_checkpoint(tmp_path, data_dir):
  # Nothing moves until the fifth step, which throws the parameters far away.
  rate = dict(name="linear", init=0.0, end=1e30, begin_steps=3, steps=1)
  with pytest.raises(UserError, match=r"step 6: .*text_text/loss.* not finite; the last checkpoint is intact"):
    train(tmp_path, data_dir, optimizer=dict(name="sgd", learning_rate=rate))
  assert load_run(tmp_path)[2] == 3


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(batch=dict(size=12)), r"config\.batch\.size=12 does not divide over 8 devices; try 8 or 16"),
    (dict(mesh=dict(data=3)), r"does not multiply to the 8 devices"),
    (dict(mesh=dict(model=8)), r"unknown key config\.mesh\.model; .*data, fsdp, tensor"),
    (dict(momentum=dict(decay=0.9, update="before")), r"did you mean 'before_keys'"),
    (dict(heads=dict(image_joint=dict(tower="imag", name="linear", dim=8))), r"did you mean 'image'"),
    (dict(augment=dict(image="mocov2")), r"did you mean 'moco_v2'"),
  ],
)
def test_mistakes_stop_before_compilation(changes, message, tmp_path, data_dir):
  with pytest.raises(UserError, match=message) as error:
    train(tmp_path / "run", data_dir, **changes)
  assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
  "term, message",
  [
    (dict(query="image[2]/image_ssl"), r"image_image.*image\[0\] to \[1\] exist"),
    (dict(query="image[0]/image_sl"), r"image_image.*did you mean 'image_ssl'"),
    (dict(negatives="queue:40"), r"image_image.*multiple of the global batch 16"),
    (dict(taget="identity"), r"image_image.*did you mean 'target'"),
  ],
)
def test_mistakes_in_a_term_name_it(term, message, tmp_path, data_dir):
  objective = tiny_config()["objective"]
  objective["image_image"] = {**objective["image_image"], **term}
  del objective["image_tags"]  # shares the queue
  with pytest.raises(UserError, match=message):
    train(tmp_path / "run", data_dir, objective=objective)
  assert not (tmp_path / "run").exists()
