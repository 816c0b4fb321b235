"""The nearest of very many rows, exactly, shard by shard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

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
