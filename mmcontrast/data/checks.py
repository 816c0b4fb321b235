"""Checks of settings that several rooms share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mmcontrast.errors import UserError


def check_counts(section: Mapping, least: Mapping[str, int], where: str) -> None:
  """UserError unless each key of `least` is a whole number, and at least so large."""
  for key, smallest in least.items():
    value = section[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
      raise UserError(f"{where}.{key}: {section[key]!r}; give a whole number, at least {smallest}")


def check_range(pair: Sequence[float], where: str, most: float = math.inf) -> None:
  """UserError unless `pair` is (low, high) with 0 < low <= high <= most."""
  two = isinstance(pair, list | tuple) and len(pair) == 2 and all(map(_is_number, pair))
  if not two or not 0 < pair[0] <= pair[1] <= most:
    raise UserError(f"{where}: {pair!r}; give (low, high) with 0 < low <= high" + " <= 1" * (most == 1))


def check_share(section: Mapping, key: str, where: str) -> None:
  """UserError unless a key is a number from 0 to below 1."""
  if not _is_number(section[key]) or not 0 <= section[key] < 1:
    raise UserError(f"{where}.{key}: {section[key]!r}; give a number from 0 to below 1")


def _is_number(value: object) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
