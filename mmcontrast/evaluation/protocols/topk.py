"""Which candidates are among the k best where scores are equal, as torch.topk takes them on a CPU.

torch 2.13 (aten/native/TopKImpl.h) orders pairs of value and index by the value alone: std::partial_sort where
64 k <= n, else std::nth_element. Neither is stable, so that which of equal scores is in depends on how GCC's library
walks through them; it is the same on every machine that has it (ISO/IEC 14882 leaves it open). On a GPU it is another.
Only rows whose answer depends on a tie are walked through.
"""

from __future__ import annotations

import numpy as np

PARTIAL = 64  # times k: from so many candidates on torch sorts partially


def any_in_top(scores: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
  """bool [Q]: whether one of the right candidates of each query is among its k best.

  Args:
    scores: float [Q, G], finite.
    right: bool [Q, G]; a query without any is missed.
    k: all candidates where there are fewer.
  """
  if k >= scores.shape[1]:
    return right.any(axis=1)
  best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
  above = (scores > best).sum(axis=1)
  wrong_ties = ((scores == best) & ~right).sum(axis=1)
  hit = right.any(axis=1) & (above + wrong_ties < k)
  for row in np.flatnonzero(right.any(axis=1) & ~hit & (above < k)):
    hit[row] = right[row, top(scores[row], k)].any()
  return hit


def top(values: np.ndarray, k: int) -> list[int]:
  """The places of the k <= n largest of `values` [n], the largest first: those that torch.topk takes, in its order.

  k is at most 16: more are sorted in another way.
  """
  queue = [(float(value), place) for place, value in enumerate(values)]
  if k * PARTIAL <= len(queue):
    _select_by_heap(queue, 0, k, len(queue))
    for end in range(k - 1, 0, -1):
      value, queue[end] = queue[end], queue[0]
      _sift(queue, 0, 0, end, value)
  else:
    _nth_element(queue, k - 1)
    _insert(queue, 0, k - 1)
  return [place for _, place in queue[:k]]


Queue = list[tuple[float, int]]


def _before(one: tuple[float, int], other: tuple[float, int]) -> bool:
  return one[0] > other[0]


def _sift(queue: Queue, first: int, hole: int, length: int, value: tuple[float, int]) -> None:
  """Puts `value` into the heap of `length` from `first` on: down to a leaf from `hole`, then up again."""
  top_of, child = hole, hole
  while child < (length - 1) // 2:
    child = 2 * (child + 1)
    if _before(queue[first + child], queue[first + child - 1]):
      child -= 1
    queue[first + hole] = queue[first + child]
    hole = child
  if length % 2 == 0 and child == (length - 2) // 2:
    child = 2 * (child + 1)
    queue[first + hole] = queue[first + child - 1]
    hole = child - 1
  parent = (hole - 1) // 2
  while hole > top_of and _before(queue[first + parent], value):
    queue[first + hole] = queue[first + parent]
    hole, parent = parent, (parent - 1) // 2
  queue[first + hole] = value


def _select_by_heap(queue: Queue, first: int, middle: int, last: int) -> None:
  """The best of first to last come to first to middle, in no order."""
  length = middle - first
  for parent in range((length - 2) // 2, -1, -1) if length > 1 else ():
    _sift(queue, first, parent, length, queue[first + parent])
  for place in range(middle, last):
    if _before(queue[place], queue[first]):
      value, queue[place] = queue[place], queue[first]
      _sift(queue, first, 0, length, value)


def _nth_element(queue: Queue, nth: int) -> None:
  """The nth best comes to its place, the better ones before it."""
  first, last = 0, len(queue)
  depth = 2 * (len(queue).bit_length() - 1)
  while last - first > 3:
    if depth == 0:
      _select_by_heap(queue, first, nth + 1, last)
      queue[first], queue[nth] = queue[nth], queue[first]
      return
    depth -= 1
    cut = _partition(queue, first, last)
    first, last = (cut, last) if cut <= nth else (first, cut)
  _insert(queue, first, last)


def _insert(queue: Queue, first: int, last: int) -> None:
  """Sorts by insertion, which is stable."""
  for place in range(first + 1, last):
    value, at = queue[place], place
    while at > first and _before(value, queue[at - 1]):
      queue[at] = queue[at - 1]
      at -= 1
    queue[at] = value


def _partition(queue: Queue, first: int, last: int) -> int:
  """Parts first to last by the median of three, which comes to `first`; returns where the second part begins."""
  median = _median(queue, first + 1, first + (last - first) // 2, last - 1)
  queue[first], queue[median] = queue[median], queue[first]
  pivot, low, high = queue[first], first + 1, last
  while True:
    while _before(queue[low], pivot):
      low += 1
    high -= 1
    while _before(pivot, queue[high]):
      high -= 1
    if low >= high:
      return low
    queue[low], queue[high] = queue[high], queue[low]
    low += 1


def _median(queue: Queue, a: int, b: int, c: int) -> int:
  one, two, three = queue[a], queue[b], queue[c]
  if _before(one, two):
    return b if _before(two, three) else c if _before(one, three) else a
  return a if _before(one, three) else c if _before(two, three) else b
