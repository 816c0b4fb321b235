"""Trains for a while under faults: does memory grow, and do the counts add up?

    python benchmarks/soak.py --minutes 30 --out docs/results/soak.json

The quickstart's method, made small, on emoji_views with bad records, reads that fail and are tried again, and slow
reads; checkpoints all the time, evaluations off, decoded images not kept, so that every example is read from disk.
Memory is the resident set of the process, once a second from the first step on; growth is its mean over the last
tenth of the time beside that over the tenth after a fifth of it, when caches and pools have filled.
"""

from __future__ import annotations

import argparse
import contextlib
import pathlib
import tempfile
import threading
import time
from typing import Any

import faulty_source
import numpy as np
from absl import logging
from record import record

FAULTS = dict(bad=0.005, failing=0.01, slow=0.002, seconds=0.05)


def resident_bytes() -> int:
  """Of this process, by /proc."""
  line = next(x for x in pathlib.Path("/proc/self/status").read_text().splitlines() if x.startswith("VmRSS"))
  return 1024 * int(line.split()[1])


class Memory(threading.Thread):
  """(seconds since the start, resident bytes), once a second."""

  def __init__(self) -> None:
    super().__init__(daemon=True)
    self.samples: list[tuple[float, int]] = []
    self._ended = threading.Event()

  def run(self) -> None:
    began = time.monotonic()
    while not self._ended.wait(1):
      self.samples.append((time.monotonic() - began, resident_bytes()))

  def seconds(self) -> float:
    """Until now."""
    return self.samples[-1][0] if self.samples else 0.0

  def stop(self) -> None:
    self._ended.set()
    self.join()

  def mean(self, start: float, end: float) -> float:
    """Mean bytes between two shares of the time."""
    length = self.samples[-1][0]
    return float(np.mean([size for at, size in self.samples if start * length <= at <= end * length]))


def soak(minutes: float, data_dir: str | None) -> dict[str, Any]:
  """Trains, and returns what was found."""
  from mmcontrast.config import load_config
  from mmcontrast.data.pipeline import Batches
  from mmcontrast.errors import Preempted
  from mmcontrast.train import train
  from mmcontrast.training.observe import read_jsonl
  from mmcontrast.training.preemption import Notice

  opened = faulty_source.register()
  config = load_config("quickstart:smoke")
  config |= dict(
    steps=10**7, log={**config["log"], "every_steps": 50}, checkpoint={**config["checkpoint"], "every_steps": 100},
    data={**config["data"], "dataset": "faulty", "source": FAULTS, "cache": "none",
          "on_error": dict(max_share=0.02, retries=3, backoff_seconds=0.01, timeout_seconds=30.0)},
  )  # fmt: skip
  seen: list[Batches] = []
  read, given = Batches.__next__, dict(batches=0, examples=0)

  def counted(batches: Batches) -> dict:
    batch = read(batches)
    seen[:] = [batches]
    given["batches"] += 1
    given["examples"] += len(batch["index"])
    return batch

  def reached(notice: Notice, step: int) -> bool:
    """Ends as a preempted run does."""
    if step == 1:
      memory.start()
    return memory.seconds() > 60 * minutes

  memory, Batches.__next__, Notice.reached = Memory(), counted, reached
  with tempfile.TemporaryDirectory() as folder:
    with contextlib.suppress(Preempted):
      train(config, folder, data_dir)
    last = read_jsonl(pathlib.Path(folder) / "metrics.jsonl")[-1]
  memory.stop()
  early, late = memory.mean(0.2, 0.3), memory.mean(0.9, 1.0)
  (batches,), source = seen, opened[-1]
  return {
    "minutes": minutes, "steps": int(last["step"]), "examples": given["examples"],
    "bad_records": len(source.bad), "failing_reads": source.failures,
    "memory_after_warm_up_mib": round(early / 2**20, 1), "memory_at_the_end_mib": round(late / 2**20, 1),
    "memory_growth_percent": round(100 * (late / early - 1), 2),
    "steps_add_up": last["step"] == given["batches"] == batches.step,
    "examples_add_up": given["examples"] == batches.examples == given["batches"] * config["batch"]["size"],
    "bad_records_add_up": set(batches.bad_records) == source.bad,
    "failing_reads_add_up": batches.counts["data/retries"] == source.failures,
    "none_given_up": not any("injected" in reason for reason in batches.bad_records.values()),
  }  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--minutes", type=float, default=30)
  parser.add_argument("--data_dir")
  parser.add_argument("--out")
  options = parser.parse_args()
  logging.set_verbosity(logging.ERROR)  # Orbax talks a lot through absl
  rows = soak(options.minutes, options.data_dir)
  record([{"what": name, "value": value} for name, value in rows.items()], options.out)


if __name__ == "__main__":
  main()
