"""The classes of a label, of which an epoch holds a limited number each (order.Balanced)."""

from __future__ import annotations

import concurrent.futures

import numpy as np

from mmcontrast.data.sources import BadRecord, Source
from mmcontrast.errors import UserError, choose

_THREADS = 8


def groups_of(source: Source, label: str) -> tuple[np.ndarray, ...]:
  """The indices of the examples of each class, then each example without one by itself; all records are read.

  A record that cannot be read is without a class: it is replaced, and counted, when its turn comes. Raises UserError
  where the source has no such label.
  """
  if not source.info.label_names:
    raise UserError(f"data.balance.label: {source.info.name} has no labels; leave it out, or name their column")
  choose(label, source.info.label_names, "data.balance.label")

  def read(index: int) -> int:
    try:
      return int(source[index]["labels"].get(label, -1))
    except (BadRecord, OSError):
      return -1

  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    found = np.fromiter(pool.map(read, range(len(source))), np.int64, len(source))
  classes = [np.flatnonzero(found == one) for one in np.unique(found[found >= 0])]
  return (*classes, *(np.array([index]) for index in np.flatnonzero(found < 0)))
