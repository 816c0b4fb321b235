"""found.png: the answer to one search."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from mmcontrast.report.canvas import GREY, Canvas
from mmcontrast.report.fonts import clip, wrap

_TILE, _GAP, _COLUMNS, _MARGIN = 1.3, 0.22, 5, 0.4  # inches


def draw_found(
  path: str | pathlib.Path,
  query: str | np.ndarray,
  images: Sequence[np.ndarray],
  names: Sequence[str],
  cosine: Sequence[float],
  *,
  title: str = "",
) -> pathlib.Path:
  """Draws the images found, nearest first, five a row, each with its name and cosine.

  Args:
    path: of the PNG.
    query: the text, or the image, uint8 [H, W, 3].
    images: k images, uint8 [H, W, 3]; names: k captions; cosine: k numbers.
    title: a line below the query: what was searched, by which run.

  Returns:
    The path.
  """
  text_query = isinstance(query, str)
  columns = min(_COLUMNS, max(len(images), 3))
  head = 1.15 if text_query else 1.85
  step = _TILE + 0.7
  rows = -(-len(images) // columns)
  title = clip(title, 16 * columns if text_query else 16 * (columns - 1))
  page = Canvas(2 * _MARGIN + columns * (_TILE + _GAP) - _GAP, head + rows * step)
  if text_query:
    page.text(_MARGIN, 0.4, clip(f"“{query}”", 9 * columns), 16, weight="bold")
    page.text(_MARGIN, 0.74, title, 9.5, color=GREY)
  else:
    page.picture(query, _MARGIN, 0.3, _TILE)
    page.text(_MARGIN + _TILE + _GAP, 0.8, "nearest to this image", 14, weight="bold")
    page.text(_MARGIN + _TILE + _GAP, 1.12, title, 9.5, color=GREY)
  for n, (image, name, value) in enumerate(zip(images, names, cosine)):
    x, y = _MARGIN + n % columns * (_TILE + _GAP), head + n // columns * step
    page.picture(image, x, y, _TILE)
    lines = wrap(clip(name, 36), 19)[:2]
    for line, words in enumerate(lines):
      page.text(x + _TILE / 2, y + _TILE + 0.13 + line * 0.155, words, 8.5, ha="center")
    below = y + _TILE + 0.13 + len(lines) * 0.155
    page.text(x + _TILE / 2, below, f"{value:.2f}", 7.5, color=GREY, ha="center")
  return page.save(path)
