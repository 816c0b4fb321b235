"""Sizes of towers and heads that are divided by, or that arrays are as long as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError

SIZES = ("width", "heads", "patch", "dim", "hidden")


def check_sizes(options: Mapping[str, Any], where: str) -> None:
  """Raises UserError for one of SIZES that is a number, and not a whole one of 1 or more."""
  for name in SIZES:
    value = options.get(name)
    if isinstance(value, int | float) and (isinstance(value, bool) or not float(value).is_integer() or value < 1):
      raise UserError(f"{where}.{name}: {value!r} is not a whole number of 1 or more")
