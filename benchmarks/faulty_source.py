"""emoji_views with faults put in: bad records, reads that fail, reads that are slow.

faulty_source.register()
config["data"] |= dict(dataset="faulty", source=dict(bad=0.004, failing=0.01), ...)
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping

from mmcontrast.data import sources
from mmcontrast.data.sources import Record, Source, emoji


class FaultySource:
  """`source` whose records are bad (always the same ones), or whose reads fail or are slow (at a steady rate).

  Args:
    bad: share of the records whose images are cut off.
    failing: share of the reads that raise OSError.
    slow: share of the reads that take `seconds` more.
  """

  def __init__(self, source: Source, bad: float = 0.0, failing: float = 0.0, slow: float = 0.0, seconds: float = 0.05):
    self.info, self._source, self._seconds = source.info, source, seconds
    self._bad = _every(bad)
    self._failing, self._slow = _every(failing), _every(slow)
    self._reads, self._failures = itertools.count(1), itertools.count()
    self.bad: set[int] = set()  # indices of the bad records that were read
    self.failures = 0

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    read = next(self._reads)
    if self._slow and read % self._slow == 0:
      time.sleep(self._seconds)
    if self._failing and read % self._failing == 0:
      self.failures = next(self._failures) + 1
      raise OSError("injected: the storage does not answer")
    record = self._source[index]
    if self._bad and index % self._bad == 0:
      self.bad.add(index)
      record["images"] = {style: data[: len(data) // 2] for style, data in record["images"].items()}
    return record


def register() -> list[FaultySource]:
  """Makes "faulty" a dataset of configs; returns the list to which each source that is opened is added."""
  opened: list[FaultySource] = []

  def open_faulty(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> FaultySource:
    del path
    opened.append(FaultySource(emoji.open_built("emoji_views", split, data_dir), **options))
    return opened[-1]

  sources.SOURCES["faulty"] = open_faulty
  return opened


def _every(share: float) -> int:
  return round(1 / share) if share else 0
