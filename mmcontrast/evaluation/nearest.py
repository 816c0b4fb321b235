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
  """int64 [Q, k]: the places of the `k` largest numbers of each row [Q, N], the largest first, of equals the first.

  The k-th largest of the maxima of blocks is at most the k-th largest number, so only the blocks that reach it are
  sorted. A block is every (N / 32)-th number of a row: so are maxima taken of whole runs of memory at once.
  """
  blocks = scores.shape[1] // _BLOCK
  if blocks < 4 * k:
    return _sorted(scores, k)
  whole = scores[:, : blocks * _BLOCK].reshape(len(scores), _BLOCK, blocks)
  most = whole.max(axis=1)
  reach = most >= np.partition(most, blocks - k, axis=1)[:, blocks - k, None]
  if np.count_nonzero(reach) != k * len(scores):  # some are equal
    return _sorted(scores, k)
  its = np.nonzero(reach)[1].reshape(-1, 1, k)
  places = its + blocks * np.arange(_BLOCK)[:, None]  # ascending in each row
  rest = np.broadcast_to(np.arange(blocks * _BLOCK, scores.shape[1]), (len(scores), scores.shape[1] % _BLOCK))
  places = np.concatenate([places.reshape(len(scores), -1), rest], axis=1)
  best = _sorted(np.take_along_axis(scores, places, axis=1), k)
  return np.take_along_axis(places, best, axis=1)


def _sorted(scores: np.ndarray, k: int) -> np.ndarray:
  """As `largest`, by comparing all."""
  least = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k, None]
  rows, places = np.nonzero(scores >= least)
  if len(rows) > 16 * k * len(scores):  # very many are equal
    return np.stack([np.argsort(-row, kind="stable")[:k] for row in scores])
  order = np.lexsort((places, -scores[rows, places], rows))
  starts = np.searchsorted(rows, np.arange(len(scores)))
  return places[order[starts[:, None] + np.arange(k)]]
