"""The nearest of very many rows, exactly, shard by shard or block by block."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent import futures
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

_BLOCK = 32  # numbers, of which only the largest is looked at first
_QUERIES, _ROWS = 512, 1 << 14  # of a product: of fewer rows merging takes longer, of more memory does
_THREADS = 16
_LARGE = 1 << 31  # products, from which on threads gain


class Neighbours(NamedTuple):
  """The nearest first: index of the row int [..., k], cosine float32 [..., k]."""

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


def of_each(queries: np.ndarray, bank: np.ndarray, k: int) -> Neighbours:
  """The `k` rows of `bank` nearest to each query, the first of equals first; on all cores where there is much to do.

  Scores are made a block at a time, and of a block only those are looked at that are larger than the k-th so far:
  few, once some blocks were seen. So the scores are never together in memory.

  Args:
    queries: unit rows float32 [Q, D]; bank: unit rows float32 [N, D]. k: 1 to N.

  Returns:
    [Q, k] each.
  """
  threads = min(_THREADS, os.cpu_count() or 1) if len(queries) * bank.size >= _LARGE else 1
  shares = threads * -(-len(queries) // (threads * _QUERIES))  # equal ones, so that no core waits for another
  step = -(-len(queries) // max(shares, 1)) or 1
  chunks = [queries[start : start + step] for start in range(0, len(queries), step)]
  if threads == 1:
    parts = [_of_few(chunk, bank, k) for chunk in chunks]
  else:  # a product alone would leave cores without work while the largest are looked for
    with threadpool_limits(1, "blas"), futures.ThreadPoolExecutor(threads) as pool:
      parts = list(pool.map(lambda chunk: _of_few(chunk, bank, k), chunks))
  if not parts:
    return Neighbours(np.zeros((0, k), np.int64), np.zeros((0, k), np.float32))
  return Neighbours(*(np.concatenate(part) for part in zip(*parts)))


def _of_few(queries: np.ndarray, bank: np.ndarray, k: int) -> Neighbours:
  width = max(_ROWS, k)
  memory = np.empty((len(queries), min(width, len(bank))), np.float32)  # new memory each time would take a tenth
  scores = np.matmul(queries, bank[:width].T, out=memory)
  index = largest(scores, k)
  cosine = np.take_along_axis(scores, index, axis=1)
  for start in range(width, len(bank), width):
    rows = bank[start : start + width]
    scores = memory[:, : len(rows)] if len(rows) == width else np.empty((len(queries), len(rows)), np.float32)
    np.matmul(queries, rows.T, out=scores)
    query, place = np.divmod(np.flatnonzero(scores > cosine[:, -1:]), len(rows))
    if len(query) > 16 * k * len(queries):  # rows that come nearer and nearer
      place = largest(scores, k) if len(rows) > k else np.broadcast_to(np.arange(len(rows)), scores.shape)
      query, place = np.repeat(np.arange(len(queries)), place.shape[1]), place.ravel()
    index, cosine = _merged(index, cosine, query, start + place, scores[query, place])
  return Neighbours(index, cosine)


def _merged(
  index: np.ndarray, cosine: np.ndarray, query: np.ndarray, more: np.ndarray, its: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """The nearest [Q, k] of those so far and of `more` rows int [M], with cosines `its` [M], of queries int [M]."""
  count, k = index.shape
  of = np.concatenate([np.repeat(np.arange(count), k), query])
  index, cosine = np.concatenate([index.ravel(), more]), np.concatenate([cosine.ravel(), its])
  order = np.lexsort((index, -cosine, of))
  best = order[np.searchsorted(of[order], np.arange(count))[:, None] + np.arange(k)]
  return index[best], cosine[best]


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
