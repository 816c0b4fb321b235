"""found.png: the answer to one search."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mmcontrast.report.canvas import GREY, Canvas
from mmcontrast.report.fonts import clip, clip_left, wrap

_TILE, _GAP, _COLUMNS, _MARGIN = 1.3, 0.22, 5, 0.4  # inches
_PIXELS = 320  # a tile's side, and more than a page shows


def draw_results(
  path: str | pathlib.Path,
  query: str | np.ndarray,
  images: Sequence[np.ndarray],
  labels: Sequence[tuple[str, str]],
  scores: Sequence[float],
  *,
  title: str = "",
  called: str = "image",
) -> pathlib.Path:
  """Draws the images found, nearest first, five a row, each with its caption, its name and its score.

  Args:
    path: of the PNG.
    query: the text, or the image, or how a sound is seen, uint8 [H, W, 3].
    images: k images likewise, uint8 [H, W, 3], of any size.
    labels: (caption, name) of each; either may be empty. Of a name that is too long the end is shown.
    scores: k numbers.
    title: a line below the query: what was searched, by which run.
    called: what a query that is a picture shows.

  Returns:
    The path.
  """
  text_query = isinstance(query, str)
  columns = min(_COLUMNS, max(len(images), 3))
  head = 1.15 if text_query else 1.85
  step = _TILE + 0.85
  rows = -(-len(images) // columns)
  title = clip(title, 16 * columns if text_query else 16 * (columns - 1))
  page = Canvas(2 * _MARGIN + columns * (_TILE + _GAP) - _GAP, head + rows * step)
  if text_query:
    page.text(_MARGIN, 0.4, clip(f"“{query}”", 9 * columns), 16, weight="bold")
    page.text(_MARGIN, 0.74, title, 9.5, color=GREY)
  else:
    page.picture(_small(query), _MARGIN, 0.3, _TILE)
    page.text(_MARGIN + _TILE + _GAP, 0.8, f"nearest to this {called}", 14, weight="bold")
    page.text(_MARGIN + _TILE + _GAP, 1.12, title, 9.5, color=GREY)
  for n, (image, (caption, name), score) in enumerate(zip(images, labels, scores)):
    x, y = _MARGIN + n % columns * (_TILE + _GAP), head + n // columns * step
    page.picture(_small(image), x, y, _TILE)
    lines = wrap(caption, 19, 2)
    for line, words in enumerate(lines):
      page.text(x + _TILE / 2, y + _TILE + 0.13 + line * 0.155, words, 8.5, ha="center")
    below = y + _TILE + 0.13 + len(lines) * 0.155
    for line, words in enumerate([clip_left(name, 24)] * bool(name) + [f"{score:.2f}"]):
      page.text(x + _TILE / 2, below + line * 0.145, words, 7.5, color=GREY, ha="center")
  return page.save(path)


def _small(image: np.ndarray) -> np.ndarray:
  """`image`, made smaller where a tile cannot show all of its pixels."""
  small = Image.fromarray(image)
  small.thumbnail((_PIXELS, _PIXELS))
  return np.asarray(small)
