"""launch/tpu_vm.sh against a stand-in for gcloud: a slice that must be waited for, is taken away, comes back."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
STAND_INS = pathlib.Path(__file__).parent / "stand_ins"


@pytest.fixture
def cloud(tmp_path):
  """A folder that is the cloud, and a clone of the launchers as a committed tree."""
  folder = tmp_path / "cloud"
  folder.mkdir()
  (folder / "calls.jsonl").touch()
  (folder / "bin").mkdir()  # in place of a search for Python at each of many calls
  (folder / "bin/gcloud").write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_INS}/gcloud.py "$@"\n')
  (folder / "bin/gcloud").chmod(0o755)
  tree = tmp_path / "tree"
  shutil.copytree(ROOT / "launch", tree / "launch")
  for words in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x"]):
    subprocess.run(["git", *words], cwd=tree, check=True)
  return folder


def launch(cloud, *words, waits=1, preempt_after=None, failing_ssh=0, **environment):
  """Runs tpu_vm.sh; returns the finished process and the calls of gcloud, as lists of words."""
  script = {"waits": waits, "preempt_after": preempt_after, "failing_ssh": failing_ssh}
  (cloud / "script").write_text(json.dumps(script))
  path = f"{cloud}/bin:{STAND_INS}:{os.environ['PATH']}"
  done = subprocess.run(
    [cloud.parent / "tree/launch/tpu_vm.sh", *words],
    capture_output=True,
    text=True,
    timeout=60,
    env=os.environ | {"GCLOUD_CLOUD": str(cloud), "PATH": path} | environment,
  )
  return done, [json.loads(line) for line in (cloud / "calls.jsonl").read_text().splitlines()]


def babysit(cloud, *options, workdir=None, **behaviour):
  arguments = ["--config", "a config", "--workdir", str(workdir or cloud / "bin" / "run")]
  return launch(
    cloud,
    "babysit",
    "mct",
    "--zone",
    "z",
    "--type",
    "v5litepod-16",
    "--poll",
    "0",
    *options,
    "--",
    *arguments,
    **behaviour,
  )


def test_a_run_from_nothing_to_the_end_leaves_no_slice(cloud):
  done, calls = babysit(cloud, "--spot", waits=2, STEPS="3")
  assert done.returncode == 0, done.stdout + done.stderr
  create = next(words for words in calls if "create" in words)
  assert create == [
    "compute",
    "tpus",
    "queued-resources",
    "create",
    "mct",
    "--zone",
    "z",
    "--accelerator-type",
    "v5litepod-16",
    "--runtime-version",
    "v2-alpha-tpuv5-lite",
    "--node-id",
    "mct",
    "--spot",
  ]
  assert [line for line in done.stdout.splitlines() if line.startswith("step")] == ["step 1", "step 2", "step 3"]
  assert not (cloud / "state").exists()  # deleted
  run = cloud / "bin" / "run"
  assert (run / "environment").read_text() == "port 8476 preempted 143\n"
  assert (run / "step-0").read_text() == (run / "step-1").read_text() == "3\n"  # both hosts


def test_a_spot_slice_that_is_taken_away_is_made_again_and_the_run_resumes(cloud):
  # install, start, log, status: then the slice goes while the run is under way.
  done, calls = babysit(cloud, "--spot", preempt_after=8, STEPS="15")
  assert done.returncode == 0, done.stdout + done.stderr
  assert "resuming from step" in done.stdout
  assert sum("create" in words for words in calls) == 2
  assert sum("delete" in words for words in calls) == 2  # the suspended one, and the last
  assert (cloud / "bin/run/starts-0").read_text() == "start\n" * 2
  assert not (cloud / "state").exists()


@pytest.mark.parametrize("code", ["1", "75", "143"])
def test_a_run_that_ends_by_a_fault_is_started_again_on_the_same_slice(cloud, code):
  done, calls = babysit(cloud, CODES=code)
  assert done.returncode == 0, done.stdout + done.stderr
  assert sum("create" in words for words in calls) == 1
  assert (cloud / "bin/run/starts-1").read_text() == "start\n" * 2


def test_a_mistake_of_the_config_is_not_tried_again(cloud):
  done, calls = babysit(cloud, CODES="2 2")
  assert done.returncode == 2
  assert (cloud / "bin/run/starts-0").read_text() == "start\n"
  assert "delete" in calls[-1]


def test_restarts_are_bounded_and_nothing_is_left(cloud):
  done, _ = babysit(cloud, "--restarts", "2", CODES="1 1 1 1 1")
  assert done.returncode == 1
  assert "ended with 1, after 2 restarts" in done.stdout
  assert (cloud / "bin/run/starts-0").read_text() == "start\n" * 3
  assert not (cloud / "state").exists()


def test_a_run_that_is_asked_to_stop_ends(cloud):
  launch(cloud, "create", "mct", "--zone", "z", "--type", "v6e-8", "--poll", "0")
  launch(cloud, "install", "mct", "--zone", "z")
  host = cloud / "mct/0/mmcontrast"
  words = [host / "launch/tpu_host.sh", "start", "--config", "c", "--workdir", str(cloud / "run")]
  environment = os.environ | {"HOST_OF_SLICE": "mct/0", "STEPS": "1000"}
  subprocess.run(words, check=True, env=environment)
  again = subprocess.run(words, capture_output=True, text=True, env=environment)
  assert again.returncode == 1 and "runs here already" in again.stderr
  done, _ = launch(cloud, "stop", "mct", "--zone", "z")
  assert done.returncode == 0, done.stderr
  assert subprocess.run([host / "launch/tpu_host.sh", "status"], capture_output=True, text=True).stdout == "none\n"


def test_an_ssh_that_fails_once_does_not_end_the_run(cloud):
  launch(cloud, "create", "mct", "--zone", "z", "--type", "v6e-8", "--poll", "0")
  launch(cloud, "install", "mct", "--zone", "z")
  train = ["train", "mct", "--zone", "z", "--poll", "0", "--", "--config", "c", "--workdir", str(cloud / "bin" / "run")]
  done, _ = launch(cloud, *train, failing_ssh=1)
  assert done.returncode == 125  # the start itself is not tried twice: a second one would be a second run
  done, _ = launch(cloud, *train)
  assert done.returncode == 0, done.stdout + done.stderr
  shown, _ = launch(cloud, "logs", "mct", "--zone", "z")
  assert "step 3" in shown.stdout
  assert (cloud / "state").read_text() == "ACTIVE"  # `train` deletes nothing


def test_several_slices_are_one_request(cloud):
  done, calls = babysit(cloud, "--slices", "2", "--keep")
  assert done.returncode == 0, done.stdout + done.stderr
  create = next(words for words in calls if "create" in words)
  assert create[-4:] == ["--node-count", "2", "--node-prefix", "mct"]
  assert {words[4] for words in calls if words[3] == "ssh"} == {"mct-0", "mct-1"}
  assert (cloud / "state").exists()


def test_a_changed_tree_is_not_shipped_as_the_last_commit(cloud):
  launch(cloud, "create", "mct", "--zone", "z", "--type", "v6e-8", "--poll", "0")
  (cloud.parent / "tree" / "mine.py").write_text("x = 1\n")
  done, calls = launch(cloud, "install", "mct", "--zone", "z")
  assert done.returncode == 2
  assert "mine.py" in done.stderr and "commit" in done.stderr
  assert not any("scp" in words for words in calls)


def test_what_the_hosts_would_not_get_is_refused_before_a_slice_is_asked_for(cloud):
  (cloud.parent / "tree" / "mine.py").write_text("x = 1\n")
  done, calls = babysit(cloud)
  assert done.returncode == 2 and "mine.py" in done.stderr and "commit" in done.stderr and not calls
  for words in (["--config", "mine.py:smoke"], ["--config=mine.py"], ["--config", "../mine.py"]):
    done, calls = launch(cloud, "train", "mct", "--zone", "z", "--", *words, "--workdir", "w")
    assert done.returncode == 2 and "not as in the last commit" in done.stderr and not calls


@pytest.mark.parametrize(
  "words, message",
  [
    (["create", "mct", "--zone", "z"], "--type is missing"),
    (["create", "mct", "--zone", "z", "--type", "v5e-16"], "v5litepod-16"),
    (["create", "mct", "--type", "v6e-8"], "--zone is missing"),
    (["create", "Mct", "--zone", "z"], "lower-case"),
    (["train", "mct", "--zone", "z"], "nothing to train"),
    (["train", "mct", "--zone", "z", "--", "--config", "c"], "--workdir is missing"),
    (["create", "mct", "--zone", "z", "--type", "v6e-8", "--slices", "two"], "give a number"),
    (["create", "mct", "--zone", "z", "--config", "c"], "after --"),
    (["destroy", "mct"], "usage"),
  ],
)
def test_mistakes_are_said_before_anything_is_asked_for(cloud, words, message):
  done, calls = launch(cloud, *words)
  assert done.returncode == 2
  assert message in done.stderr
  assert not calls
