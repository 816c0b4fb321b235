"""Where the metrics of a run are written: metrics.jsonl and TensorBoard events, on a disk or in an object store.

An object store cannot append to a file. There the files are written on this machine, and sent: every EVERY seconds in
the background, and before each checkpoint, so that a run which is killed and resumed has a line for every report.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import threading

import jax

from mmcontrast import folders
from mmcontrast.object_stores import StorePath
from mmcontrast.training.observe import JsonlWriter, Metrics, MetricWriter, MultiWriter, TensorBoardWriter

EVERY = 30.0  # seconds between two times that changed files are sent
FILE, EVENTS = "metrics.jsonl", "tensorboard"


def make_writer(workdir: str | os.PathLike[str], resume_step: int = 0, tensorboard: bool = True) -> MultiWriter:
  """`workdir`/metrics.jsonl and `workdir`/tensorboard/ on process 0; nowhere on others."""
  if jax.process_index():
    return MultiWriter([])
  workdir = folders.at(workdir, "--workdir")
  if folders.is_store(workdir):
    return _Sent(workdir, resume_step, tensorboard)
  return MultiWriter(_writers(workdir, resume_step, tensorboard))


def _writers(
  folder: pathlib.Path, resume_step: int, tensorboard: bool, earlier: bool | None = None
) -> list[MetricWriter]:
  events = [TensorBoardWriter(folder / EVENTS, resume_step, earlier)] if tensorboard else []
  return [JsonlWriter(folder / FILE, resume_step), *events]


class _Sent(MultiWriter):
  """Writes into a temporary folder, whose files are sent to `workdir` when they have changed."""

  def __init__(self, workdir: StorePath, resume_step: int, tensorboard: bool):
    self._workdir, self._sizes = workdir, {}
    with contextlib.ExitStack() as opened:
      self._folder = pathlib.Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="mmcontrast-")))
      if (workdir / FILE).is_file():
        (workdir / FILE).download(self._folder / FILE)
      earlier = any((workdir / EVENTS).glob("events*"))
      super().__init__(_writers(self._folder, resume_step, tensorboard, earlier))
      self._opened = opened.pop_all()
    self._sending, self._failed = threading.Lock(), None
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._send_now_and_then, name="metrics", daemon=True)
    self._thread.start()

  def write(self, step: int, metrics: Metrics) -> None:
    """Records `metrics` of `step`. Raises OSError when earlier ones could not be sent."""
    if self._failed is not None:
      raise self._failed
    super().write(step, metrics)

  def keep(self) -> None:
    """Sends what has changed. Raises OSError when the store does not take it."""
    with self._sending:
      for file in sorted(path for path in self._folder.rglob("*") if path.is_file()):
        name, size = file.relative_to(self._folder).as_posix(), (file.stat().st_size, file.stat().st_mtime_ns)
        if self._sizes.get(name) != size:
          (self._workdir / name).write_bytes(file.read_bytes())
          self._sizes[name] = size

  def close(self) -> None:
    """Sends the rest and removes the temporary folder."""
    self._ended.set()
    self._thread.join()
    with self._opened:
      super().close()
      self.keep()

  def _send_now_and_then(self) -> None:
    while not self._ended.wait(EVERY):
      try:
        self.keep()
      except OSError as error:
        self._failed = error
        return
