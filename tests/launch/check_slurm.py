"""launch/slurm.sbatch on a real SLURM of one node: two tasks, stopped by its signal, put back, resumed.

    make launchers

Debian's packages of SLURM are fetched by apt-get (after apt-get update) and unpacked into a temporary folder.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

from mmcontrast.data.build import build_dataset

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
DATA = ROOT / ".cache" / "launchers-data"


def main() -> None:
  """Raises AssertionError or TimeoutError where the promise is not kept."""
  build_dataset("emoji_views", DATA)
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run([HERE / "slurm_one_node.sh", folder, "start"], check=True)
    try:
      check(pathlib.Path(folder))
    finally:
      subprocess.run([HERE / "slurm_one_node.sh", folder, "stop"], check=True)


def check(folder: pathlib.Path) -> None:
  """Starts a job, signals it as --signal=B:TERM does, waits for the requeued one to resume."""
  log = folder / "log"

  def slurm(command: str) -> str:
    return subprocess.run(
      ["bash", "-c", f". {folder}/env && {command}"],
      check=True,
      capture_output=True,
      text=True,
      cwd=ROOT,
      env=os.environ | {"PYTHON": sys.executable},
    ).stdout.strip()

  def until(text: str, seconds: int) -> None:
    end = time.time() + seconds
    while text not in (log.read_text() if log.exists() else ""):
      if time.time() > end:
        raise TimeoutError(f"{text!r} is not in the log after {seconds} seconds:\n{log.read_text()}")
      time.sleep(1)
    print(f"seen: {text}", flush=True)

  job = slurm(
    f"sbatch --parsable --output={log} --ntasks-per-node=2 --gpus-per-node=0 --cpus-per-task=1 "
    f"launch/slurm.sbatch --config quickstart:smoke --config.steps=100000 "
    f"--workdir {folder}/run --data_dir {DATA}"
  )
  until("first step done", 300)
  slurm(f"scancel --batch --signal=TERM {job}")
  until("stopped by SIGTERM after step", 120)
  until("resuming", 400)  # a requeued job begins two minutes later
  shown = slurm(f"scontrol show job {job}")
  assert "Restarts=1" in shown and "JobState=RUNNING" in shown, shown
  slurm(f"scancel {job}")
  print("slurm: two tasks, stopped, requeued, resumed")


if __name__ == "__main__":
  main()
