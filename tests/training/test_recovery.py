"""Runs that are interrupted go on as if they had not been: same examples, same parameters."""

import contextlib
import os
import random
import shlex
import signal
import subprocess
import sys
import textwrap
import time

import jax
import numpy as np
import pytest
from test_cli import config_file
from tiny import five_terms, tiny_config

from mmcontrast import cli
from mmcontrast.data.pipeline import Batches
from mmcontrast.errors import Preempted
from mmcontrast.runs.checkpoint import complete_steps, load_run
from mmcontrast.train import train

STEPS = 16
HEADS = {name: tiny_config()["heads"][name] for name in ("image_joint", "text_joint")}
CONFIG = dict(
  steps=STEPS,
  heads=HEADS,
  objective={"image_to_text": five_terms()["image_to_text"]},
  checkpoint={**tiny_config()["checkpoint"], "every_steps": 2},
)
READ = Batches.__next__


@contextlib.contextmanager
def logged(ids, before=lambda step: None):
  """Within it, `ids` gets step -> the examples of its batch; `before` is called first with the step."""

  def read(batches):
    before(batches.step + 1)
    batch = READ(batches)
    ids[batches.step] = batch["index"].tolist()
    return batch

  Batches.__next__ = read
  try:
    yield
  finally:
    Batches.__next__ = READ


def same(a, b):
  return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data_dir):
  """(ids by step, final state) of an uninterrupted run."""
  ids = {}
  with logged(ids):
    state = train(tiny_config(**CONFIG), tmp_path_factory.mktemp("whole"), data_dir)
  assert sorted(ids) == list(range(1, STEPS + 1))
  return ids, state


CHILD = textwrap.dedent("""
    import json, sys, time
    from mmcontrast.cli import main
    from mmcontrast.data.pipeline import Batches
    read, log = Batches.__next__, open(sys.argv.pop(1), "a")
    def logged(batches):
      time.sleep(0.05)  # so that it is still there to be killed
      batch = read(batches)
      print(json.dumps([batches.step, batch["index"].tolist()]), file=log, flush=True)
      return batch
    Batches.__next__ = logged
    sys.exit(main(sys.argv[1:]))
""")


def test_kill_while_a_checkpoint_is_written_and_resume(whole, tmp_path, data_dir):
  file, run, log = config_file(tmp_path / "mine.py", **CONFIG), tmp_path / "run", tmp_path / "ids"
  child = subprocess.Popen(
    [sys.executable, "-c", CHILD, log, "train", "--config", file, "--workdir", run, "--data_dir", data_dir],
    stdout=subprocess.DEVNULL,
  )
  checkpoints, until = run / "checkpoints", random.randint(3, STEPS // 2)
  while not (
    complete_steps(checkpoints) and len(log.read_text().splitlines()) >= until and list(checkpoints.glob("*-tmp"))
  ):
    assert child.poll() is None
    time.sleep(0.001)
  child.kill()
  child.wait()
  kept = complete_steps(checkpoints)[-1]
  ids = {step: rows for step, rows in map(eval, log.read_text().splitlines()) if step <= kept}
  with logged(ids):
    state = train(tiny_config(**CONFIG), run, data_dir)
  assert kept < STEPS and ids == whole[0]
  assert same(state, whole[1])
  assert not list(checkpoints.glob("*-tmp"))


@pytest.fixture
def interruptible():
  """A process that was started in the background ignores SIGINT until it says otherwise."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
  "number, code, said",
  [
    (signal.SIGTERM, 0, "stopped by SIGTERM after step 7 of 16, its checkpoint is saved; to continue: mmcontrast"),
    (signal.SIGINT, 130, "interrupted; run the same command again to resume from what is saved"),
  ],
)
def test_a_signal_ends_the_run_well(number, code, said, whole, tmp_path, data_dir, capsys):
  file = config_file(tmp_path / "mine.py", **CONFIG)
  command = ["train", "--config", file, "--workdir", str(tmp_path / "run"), "--data_dir", str(data_dir)]
  handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
  ids = {}
  with logged(ids, before=lambda step: step == 7 and os.kill(os.getpid(), number)):
    assert cli.main(command) == code
  assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
  output = "".join(capsys.readouterr())
  assert said in output and (code or shlex.join(command) in output)
  assert complete_steps(tmp_path / "run" / "checkpoints")[-1] == (7 if number == signal.SIGTERM else 6)
  assert load_run(tmp_path / "run")[2] == max(complete_steps(tmp_path / "run" / "checkpoints"))
  if number == signal.SIGTERM:
    with logged(ids):
      state = train(tiny_config(**CONFIG), tmp_path / "run", data_dir)
    assert ids == whole[0] and same(state, whole[1])


def test_preempted_is_an_exit_with_zero():
  with pytest.raises(SystemExit) as end:
    raise Preempted("stopped")
  assert end.value.code == 0 and str(end.value) == "stopped"
