"""Filters: which records are wanted at all. What does not pass is left out, and is not a fault of the data.

Each modality has its own, keys of config.data.filter: `Views.filters`.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmcontrast.errors import UserError


class Filtered(Exception):
  """A record that a filter takes out; the message is the filter's name."""


def check(filters: Mapping) -> None:
  """UserError on a bound that is no number."""
  for name, value in filters.items():
    if not isinstance(value, int | float) or not value >= 0:
      raise UserError(f"data.filter.{name}: {value!r}; give a number at least 0")
