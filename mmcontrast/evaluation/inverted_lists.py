"""Inverted lists of unit rows, in any number of files that share one quantiser: each is looked into, none is loaded.

Rows are put into the list of the centre that is nearest (IVF, Johnson et al., arXiv:1702.08734), by faiss, with a byte
a number. A query looks into the lists of its nearest centres, in all files. What it finds are candidates: their scores
are those of the bytes.
"""

from __future__ import annotations

import importlib.util
import math
import pathlib
from collections.abc import Iterable, Sequence
from concurrent import futures
from typing import Any

import numpy as np

SEARCHED = 1 / 16  # share of the lists that a query looks into,
MOST_PROBES = 256  # but no more lists than these
_FEWEST_PROBES = 8
SAMPLE = 64  # rows a list, to place the centres by
_FEWEST = 39  # rows a list, below which faiss says that there are few
_THREADS = 8  # that wait for the disk


def has_faiss() -> bool:
  """Whether the package faiss is installed."""
  return importlib.util.find_spec("faiss") is not None


def lists_of(count: int) -> int:
  """Of how many lists an index of `count` rows is."""
  return max(1, min(round(4 * math.sqrt(count)), count // _FEWEST))


def train(path: pathlib.Path, sample: np.ndarray, lists: int) -> None:
  """Writes the quantiser: `lists` centres by k-means, and how far each number goes.

  Args:
    sample: unit rows float32 [n, D], n at least `lists`.
  """
  import faiss

  width = sample.shape[1]
  index = faiss.IndexIVFScalarQuantizer(
    faiss.IndexFlatIP(width), width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT, False
  )
  index.cp.min_points_per_centroid = 1  # of few rows there is one list, and nothing to be said
  index.train(np.ascontiguousarray(sample, np.float32))
  faiss.write_index(index, str(path))


def write(path: pathlib.Path, quantiser: pathlib.Path, parts: Iterable[tuple[np.ndarray, np.ndarray]]) -> int:
  """Writes the lists of some rows, without the centres; returns how many rows they are.

  Args:
    quantiser: the file that `train` wrote.
    parts: (ids int64 [n], unit rows float32 [n, D]); one part at a time is in memory, and a byte a number of all.
  """
  import faiss

  index = faiss.read_index(str(quantiser))
  for ids, rows in parts:
    index.add_with_ids(np.ascontiguousarray(rows, np.float32), np.ascontiguousarray(ids, np.int64))
  centres, index.own_fields = index.quantizer, True
  index.quantizer = faiss.IndexFlatIP(index.d)
  try:
    faiss.write_index(index, str(path))
  finally:
    index.quantizer = centres
  return index.ntotal


class Lists:
  """Files of `write` and their quantiser, opened: the centres are in memory, the lists are mapped; a context."""

  def __init__(self, quantiser: pathlib.Path, files: Sequence[pathlib.Path]):
    import faiss

    self._trained = faiss.read_index(str(quantiser))
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
    self._files = [faiss.read_index(str(file), flags) for file in files]
    self._pool = futures.ThreadPoolExecutor(min(_THREADS, max(1, len(files))))
    self.width, self.lists = self._trained.d, self._trained.nlist

  def __enter__(self) -> Lists:
    return self

  def __exit__(self, *error: object) -> None:
    self.close()

  def close(self) -> None:
    """Ends the threads."""
    self._pool.shutdown()

  def usual_probes(self) -> int:
    """Into how many lists a query looks."""
    return min(self.lists, max(_FEWEST_PROBES, min(MOST_PROBES, round(SEARCHED * self.lists))))

  def candidates(self, row: np.ndarray, count: int, probes: int = 0) -> np.ndarray:
    """int64 [n], n at most `count`: ids of rows that are near to a unit row [D], the nearest by their bytes first.

    `probes`: lists to look into; 0: the usual number.
    """
    query = np.ascontiguousarray(row[None], np.float32)
    probes = min(self.lists, probes) or self.usual_probes()
    scores, near = self._trained.quantizer.search(query, probes)

    def one(file: Any) -> tuple[np.ndarray, np.ndarray]:
      file.nprobe = probes
      found = file.search_preassigned(query, count, near, scores)
      return found[0][0], found[1][0]

    found = list(self._pool.map(one, self._files))
    cosine, ids = np.concatenate([of for of, _ in found]), np.concatenate([of for _, of in found])
    order = np.lexsort((ids, -cosine))
    order = order[ids[order] >= 0]  # -1: the lists looked into hold fewer
    return ids[order[:count]]
