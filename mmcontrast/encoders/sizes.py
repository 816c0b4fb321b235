"""Numbers of towers and heads that have a least value, or a most: sizes, counts, probabilities.

An option of a name listed here is the same kind of number wherever it stands, in any tower and any head.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError

SIZES = (
  *("cells", "codes", "dim", "grid", "groups", "head_width", "heads", "hidden", "kinds", "max_length"),
  *("patch", "places", "pool_dim", "pool_heads", "pool_queries", "position_side", "project", "queries", "reach"),
  *("size", "slots", "stem", "stem_width", "stride", "temporal_heads", "tubelet", "vocab_size", "width", "window"),
)
"""Whole numbers of 1 or more, or lists of them; what arrays are as long as, or divided by."""
COUNTS = ("depth", "experts", "maps", "registers", "steps", "temporal_depth")
"""Whole numbers of 0 or more."""
PROBABILITIES = ("drop_path", "dropout", "leave_out", "patch_drop")
"""From 0 to below 1."""
NOT_NEGATIVE = ("bn_epsilon", "norm_epsilon", "pool_epsilon", "temporal_positions")
POSITIVE = ("global_theta", "local_theta", "mlp_ratio", "rope_base")


def check_sizes(options: Mapping[str, Any], where: str) -> None:
  """Raises UserError for a number that is out of the range of its name."""
  for names, fits, words in (
    (SIZES, lambda value: _is_whole(value) and value >= 1, "is not a whole number of 1 or more"),
    (COUNTS, lambda value: _is_whole(value) and value >= 0, "is not a whole number of 0 or more"),
    (PROBABILITIES, lambda value: 0 <= value < 1, "is no probability; give a number from 0 to below 1"),
    (NOT_NEGATIVE, lambda value: value >= 0, "is no number of 0 or more"),
    (POSITIVE, lambda value: value > 0, "is no number above 0"),
  ):
    for name in names:
      given = options.get(name)
      listed = isinstance(given, list | tuple)
      for value in given if listed else (given,):
        if isinstance(value, int | float) and not (_is_number(value) and fits(value)):
          raise UserError(f"{where}.{name}: {f'{value!r} in {given!r}' if listed else repr(value)} {words}")


def _is_number(value: float) -> bool:
  return not isinstance(value, bool) and value == value and abs(value) != float("inf")


def _is_whole(value: float) -> bool:
  return float(value).is_integer()


def nearest_multiples(size: int, part: int) -> str:
  """The sizes next to one that a part divides, for a message: "24 or 32"."""
  below = size // part * part
  return f"{below} or {below + part}" if below else str(part)
