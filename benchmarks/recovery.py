"""Kills a training at random moments and starts it again: what is lost, repeated or different, and how long it takes.

    python benchmarks/recovery.py --kills 50 --out docs/results/recovery.json

A small MCT run on emoji_views with bad records and reads that fail. One run is left alone. The other is
killed (SIGKILL) after a random number of steps, one time in five at a random moment while it starts, and
started again, until it has been killed `--kills` times and ends. Checkpoints are so frequent that many kills
come while one is written.

Compared are the examples of each step, as the run that counts saw them (steps after the last checkpoint are
done again by the next life, and must see the same), and the final parameters, bit by bit. Then, on the
quickstart's model, what a save costs the training loop: time in `snapshot` and `Checkpoints.save`, in the step that
reports, which waits for the device, and in each of the five steps after it, while the files are written, beside others.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import faulty_source
import jax
import numpy as np
from absl import logging
from record import record

EVERY = 5  # steps between checkpoints
REPORT = 5  # steps between reports of the run whose saves are timed; every second one comes with a save
READY = "first step done"


def recovery_config(steps: int) -> dict[str, Any]:
  """The run that is killed."""
  from mmcontrast.config import load_config

  config = load_config("quickstart:smoke")
  data = {
    **config["data"],
    "dataset": "faulty",
    "source": dict(bad=0.005, failing=0.01),
    "on_error": dict(max_share=0.02, retries=3, backoff_seconds=0.01, timeout_seconds=30.0),
  }
  return config | dict(steps=steps, data=data, checkpoint={**config["checkpoint"], "every_steps": EVERY})


def saving_config() -> dict[str, Any]:
  """The run whose saves are timed: far enough apart that none waits for the one before."""
  from mmcontrast.config import load_config

  config = load_config("quickstart")
  return config | dict(
    steps=60,
    batch={**config["batch"], "size": 32},
    log={**config["log"], "every_steps": REPORT},
    checkpoint={**config["checkpoint"], "every_steps": 2 * REPORT},
    optimizer=dict(name="adamw", learning_rate=1e-3),
  )


def child(kind: str, steps: int, workdir: str, log: str, data_dir: str | None) -> None:
  """One life of a run; writes a line of JSON for each batch, with its examples, and for each save."""
  from mmcontrast import train as program
  from mmcontrast.data.pipeline import Batches
  from mmcontrast.runs.checkpoint import Checkpoints

  faulty_source.register()
  read, snapshot, save = Batches.__next__, program.snapshot, Checkpoints.save
  asked = 0.0  # seconds

  def write(**what: Any) -> None:
    with open(log, "a") as file:
      file.write("\n" + json.dumps(what))  # a line that a kill has torn does not tear the next one

  def logged_read(batches: Batches) -> dict:
    began = time.perf_counter()
    batch = read(batches)
    write(step=batches.step, examples=batch["index"].tolist(), began=began)
    return batch

  def timed_snapshot(state: Any) -> Any:
    nonlocal asked
    began = time.perf_counter()
    kept = snapshot(state)
    asked = time.perf_counter() - began
    return kept

  def timed_save(checkpoints: Checkpoints, state: Any, *arguments: Any) -> None:
    began = time.perf_counter()
    save(checkpoints, state, *arguments)
    write(saved=int(state.step), seconds=asked + time.perf_counter() - began)

  Batches.__next__, program.snapshot, Checkpoints.save = logged_read, timed_snapshot, timed_save
  program.train(saving_config() if kind == "saving" else recovery_config(steps), workdir, data_dir)


class Life:
  """A process that trains, and what it has logged."""

  def __init__(self, folder: pathlib.Path, kind: str, steps: int, data_dir: str | None):
    self.log, self._output = folder / f"{kind}.jsonl", folder / f"{kind}.txt"
    self._before = len(self.entries())
    command = [sys.executable, __file__, "--child", kind, str(steps), str(folder / kind), str(self.log)]
    caching = dict(
      JAX_COMPILATION_CACHE_DIR=str(folder / "compiled"),
      JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
      JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    )
    self.began = time.monotonic()
    with self._output.open("w") as output:
      self.process = subprocess.Popen(
        command + (["--data_dir", data_dir] if data_dir else []),
        stdout=output,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **caching},
      )

  def entries(self) -> list[dict[str, Any]]:
    """All lines of the log, those of earlier lives too, less one that a kill has torn."""
    found = []
    for line in self.log.read_text().splitlines() if self.log.exists() else ():
      with contextlib.suppress(json.JSONDecodeError):
        found.append(json.loads(line))
    return found

  def steps(self) -> list[int]:
    """The steps of this life."""
    return [entry["step"] for entry in self.entries()[self._before :] if "step" in entry]

  def first_step(self) -> float | None:
    """Seconds from the start of the process to the end of its first step; None if it ended before."""
    while READY not in self._output.read_text():
      if self.process.poll() is not None:
        return None
      time.sleep(0.01)
    return time.monotonic() - self.began

  def finish(self) -> None:
    """Waits for the end of the run, which must be a good one."""
    if self.process.wait():
      sys.exit(f"the run failed:\n{self._output.read_text()[-2000:]}")

  def kill(self) -> None:
    """SIGKILL."""
    self.process.kill()
    self.process.wait()


def interrupted(
  folder: pathlib.Path, kills: int, steps: int, data_dir: str | None, draw: random.Random
) -> dict[str, Any]:
  """Trains with `kills` kills; returns how they went."""
  times, mid_write, done, starts_right, last = [], 0, 0, True, 0
  checkpoints = folder / "killed" / "checkpoints"
  while True:
    life = Life(folder, "killed", steps, data_dir)
    if done < kills and draw.random() < 0.2:
      time.sleep(draw.uniform(0, 4))
    else:
      seconds = life.first_step()
      times += [seconds] if seconds is not None and done else []  # the first life compiles
      if done == kills:
        life.finish()
      until = draw.randint(1, 2 * EVERY)
      while life.process.poll() is None and len(life.steps()) < until:
        time.sleep(0.005)
    mine = life.steps()
    starts_right &= not mine or (mine[0] <= last + 1 and (mine[0] - 1) % EVERY == 0)
    last = mine[-1] if mine else last
    if life.process.poll() is not None:
      life.finish()
      return {
        "kills": done,
        "kills_while_writing": mid_write,
        "restarts_in_place": starts_right,
        "restart_to_first_step_seconds": round(statistics.median(times), 2) if times else None,
        "slowest_restart_seconds": round(max(times), 2) if times else None,
      }
    mid_write += bool(list(checkpoints.glob("*-tmp")))
    life.kill()
    done += 1


def compare(folder: pathlib.Path) -> dict[str, Any]:
  """The examples and the parameters of the killed run beside those of the one left alone."""
  from mmcontrast.runs.checkpoint import load_run

  seen: dict[str, dict[int, list[int]]] = {}
  redone = differing = 0
  for kind in ("whole", "killed"):
    seen[kind] = {}
    for line in (folder / f"{kind}.jsonl").read_text().splitlines():
      with contextlib.suppress(json.JSONDecodeError):
        entry = json.loads(line)
        if "step" in entry:
          step, examples = entry["step"], entry["examples"]
          redone += step in seen[kind]
          differing += seen[kind].get(step, examples) != examples
          seen[kind][step] = examples
  counts = {
    kind: collections.Counter((step, i) for step, rows in steps.items() for i in rows) for kind, steps in seen.items()
  }
  models = [jax.tree.leaves(load_run(folder / kind)[1]) for kind in seen]
  return {
    "steps": len(seen["whole"]),
    "steps_done_again": redone,
    "done_again_with_others": differing,
    "lost_examples": (counts["whole"] - counts["killed"]).total(),
    "repeated_examples": (counts["killed"] - counts["whole"]).total(),
    "same_order": seen["whole"] == seen["killed"],
    "parameters_bit_equal": all(np.array_equal(a, b) for a, b in zip(*models, strict=True)),
  }


def saves(folder: pathlib.Path, data_dir: str | None) -> dict[str, Any]:
  """What a save costs the loop, in milliseconds."""
  life = Life(folder, "saving", 0, data_dir)
  life.finish()
  saved = {entry["saved"]: entry["seconds"] for entry in life.entries() if "saved" in entry}
  began = {entry["step"]: entry["began"] for entry in life.entries() if "step" in entry}
  # The loop waits for the device when it reports: a step that reports ends with all before it. Beside what is timed in
  # a save, the copy of the state is made there.
  reports = {step: began[step + 1] - began[step] for step in range(REPORT, max(began), REPORT)}
  # From the batch after a report to that after the next one.
  seconds = {
    step: (began[step + REPORT + 1] - began[step + 1] - saved.get(step + REPORT, 0.0)) / REPORT
    for step in range(REPORT, max(began) - REPORT, REPORT)
  }
  after = [seconds[step] for step in saved if step in seconds]
  others = [time for step, time in seconds.items() if step not in saved]
  return {f"{name}_milliseconds": round(1000 * value, 2) for name, value in {
    "save": statistics.median(saved.values()), "slowest_save": max(saved.values()),
    "reports_with_a_save": statistics.median(value for step, value in reports.items() if step in saved),
    "other_reports": statistics.median(value for step, value in reports.items() if step not in saved),
    "steps_after_a_save": statistics.median(after), "other_steps": statistics.median(others)}.items()}  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
  parser.add_argument("--data_dir")
  parser.add_argument("--out")
  parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
  options = parser.parse_args()
  logging.set_verbosity(logging.ERROR)  # Orbax talks a lot through absl
  if options.child:
    kind, steps, workdir, log = options.child
    child(kind, int(steps), workdir, log, options.data_dir)
    return
  steps = 3 * EVERY * (options.kills + 1)
  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    Life(folder, "whole", steps, options.data_dir).finish()
    rows = interrupted(folder, options.kills, steps, options.data_dir, random.Random(options.seed))
    rows |= compare(folder) | saves(folder, options.data_dir)
  record([{"what": name, "value": value} for name, value in rows.items()], options.out)


if __name__ == "__main__":
  main()
