"""Near duplicates among very many embeddings: pairs of rows of a cosine of at least t, without comparing all.

Rows are projected at random to fewer numbers, which keeps distances (Johnson and Lindenstrauss), and put into lists by
their nearest centre; each is compared with those of the lists of its nearest centres. Pairs that are near there are
compared again as they are, so none that is given is wrong; a few may be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from mmcontrast.errors import UserError

EXACT = 20_000  # rows, up to which all are compared
MOST_PAIRS = 50_000_000
_DIMS = 128  # numbers a row that are compared first
_SLACK = 4.0  # standard deviations of a projected distance that are let through
_PROBES = 8  # lists that each row is compared with
_SAMPLE = 32  # rows a list, to place the centres by
_ROUNDS = 4  # of k-means
_ROWS = 4096  # at a time


def near_pairs(
  chunks: Callable[[], Iterator[np.ndarray]],
  at: Callable[[np.ndarray], np.ndarray],
  count: int,
  threshold: float,
  *,
  exact: int = EXACT,
  probes: int = _PROBES,
) -> np.ndarray:
  """int64 [P, 2]: pairs (earlier, later) of unit rows whose cosine is at least `threshold`.

  Takes memory for count x 128 floats, and time that grows as count to the power of 1.5.

  Args:
    chunks: gives the rows, float32 [n, D] each, in order; it is asked more than once.
    at: the rows at some places, float32 [n, D].
    exact: up to so many rows are all compared.
    probes: lists that each row is compared with.
  Raises UserError: more than MOST_PAIRS.
  """
  if count < 2:
    return np.zeros((0, 2), np.int64)
  if count <= exact:
    rows = np.concatenate([np.asarray(part, np.float32) for part in chunks()])
    found = _Pairs(threshold)
    for start in range(0, count, _ROWS):
      first, second = np.nonzero(rows[start : start + _ROWS] @ rows[start:].T >= threshold)
      found.add(start + first, start + second)
    return found.all()
  short, slack = _projected(chunks, count)
  centres = _centres(short, round(2 * np.sqrt(count)))
  near = _nearest_centres(short, centres, probes)
  candidates = _compared(short, near, len(centres), (2 - 2 * threshold) * slack, threshold)
  sure = [
    part[np.einsum("nd,nd->n", at(part[:, 0]), at(part[:, 1])) >= threshold]
    for part in np.array_split(candidates, -(-len(candidates) // _ROWS) or 1)
  ]
  return np.concatenate(sure)


class _Pairs:
  """Pairs as they are found; each counts once."""

  def __init__(self, threshold: float):
    self._threshold, self._parts, self._waiting = threshold, [np.zeros((0, 2), np.int64)], 0

  def add(self, first: np.ndarray, second: np.ndarray) -> None:
    """Those of two different rows."""
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)], 1)[first != second]
    self._parts.append(pairs.astype(np.int64))
    self._waiting += len(pairs)
    if self._waiting > MOST_PAIRS // 8:
      self.all()

  def all(self) -> np.ndarray:
    """int64 [P, 2], sorted."""
    whole = np.concatenate(self._parts)
    whole = whole[np.lexsort((whole[:, 1], whole[:, 0]))]
    whole = whole[np.r_[True, (np.diff(whole, axis=0) != 0).any(axis=1)]] if len(whole) else whole
    if len(whole) > MOST_PAIRS:
      raise UserError(
        f"--near {self._threshold:g}: more than {MOST_PAIRS // 10**6} million pairs are that near, most of them in "
        "large groups; raise it, or leave out equal pictures first (--exact image, --perceptual 4)"
      )
    self._parts, self._waiting = [whole], 0
    return whole


def _projected(chunks: Callable[[], Iterator[np.ndarray]], count: int) -> tuple[np.ndarray, float]:
  """(rows of fewer numbers, float32 [N, d], in whose distances those of the rows are kept on average; how much larger a
  squared distance may come out)."""
  short, start, matrix = None, 0, None
  for part in chunks():
    part = np.asarray(part, np.float32)
    if matrix is None:
      width = part.shape[1]
      dims = min(_DIMS, width)
      draws = np.random.Generator(np.random.PCG64(0)).standard_normal((width, dims))
      matrix = np.linalg.qr(draws)[0].astype(np.float32) * np.float32(np.sqrt(width / dims))
      short = np.empty((count, dims), np.float32)
    short[start : start + len(part)] = part @ matrix
    start += len(part)
  return short, 1 + (_SLACK * np.sqrt(2 / dims) if dims < width else 1e-3)


def _centres(rows: np.ndarray, lists: int) -> np.ndarray:
  """float32 [K, d]: by k-means of a sample; one that nothing is nearest to stays where it is."""
  sample = rows[:: max(1, len(rows) // (_SAMPLE * lists))]
  centres = sample[:: max(1, len(sample) // lists)][:lists].copy()
  for _ in range(_ROUNDS):
    nearest = _nearest_centres(sample, centres, 1)[:, 0]
    order = np.argsort(nearest, kind="stable")
    there, starts = np.unique(nearest[order], return_index=True)
    sums = np.add.reduceat(sample[order], starts, axis=0)
    centres[there] = sums / np.diff(np.r_[starts, len(order)])[:, None]
  return centres


def _nearest_centres(rows: np.ndarray, centres: np.ndarray, count: int) -> np.ndarray:
  """int32 [N, count]: the nearest of the centres, the nearest first."""
  count = min(count, len(centres))
  near = np.empty((len(rows), count), np.int32)
  half = np.float32(0.5) * np.einsum("kd,kd->k", centres, centres)
  for start in range(0, len(rows), _ROWS):
    scores = rows[start : start + _ROWS] @ centres.T
    scores -= half
    if count == 1:
      near[start : start + _ROWS, 0] = scores.argmax(axis=1)
      continue
    best = np.argpartition(scores, len(centres) - count, axis=1)[:, -count:]
    order = np.argsort(-np.take_along_axis(scores, best, 1), axis=1, kind="stable")
    near[start : start + _ROWS] = np.take_along_axis(best, order, 1)
  return near


def _compared(rows: np.ndarray, near: np.ndarray, lists: int, most: float, threshold: float) -> np.ndarray:
  """int64 [P, 2]: pairs whose squared distance is at most `most`, of the rows of each list with all that look there."""
  half = 0.5 * np.einsum("nd,nd->n", rows, rows)[:, None]
  ones = np.ones_like(half)
  found = _Pairs(threshold)
  home = np.argsort(near[:, 0], kind="stable")
  ends = np.cumsum(np.bincount(near[:, 0], minlength=lists))
  looks = near.ravel()
  visits = np.argsort(looks, kind="stable")  # places in `near`, of one list after another
  visit_ends = np.cumsum(np.bincount(looks, minlength=lists))
  for number in range(lists):
    members = home[ends[number - 1] if number else 0 : ends[number]]
    visitors = visits[visit_ends[number - 1] if number else 0 : visit_ends[number]] // near.shape[1]
    if not len(members):
      continue
    # The product of these is minus half the squared distance.
    right = np.concatenate([rows[members], -half[members], ones[members]], axis=1)
    for start in range(0, len(visitors), _ROWS):
      part = visitors[start : start + _ROWS]
      left = np.concatenate([rows[part], ones[part], -half[part]], axis=1)
      flat = np.flatnonzero(left @ right.T >= -most / 2)
      first, second = np.divmod(flat, len(members))
      found.add(part[first], members[second])
  return found.all()
