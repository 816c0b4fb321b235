"""Filters: which records are wanted at all. What does not pass is left out, and is not a fault of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmcontrast.data.images import header
from mmcontrast.errors import UserError

DEFAULTS = {
  "min_side": 0,  # pixels of an image's shorter side
  "max_aspect": 0.0,  # longer side / shorter side; 0: any
  "min_caption": 0,  # characters
  "max_caption": 0,  # characters; 0: any
}
NAMES = tuple(DEFAULTS)
# Names under which records without one are counted, with data.missing="skip".
NO_IMAGE, NO_CAPTION = "no image", "no caption"


class Filtered(Exception):
  """A record that a filter takes out; the message is the filter's name."""


def check(filters: Mapping) -> None:
  """UserError on a bound that nothing passes, or that is no number."""
  for name, value in filters.items():
    if not isinstance(value, int | float) or not value >= 0 or (name == "max_aspect" and 0 < value < 1):
      raise UserError(
        f"data.filter.{name}: {value!r}; give a number "
        + ("at least 1, or 0 for any" if name == "max_aspect" else "at least 0")
      )
  if 0 < filters["max_caption"] < filters["min_caption"]:
    raise UserError(f"data.filter: min_caption={filters['min_caption']} is above max_caption={filters['max_caption']}")


def images(encoded: Mapping[str, bytes], filters: Mapping) -> dict[str, bytes]:
  """The images that pass, by style, from their headers only; one that cannot be read passes, for it is a bad record.

  Raises Filtered when none of them does.
  """
  if not filters["min_side"] and not filters["max_aspect"]:
    return dict(encoded)
  reasons = {style: _by_size(data, filters) for style, data in encoded.items()}
  passing = {style: data for style, data in encoded.items() if not reasons[style]}
  if encoded and not passing:
    raise Filtered(next(iter(reasons.values())))
  return passing


def captions(texts: Mapping[str, Sequence[str]], filters: Mapping) -> dict[str, list[str]]:
  """The captions that pass, by field. Raises Filtered when none of them does."""
  shortest, longest = filters["min_caption"], filters["max_caption"] or float("inf")
  lengths = {field: [len(text.strip()) for text in found] for field, found in texts.items()}
  passing = {field: [text for text, length in zip(texts[field], found) if shortest <= length <= longest]
             for field, found in lengths.items()}  # fmt: skip
  if not any(passing.values()):
    short = all(length < shortest for found in lengths.values() for length in found)
    raise Filtered("min_caption" if short else "max_caption")
  return {field: found for field, found in passing.items() if found}


def _by_size(data: bytes, filters: Mapping) -> str:
  """The filter that takes out an image, or ""."""
  found = header(data)
  if found is None:
    return ""
  short, long = sorted(found[1])
  if short < filters["min_side"]:
    return "min_side"
  return "max_aspect" if filters["max_aspect"] and long > filters["max_aspect"] * short else ""
