"""What a run says of itself: metric files, the progress line, timings, parameter table.

Metrics are flat: {"loss": 3.2, "image_text/top1": 0.4}. Only process 0 writes; on other processes `make_writer`
(metric_files.py) returns a writer of nothing and `Progress` is silent.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TextIO

import jax
import numpy as np

from mmcontrast import folders

Metrics = Mapping[str, Any]
"""Flat names to scalars: Python, numpy or jax."""


class MetricWriter(Protocol):
  """Where metrics go."""

  def write(self, step: int, metrics: Metrics) -> None:
    """Records `metrics` of `step`; steps never go back."""

  def close(self) -> None:
    """Flushes and closes."""


class JsonlWriter:
  """One JSON object a line: {"step": 10, "loss": 3.2}; a value that is not finite is null.

  Two writes at one step become one line, so no step occurs twice. Opening an existing
  file to resume at `resume_step` drops the lines of later steps, which the resumed run
  will write again, and a line torn by a crash.
  """

  def __init__(self, path: str | os.PathLike[str], resume_step: int = 0):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _records(path, resume_step) if path.exists() else []
    draft = path.with_name(path.name + ".draft")
    draft.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(draft, path)
    self._record = kept[-1] if kept else {"step": -1}
    self._file = path.open("r+b")
    last = len(json.dumps(self._record)) + 1 if kept else 0
    self._start = self._file.seek(0, os.SEEK_END) - last  # Where the last line begins.

  def write(self, step: int, metrics: Metrics) -> None:
    if step < self._record["step"]:
      raise ValueError(f"metrics of step {step} after those of step {self._record['step']}")
    if step > self._record["step"]:
      self._record = {"step": step}
      self._start = self._file.seek(0, os.SEEK_END)
    for name, value in as_floats(metrics).items():
      self._record[name] = value if math.isfinite(value) else None
    self._file.seek(self._start)
    self._file.write((json.dumps(self._record) + "\n").encode())
    self._file.truncate()
    self._file.flush()

  def close(self) -> None:
    self._file.close()


def read_jsonl(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
  """The records of a metrics.jsonl, less a torn last line."""
  return _records(folders.at(path, "metrics"), None)


class TensorBoardWriter:
  """TensorBoard event files, without TensorFlow."""

  def __init__(self, directory: str | os.PathLike[str], resume_step: int = 0, earlier: bool | None = None):
    """`earlier`: whether there are event files of this run; None: as the folder says."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    self._event = event_pb2.Event
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    earlier = any(folder.glob("events*")) if earlier is None else earlier
    # Written by this thread: TensorBoard's own writer has one that dies of a full disk, by a traceback.
    name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
    self._file = (folder / name).open("wb")
    self._writer = RecordWriter(self._file)
    self._add(0, file_version="brain.Event:2")
    if resume_step or earlier:
      # TensorBoard then hides what earlier files say of later steps.
      start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
      self._add(resume_step + 1, session_log=start)

  def write(self, step: int, metrics: Metrics) -> None:
    from tensorboard.compat.proto import summary_pb2

    values = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in as_floats(metrics).items()]
    self._add(step, summary=summary_pb2.Summary(value=values))

  def close(self) -> None:
    self._file.close()

  def _add(self, step: int, **what: Any) -> None:
    self._writer.write(self._event(wall_time=time.time(), step=step, **what).SerializeToString())
    self._file.flush()


class MultiWriter:
  """Writes to each of `writers`; with none, nowhere. A context manager that closes them."""

  def __init__(self, writers: Sequence[MetricWriter]):
    self._writers = list(writers)

  def write(self, step: int, metrics: Metrics) -> None:
    values = as_floats(metrics) if self._writers else {}
    for writer in self._writers:
      writer.write(step, values)

  def keep(self) -> None:
    """Sees to it that what was written outlives this process; on a disk it does."""

  def close(self) -> None:
    for writer in self._writers:
      writer.close()

  def __enter__(self) -> MultiWriter:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def as_floats(metrics: Metrics) -> dict[str, float]:
  """Scalars to Python floats, in one transfer from the device."""
  values = jax.device_get(list(metrics.values()))
  return {name: float(np.asarray(value)) for name, value in zip(metrics, values)}


def check_finite(metrics: Metrics) -> list[str]:
  """The names of the metrics that are NaN or infinite."""
  return [name for name, value in as_floats(metrics).items() if not math.isfinite(value)]


def idle_terms(means: Metrics) -> list[str]:
  """The terms in which no example took part, by the means of a window: a loss of 0 that says nothing."""
  return [name.removesuffix("/anchors") for name, value in means.items() if name.endswith("/anchors") and not value]


class Stopwatch:
  """Where the time goes: whole laps, and the share spent waiting for data.

  watch = Stopwatch()
  with watch.waiting():
    batch = next(batches)
  ...
  metrics |= watch.lap(steps=50, examples=50 * batch_size)
  """

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self._clock = clock
    self.restart()

  def restart(self) -> None:
    """Begins a lap; call it after compiling, so that no lap counts it."""
    self._began, self._waited = self._clock(), 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    """Counts what is inside as waiting for data."""
    began = self._clock()
    try:
      yield
    finally:
      self._waited += self._clock() - began

  def lap(self, steps: int, examples: int) -> dict[str, float]:
    """Ends a lap of `steps` and `examples` (global) and begins the next.

    Returns "seconds_per_step", "examples_per_second", the same per device, and
    "data_wait", the share of the time in [0, 1].
    """
    seconds = max(self._clock() - self._began, 1e-9)
    rates = {
      "seconds_per_step": seconds / max(steps, 1),
      "examples_per_second": examples / seconds,
      "examples_per_second_per_device": examples / seconds / jax.device_count(),
      "data_wait": min(self._waited / seconds, 1.0),
    }
    self.restart()
    return rates


