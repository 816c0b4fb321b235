"""How far a number, or the difference of two models on the same examples, may be off by chance: the bootstrap.

Examples are drawn anew with replacement, the same for both models, and the difference of the metric is computed of each
draw: its quantiles are the interval (Efron and Tibshirani 1993, chapter 13: percentile method).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS, LEVEL = 1000, 0.95
_AT_A_TIME = 64  # draws, so that memory stays small

Metric = Callable[[np.ndarray], tuple[float, float]]
"""How often each of N examples was drawn, int [N] -> the metric of the first and of the second model."""


class Interval(NamedTuple):
  """The first minus the second: of all examples, and between which values it lies in `LEVEL` of the draws."""

  difference: float
  low: float
  high: float


def paired(metric: Metric, examples: int, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Interval:
  """The interval of the difference of a metric of two models on the same examples."""
  rng = np.random.default_rng(seed)
  one, other = metric(np.ones(examples, np.int64))
  found = np.empty(draws)
  for draw in range(draws):
    counts = np.bincount(rng.integers(0, examples, examples), minlength=examples)
    first, second = metric(counts)
    found[draw] = first - second
  low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2])
  return Interval(one - other, float(low), float(high))


class Outcomes(NamedTuple):
  """How each of N queries came out: `values` float [N] (1 for a hit), `concept` int [N], which queries go together."""

  values: np.ndarray
  concept: np.ndarray


def of_mean(one: Outcomes, seed: int = 0) -> tuple[float, float]:
  """The interval of the mean. Concepts are drawn, since queries of one concept, such as the captions of an image, hit
  and miss together."""
  return _of_mean(one.values, one.concept, seed)


def of_difference(one: Outcomes, other: Outcomes, seed: int = 0) -> tuple[float, float] | None:
  """The interval of the first mean minus the second, paired; None where they are not of the same queries."""
  if not np.array_equal(one.concept, other.concept):
    return None
  return _of_mean(one.values - other.values, one.concept, seed)


def _of_mean(values: np.ndarray, concept: np.ndarray, seed: int) -> tuple[float, float]:
  _, place = np.unique(concept, return_inverse=True)
  sums, counts = np.bincount(place, values), np.bincount(place)
  random, means = np.random.default_rng(seed), []
  for start in range(0, DRAWS, _AT_A_TIME):
    drawn = random.integers(0, len(sums), (min(_AT_A_TIME, DRAWS - start), len(sums)))
    means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
  low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  return float(low), float(high)
