"""contact.png: what a dataset looks like."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from mmcontrast.report.canvas import Canvas
from mmcontrast.report.fonts import clip, wrap

_TILE, _GAP, _COLUMNS, _MARGIN, _HEAD = 1.3, 0.22, 6, 0.4, 0.85  # inches


def draw_contact_sheet(
  path: str | pathlib.Path, images: Sequence[np.ndarray], words: Sequence[str], title: str
) -> pathlib.Path:
  """Draws images, uint8 [H, W, 3], six a row, each above its words; returns the path of the PNG."""
  columns, step = min(_COLUMNS, max(len(images), 3)), _TILE + 0.6
  page = Canvas(2 * _MARGIN + columns * (_TILE + _GAP) - _GAP, _HEAD + -(-len(images) // columns) * step)
  page.text(_MARGIN, 0.42, clip(title, 12 * columns), 13, weight="bold")
  for n, (image, text) in enumerate(zip(images, words)):
    x, y = _MARGIN + n % columns * (_TILE + _GAP), _HEAD + n // columns * step
    page.picture(image, x, y, _TILE)
    for line, part in enumerate(wrap(clip(" ".join(text.split()), 40), 20)[:2]):
      page.text(x + _TILE / 2, y + _TILE + 0.13 + line * 0.155, part, 8.5, ha="center")
  return page.save(path)