class Progress:
  """Step, loss, examples/s, data wait and time left: a bar, or lines when not a terminal.

  Args:
    total_steps: where the run ends.
    start_step: where it starts (the resumed step).
    every_seconds: lines are at least so far apart, the first and the last aside.
    file: where to show it (default: stdout as it is now).
    clock: seconds, for tests.
  """

  def __init__(
    self,
    total_steps: int,
    start_step: int = 0,
    every_seconds: float = 10.0,
    file: TextIO | None = None,
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._total, self._start, self._every, self._clock = (total_steps, start_step, every_seconds, clock)
    self._file = file or sys.stdout
    self._shows = jax.process_index() == 0
    self._printed_at: float | None = None
    self._bar: Any = None

  def __enter__(self) -> Progress:
    if self._shows and self._file.isatty():
      self._bar = _bar(self._file)
      self._task = self._bar.add_task("train", total=self._total, completed=self._start, text="")
      self._bar.start()
    return self

  def __exit__(self, *_: object) -> None:
    if self._bar is not None:
      self._bar.stop()
      self._bar = None

  def update(self, step: int, metrics: Metrics) -> None:
    """Shows step `step`; `metrics` holds "loss" and what Stopwatch.lap returned, or less."""
    if not self._shows:
      return
    if self._bar is not None:
      self._bar.update(self._task, completed=step, text=self._describe(step, metrics))
      return
    now = self._clock()
    due = self._printed_at is None or now - self._printed_at >= self._every
    if due or step >= self._total:
      share = step / max(self._total, 1)
      self._line(f"step {step}/{self._total} ({share:.0%})  {self._describe(step, metrics)}")
      self._printed_at = now

  def print(self, text: str) -> None:
    """Prints a line of its own, above the bar where there is one."""
    if not self._shows:
      return
    if self._bar is not None:
      self._bar.console.print(text, markup=False, highlight=False)
    else:
      self._line(text)

  def _line(self, text: str) -> None:
    print(text, file=self._file, flush=True)

  def _describe(self, step: int, metrics: Metrics) -> str:
    values, parts = as_floats(metrics), []
    if "loss" in values:
      parts.append(f"loss {values['loss']:.4f}")
    if "examples_per_second" in values:
      rate = f"{values['examples_per_second']:,.0f} examples/s"
      if jax.device_count() > 1:
        rate += f" ({values['examples_per_second_per_device']:,.0f} a device)"
      parts.append(rate)
    if "data_wait" in values:
      parts.append(f"data wait {values['data_wait']:.0%}")
    if "seconds_per_step" in values:
      parts.append(f"{duration((self._total - step) * values['seconds_per_step'])} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
  """Seconds as "0:07", "12:40" or "3:05:00"."""
  minutes, seconds = divmod(round(max(seconds, 0)), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def evaluation_line(step: int, results: Mapping[str, float], most: int = 6) -> str:
  """ "evaluation after step 20: val/image_to_text/recall@1 0.31, ...": the scores, best known ones first.

  What only counts is left out where there are scores, and beyond `most` the rest is in metrics.jsonl.
  """
  counts = ("queries", "candidates", "tags", "tags_left_out", "_l2", "/l2", "median_rank")
  scores = [name for name in results if not name.endswith(counts)] or list(results)
  first = [name for name in scores if name.endswith(("recall@1", "_accuracy", "_top1", "map_macro"))] or scores
  shown = [f"{name} {results[name]:.4g}" for name in first[:most]]
  more = [f"{len(results) - len(shown)} more in metrics.jsonl"] if len(results) > len(shown) else []
  return f"evaluation after step {step}: {', '.join([*shown, *more]) or 'no results'}"


def parameter_summary(params: Any) -> str:
  """How many parameters each tower, head and other part has: a line each, and the total with its bytes."""
  sizes: dict[str, list[int]] = {}
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    names = [jax.tree_util.keystr((key,), simple=True) for key in path]
    found = sizes.setdefault("/".join(names[: min(2, len(names) - 1)]) or names[0], [0, 0])
    found[0] += math.prod(leaf.shape)
    found[1] += math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
  total = [sum(column) for column in zip(*sizes.values())] or [0, 0]
  width = max(map(len, [*sizes, "total"]))
  rows = [f"  {name:<{width}}  {_amount(*size)}" for name, size in sizes.items()]
  return "\n".join([*rows, f"  {'total':<{width}}  {_amount(*total)}; each of them in parameters.txt"])


def _amount(count: int, size: int) -> str:
  unit, name = next(
    ((unit, name) for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")) if size >= unit), (1, "bytes")
  )
  return f"{count:,} parameter{'s' * (count != 1)} ({size / unit:,.{0 if unit == 1 else 1}f} {name})"


def parameter_overview(params: Any, stats: bool = False) -> str:
  """A table of names, shapes and sizes, with the total; `stats` adds means and deviations."""
  from clu import parameter_overview as overview

  return overview.get_parameter_overview(params, include_stats=stats)


def _bar(file: TextIO) -> Any:
  from rich import console, progress

  return progress.Progress(
    progress.TextColumn("{task.description}"),
    progress.BarColumn(bar_width=24),
    progress.MofNCompleteColumn(),
    progress.TextColumn("{task.fields[text]}", markup=False),
    console=console.Console(file=file),
  )


def _records(path: folders.Folder, last_step: int | None) -> list[dict[str, Any]]:
  records = []
  for line in path.read_text(errors="replace").splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      continue
    if not isinstance(record, dict) or "step" not in record:
      continue
    if last_step is None or record["step"] <= last_step:
      records.append(record)
  return records
