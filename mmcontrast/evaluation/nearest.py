"""The nearest of very many rows: exactly, shard by shard, or by an index of faiss."""

from __future__ import annotations

import importlib.util
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

SEARCHED = 1 / 16  # share of an index's lists that a query looks into
_SAMPLE = 64  # rows a list, to place the lists by


_BLOCK = 32  # numbers, of which only the largest is looked at first


class Neighbours(NamedTuple):
  """The nearest first: index of the row int [k], cosine float32 [k]."""

  index: np.ndarray
  cosine: np.ndarray


def exact(query: np.ndarray, shards: Iterable[np.ndarray], k: int) -> Neighbours:
  """The `k` rows nearest to `query`, the first of equals first.

  Args:
    query: unit row [D]. shards: unit rows [n, D] each, of which one at a time is in memory.
  """
  index, cosine, start = np.zeros(0, np.int64), np.zeros(0, np.float32), 0
  for rows in shards:
    index = np.concatenate([index, np.arange(start, start + len(rows))])
    cosine = np.concatenate([cosine, rows @ query])
    best = np.argsort(-cosine, kind="stable")[:k]
    index, cosine, start = index[best], cosine[best], start + len(rows)
  return Neighbours(index, cosine)


def largest(scores: np.ndarray, k: int) -> np.ndarray:
  """int64 [Q, k]: the places of the `k` largest numbers of each row [Q, N], in no order.

  The k-th largest of the maxima of blocks is at most the k-th largest number, so only what reaches it is sorted.
  """
  whole = scores.shape[1] // _BLOCK * _BLOCK
  if whole < 4 * _BLOCK * k:
    return np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
  most = scores[:, :whole].reshape(len(scores), -1, _BLOCK).max(axis=2)
  least = np.partition(most, most.shape[1] - k, axis=1)[:, -k, None]
  rows, places = np.nonzero(scores >= least)
  if len(rows) > 16 * k * len(scores):  # many are equal
    return np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]
  order = np.lexsort((places, -scores[rows, places], rows))
  starts = np.searchsorted(rows, np.arange(len(scores)))
  return places[order[starts[:, None] + np.arange(k)]]


def by_index(
  query: np.ndarray, path: pathlib.Path, shards: Callable[[], Iterator[np.ndarray]], count: int, k: int
) -> Neighbours:
  """As `exact`, but looks only where such rows are likely to be: in the lists of rows whose centres are nearest.

  Builds the index (Johnson et al., arXiv:1702.08734: IVF, with the rows as they are) at the first query, in the file
  `path`. Needs the package faiss; one of the nearest may be missed, a cosine is exact.
  """
  import faiss

  lists = round(4 * math.sqrt(count))
  if path.is_file():
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
  else:
    index = faiss.index_factory(len(query), f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    every = max(1, count // (_SAMPLE * lists))
    index.train(np.concatenate([rows[::every] for rows in shards()]))
    for rows in shards():
      index.add(np.ascontiguousarray(rows))
    scratch = path.with_name(f".{path.name}.partial")
    faiss.write_index(index, str(scratch))
    scratch.replace(path)
  index.nprobe = max(1, round(SEARCHED * lists))
  cosine, found = index.search(query[None], k)
  there = found[0] >= 0  # -1: the lists looked into hold fewer than k
  return Neighbours(found[0][there], cosine[0][there])


def has_faiss() -> bool:
  """Whether the package faiss is installed."""
  return importlib.util.find_spec("faiss") is not None
