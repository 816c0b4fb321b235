"""Checks of settings that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmcontrast.errors import UserError


def check_counts(section: Mapping, least: Mapping[str, int], where: str) -> None:
  """UserError unless each key of `least` is a whole number, and at least so large."""
  for key, smallest in least.items():
    if not isinstance(section[key], int) or section[key] < smallest:
      raise UserError(f"{where}.{key}: {section[key]!r}; give a whole number, at least {smallest}")


def check_range(pair: Sequence[float], where: str, most: float = math.inf) -> None:
  """UserError unless `pair` is (low, high) with 0 < low <= high <= most."""
  if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
    raise UserError(f"{where}: {tuple(pair)}; give (low, high) with 0 < low <= high" + " <= 1" * (most == 1))
