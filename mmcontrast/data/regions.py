"""Regions of an image, each a box and its texts: read from columns, and drawn for the views `text_region`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.captions import clean
from mmcontrast.data.record import BadRecord, Record, Region
from mmcontrast.data.transforms import choose_distinct

COLUMNS = ("box", "text")
"""What data.source.regions names: the column of boxes and that of their texts."""
_ROUNDING = 1e-3  # of a side, by which a box may reach over the picture


class Texts(dict[str, list[str]]):
  """The captions of a record by field, and its regions."""

  regions: Sequence[Region] = ()


def of_columns(boxes: Any, texts: Any, columns: Mapping[str, str]) -> list[Region]:
  """The regions of a row: a list of boxes, and one of as many texts, or lists of them.

  Args:
    columns: how they are called, for messages.

  Raises BadRecord for what is no box, or lies outside the picture.
  """
  boxes, texts = (list(value) if value is not None else [] for value in (boxes, texts))
  if len(boxes) != len(texts):
    raise BadRecord(
      f"columns {columns['box']!r} and {columns['text']!r} have {len(boxes)} boxes and {len(texts)} texts"
    )
  return [
    Region(_box(box, number, columns["box"]), tuple(_strings(text, columns["text"])))
    for number, (box, text) in enumerate(zip(boxes, texts))
  ]


def usable(record: Record, settings: Mapping) -> tuple[Region, ...]:
  """The regions of a record that have an area, and a text that says something."""
  most = settings["limits"]["caption_characters"]
  cleaned = [
    Region(region.box, tuple(filter(str.strip, (clean(text, most) for text in region.texts))))
    for region in record.get("regions", ())
  ]
  return tuple(one for one in cleaned if one.texts and one.box[2] > one.box[0] and one.box[3] > one.box[1])


def draw(regions: Sequence[Region], views: int, draws: np.ndarray) -> list[tuple[Region, str]]:
  """`views` regions, all different, and a text of each; fewer where there are not so many.

  Args:
    draws: [2 * views] uniform numbers.
  """
  chosen = choose_distinct(list(regions), draws[:views])[: len(regions)] if regions else []
  return [(region, region.texts[int(number * len(region.texts))]) for region, number in zip(chosen, draws[views:])]


def fill(boxes: np.ndarray | None, given: Sequence[Sequence[float] | None]) -> None:
  """Writes boxes into [views, 4], where there is such an array; zeros stay where there is no region."""
  for view, box in enumerate(given if boxes is not None else ()):
    if box is not None:
      boxes[view] = box


def _box(value: Any, number: int, column: str) -> tuple[float, float, float, float]:
  try:
    box = np.asarray(value, np.float64)
  except (TypeError, ValueError):
    box = np.zeros(0)
  if box.shape != (4,) or not np.isfinite(box).all():
    raise BadRecord(f"column {column!r}, box {number}: {str(value)[:60]} is not four numbers, x0, y0, x1, y1")
  if box.min() < -_ROUNDING or box.max() > 1 + _ROUNDING:
    raise BadRecord(
      f"column {column!r}, box {number}: {', '.join(f'{x:g}' for x in box)} lies outside the picture; boxes are x0, "
      "y0, x1, y1 in shares of its sides, from 0 to 1: pixels divided by its width and height"
    )
  return tuple(np.clip(box, 0, 1).tolist())


def _strings(value: Any, column: str) -> list[str]:
  many = (
    [value] if isinstance(value, str | bytes) else list(value) if isinstance(value, Sequence | np.ndarray) else [None]
  )
  texts = [text.decode(errors="replace") if isinstance(text, bytes) else text for text in many]
  if not all(isinstance(text, str) for text in texts):
    raise BadRecord(f"column {column!r} holds a {type(value).__name__}, not a text for each box, or a list of them")
  return texts
