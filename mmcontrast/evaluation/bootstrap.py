"""How far two models on the same examples may differ by chance: paired bootstrap.

Examples are drawn anew with replacement, the same for both models, and the difference of the metric is computed of each
draw: its quantiles are the interval (Efron and Tibshirani 1993, chapter 13: percentile method).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

DRAWS, LEVEL = 1000, 0.95

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
