"""What launchers promise without a cluster: shellcheck, GPUs of a SLURM task, the exit code of a stopped run."""

import pathlib
import subprocess
import sys

import pytest

from mmcontrast.config import base_config
from mmcontrast.errors import UserError
from mmcontrast.parallel.distributed import launch_of
from mmcontrast.training.preemption import EXIT_CODE, exit_code

LAUNCH = pathlib.Path(__file__).parent.parent.parent / "launch"


def test_shellcheck_has_nothing_to_say():
  shellcheck = pathlib.Path(sys.executable).parent / "shellcheck"
  scripts = [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch"), *(LAUNCH.parent / "tests/launch").rglob("*.sh")]
  done = subprocess.run([shellcheck, *scripts], capture_output=True, text=True)
  assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
  "visible, tasks, node, task, devices",
  [
    ("0,1,2,3,4,5,6,7", "8(x2)", "1", "3", (3,)),  # a task a GPU, which sees all of the node
    ("0", "8(x2)", "0", "5", (0,)),  # --gpus-per-task=1: it sees only its GPU
    ("2,3", "2", "0", "1", (1,)),  # a part of a node
    ("0,1,2,3,4,5,6,7", "1(x4)", "2", "0", tuple(range(8))),  # one task a node
    ("0,1,2,3", "2(x3),4", "1", "1", (2, 3)),  # two GPUs a task
    ("0,1,2,3", "2(x3),4", "3", "1", (1,)),  # the last node is another
    ("GPU-1a,GPU-2b", "2", "0", "0", (0,)),  # by name
    ("", "2", "0", "1", None),  # no GPUs
  ],
)
def test_the_gpus_of_a_slurm_task(visible, tasks, node, task, devices):
  environment = {
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_NTASKS": "16",
    "SLURM_LOCALID": task,
    "SLURM_NODEID": node,
    "SLURM_STEP_TASKS_PER_NODE": tasks,
    "CUDA_VISIBLE_DEVICES": visible,
  }
  assert launch_of(base_config().to_dict()["distributed"], environment).local_devices == devices


def test_gpus_that_do_not_divide_among_the_tasks_are_refused():
  environment = {
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_NTASKS": "3",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_STEP_TASKS_PER_NODE": "3",
    "CUDA_VISIBLE_DEVICES": "0,1,2,3",
  }
  with pytest.raises(UserError, match="3 tasks on this node, which see 4 GPUs"):
    launch_of(base_config().to_dict()["distributed"], environment)


def test_a_tpu_pod_has_no_gpus():
  assert (
    launch_of(
      base_config().to_dict()["distributed"], {"TPU_WORKER_HOSTNAMES": "a,b", "CUDA_VISIBLE_DEVICES": "0"}
    ).local_devices
    is None
  )


def test_the_launcher_chooses_the_exit_code_of_a_stopped_run():
  assert exit_code({}) == 0
  assert exit_code({EXIT_CODE: "143"}) == 143
  for wrong in ("", "x", "-1", "256"):
    with pytest.raises(UserError, match="from 0 to 255"):
      exit_code({EXIT_CODE: wrong})
