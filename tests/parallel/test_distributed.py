"""Several real processes on loopback: the same training as one, and an end when one of them dies."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_cli import config_file
from tiny import five_terms, tiny_config

from mmcontrast.errors import UserError
from mmcontrast.parallel import distributed, sharding
from mmcontrast.parameter_paths import parameter_paths
from mmcontrast.runs.checkpoint import load_run
from mmcontrast.train import train
from mmcontrast.training.observe import read_jsonl

TIMEOUT = 15  # also for finding each other, on a busy machine
SETTINGS = tiny_config()["distributed"]


def start(file, workdir, data_dir, process_id, port):
  """One of two processes, of two devices each, by the command line; its output is in `workdir`.<process_id>."""
  flags = re.sub(r"(device_count=)\d+", r"\g<1>2", os.environ["XLA_FLAGS"])
  environment = {
    **os.environ,
    "XLA_FLAGS": flags,
    "MMCONTRAST_COORDINATOR": f"127.0.0.1:{port}",
    "MMCONTRAST_PROCESSES": "2",
    "MMCONTRAST_PROCESS_ID": str(process_id),
  }
  with open(f"{workdir}.{process_id}", "w") as output:
    return subprocess.Popen(
      [sys.executable, "-m", "mmcontrast", "train", "--config", file, "--workdir", workdir, "--data_dir", data_dir],
      env=environment,
      stdout=output,
      stderr=subprocess.STDOUT,
    )


def free_port() -> int:
  with socket.socket() as one:
    one.bind(("127.0.0.1", 0))
    return one.getsockname()[1]


def changes(**more):
  """SGD, whose update is the gradient, on a term with a queue, momentum and a learned temperature, and on one whose
  clusters all processes make together."""
  heads = {name: tiny_config()["heads"][name] for name in ("image_joint", "text_joint")}
  prototypes = dict(module=dict(name="prototype_contrast", clusters=(4,)), embeddings="text[0]/text_joint")
  return dict(
    objective={"image_to_text": five_terms()["image_to_text"], "prototypes": prototypes},
    epoch_hooks=dict(clusters=dict(name="kmeans", term="prototypes", embedding="text[1]/text_joint@momentum")),
    heads=heads,
    optimizer=dict(name="sgd", learning_rate=0.1),
    distributed={**SETTINGS, "timeout_seconds": TIMEOUT},
    **more,
  )


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, data_dir, monkeypatch):
  evaluation = dict(
    tiny_config()["evaluation"],
    image="image_joint",
    text="text_joint",
    every_steps=1,
    sets=["emoji_views:twemoji"],
    evaluators=dict(retrieval={}),
  )
  settings = changes(steps=2, evaluation=evaluation)
  file = config_file(tmp_path / "mine.py", **settings)
  port = free_port()
  two = [start(file, tmp_path / "two", data_dir, i, port) for i in range(2)]
  codes = [process.wait(500) for process in two]
  assert codes == [0, 0], [(tmp_path / f"two.{i}").read_text() for i in range(2)]
  make_mesh = sharding.make_mesh
  monkeypatch.setattr(sharding, "make_mesh", lambda sizes, _: make_mesh(sizes, jax.devices()[:4]))
  train(tiny_config(**settings), tmp_path / "one", data_dir)

  lines, alone = (read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("two", "one"))
  assert [line["step"] for line in lines] == [1, 2]
  for line, expected in zip(lines, alone, strict=True):
    assert np.isclose(line["loss"], expected["loss"], rtol=1e-5)
    assert [name for name in line if name.endswith("image_to_text/recall@1")]  # the last step's too
  _, ours, step = load_run(tmp_path / "two")
  _, theirs, _ = load_run(tmp_path / "one")
  assert step == 2
  names = parameter_paths(ours)
  for name, a, b in zip(names, *map(jax.tree.leaves, (ours, theirs)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=name)
  said = [(tmp_path / f"two.{process}").read_text() for process in range(2)]
  assert "total" in said[0] and "total" not in said[1]  # only the first process reports


@pytest.fixture
def running(tmp_path, data_dir):
  """Two processes in the middle of a run without end, killed afterwards."""
  file, port = config_file(tmp_path / "mine.py", **changes(steps=100_000)), free_port()
  both = [start(file, tmp_path / "run", data_dir, i, port) for i in range(2)]
  try:
    metrics, patience = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 400
    while not (metrics.is_file() and len(read_jsonl(metrics)) > 1):
      assert time.monotonic() < patience and both[0].poll() is None, (tmp_path / "run.0").read_text()
      time.sleep(0.2)
    yield both
  finally:
    for process in both:
      process.kill()
      process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("dies", [0, 1])
def test_a_death_ends_the_run(dies, running, tmp_path):
  running[dies].send_signal(signal.SIGKILL)
  killed = time.monotonic()
  code = running[1 - dies].wait(6 * TIMEOUT)
  assert code != 0
  assert time.monotonic() - killed < 2 * TIMEOUT + 5  # a busy machine is slow to notice
  output = pathlib.Path(f"{tmp_path / 'run'}.{1 - dies}").read_text()
  assert "lost another process of this run" in output or "another task died" in output, output


@pytest.mark.slow
def test_a_preempted_process_stops_all_at_one_step(running, tmp_path):
  running[1].send_signal(signal.SIGTERM)
  codes = [process.wait(100) for process in running]
  outputs = [(tmp_path / f"run.{i}").read_text() for i in range(2)]
  assert codes == [0, 0], outputs
  step = int(
    re.search(
      r"stopped by SIGTERM after step (\d+) of 100000, its checkpoint is saved; to continue: "
      r"mmcontrast train",
      outputs[0],
    )[1]
  )
  assert load_run(tmp_path / "run")[2] == step and "to continue" not in outputs[1]


def test_alone_unless_asked_or_found():
  assert distributed.launch_of(SETTINGS, {}) is None
  assert distributed.launch_of({**SETTINGS, "mode": "off"}, {"MMCONTRAST_COORDINATOR": "a:1"}) is None
  assert distributed.launch_of(SETTINGS, {"SLURM_NTASKS": "4"}) is None  # in a batch script, before srun
  for found in ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_NODES": "2"}, {"TPU_WORKER_HOSTNAMES": "a,b"}):
    assert distributed.launch_of(SETTINGS, found) == distributed.Launch(None, None, None)
  environment = {"MMCONTRAST_COORDINATOR": "host:12", "MMCONTRAST_PROCESSES": "2", "MMCONTRAST_PROCESS_ID": "1"}
  assert distributed.launch_of(SETTINGS, environment) == distributed.Launch("host:12", 2, 1)
  assert distributed.launch_of({**SETTINGS, "process_id": 0}, environment) == distributed.Launch("host:12", 2, 0)


@pytest.mark.parametrize(
  "mistake, message",
  [
    (dict(mode="yes"), r"config\.distributed\.mode: no such choice 'yes'"),
    (dict(coordinator="host", processes=2, process_id=0), r"'host' has no port; give host:port"),
    (dict(coordinator="host:1", process_id=0), r"processes: None is not a number; .* \$MMCONTRAST_PROCESSES"),
    (dict(coordinator="host:1", processes=2), r"process_id: None is not a number; .* \$MMCONTRAST_PROCESS_ID"),
    (dict(coordinator="host:1", processes=2, process_id=2), r"process_id=2 of processes=2; number the processes"),
    (dict(timeout_seconds=0), r"timeout_seconds=0: give at least 1"),
  ],
)
def test_mistakes(mistake, message):
  with pytest.raises(UserError, match=message) as error:
    distributed.launch_of({**SETTINGS, **mistake}, {})
  assert "\n" not in str(error.value)
