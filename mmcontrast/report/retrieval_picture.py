"""retrieval.png: what a model finds, text to image on the left, image to text on the right."""

from __future__ import annotations

import pathlib

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.matches import Matches
from mmcontrast.evaluation.retrieval import found, ranks
from mmcontrast.report.canvas import GREEN, GREY, INK, Canvas
from mmcontrast.report.fonts import clip, wrap

_ROW, _TILE, _TOP, _MARGIN = 1.12, 0.96, 1.62, 0.4  # inches
_QUERY, _GAP, _LIST = 2.1, 0.1, 4.6  # the query's column, between tiles, the right side's width


def draw(
  path: str | pathlib.Path, embedded: EmbeddedSet, *, rows: int = 6, top: int = 5, seed: int = 0
) -> pathlib.Path:
  """Draws random queries, not chosen ones, with the first things found; right ones in green.

  Args:
    path: of the PNG.
    embedded: an evaluation set in the joint space.
    rows: queries a side; fewer when the set has fewer that can be answered.
    top: results a query.
    seed: of the choice of queries.

  Returns:
    The path.

  Raises:
    UserError: when no caption of the set has an image.
  """
  data, matches = embedded.data, embedded.matches
  to_image = _Side(embedded.text, embedded.image, matches.T, rows, top, seed)
  to_text = _Side(embedded.image, embedded.text, matches, rows, top, seed + 1)
  left_width = _QUERY + top * (_TILE + _GAP)
  right = _MARGIN + left_width + 0.45
  bottom = _TOP + _ROW * max(len(to_image.queries), len(to_text.queries))
  page = Canvas(right + _LIST + _MARGIN, bottom + 0.2)

  page.text(_MARGIN, 0.42, f"{embedded.name}  ·  {'trained on' if embedded.seen else 'held out'}", 17, weight="bold")
  page.text(
    _MARGIN,
    0.78,
    f"{len(data.images):,} images, {len(data.captions):,} captions; queries drawn at random "
    f"(seed {seed}); right answers in green" + "; by the cosine of a pair" * bool(embedded.joined),
    10,
    color=GREY,
  )
  for x, width, words, side in (
    (_MARGIN, left_width, f"Text to image: top {top}", to_image),
    (right, _LIST, f"Image to text: top {top}", to_text),
  ):
    page.text(x, 1.22, words, 12, weight="bold")
    recall = f"R@1 {side.recall:.1%}"
    page.text(x + width, 1.22, recall, 12, weight="bold", color=GREEN, ha="right")
    page.rule(x, 1.42, x + width, 1.42)
  page.rule(right - 0.22, 1.08, right - 0.22, bottom)

  for row, (query, nearest, right_ones, rank) in enumerate(to_image):
    y = _TOP + row * _ROW
    lines = wrap(clip(data.captions[query], 54), 20)[:3]
    middle = y + _TILE / 2 - (0.1 if rank > top else 0)
    for n, words in enumerate(lines):
      page.text(_MARGIN, middle + (n - (len(lines) - 1) / 2) * 0.19, words, 10.5, weight="bold")
    page.text(_MARGIN, middle + len(lines) * 0.095 + 0.11, *_rank(rank, top), color=GREY)
    for n, (index, hit) in enumerate(zip(nearest, right_ones)):
      x = _MARGIN + _QUERY + _GAP + n * (_TILE + _GAP)
      page.picture(data.images[index], x, y, _TILE, *((GREEN, 2.8) if hit else ()))

  for row, (query, nearest, right_ones, rank) in enumerate(to_text):
    y = _TOP + row * _ROW
    page.picture(data.images[query], right, y, _TILE)
    page.text(right + _LIST, y + 0.1, *_rank(rank, top), color=GREY, ha="right")
    for n, (index, hit) in enumerate(zip(nearest, right_ones)):
      page.text(
        right + _TILE + 0.2,
        y + 0.1 + n * (_TILE - 0.2) / max(top - 1, 1),
        f"{n + 1}  {clip(data.captions[index], 36)}",
        9.5,
        color=GREEN if hit else INK,
        weight="bold" if hit else "normal",
      )
  return page.save(path)


class _Side:
  """One direction: its R@1 over all answerable queries, and a few of them to show, in the order that makes ranks."""

  def __init__(self, queries: np.ndarray, gallery: np.ndarray, positives: Matches, rows: int, top: int, seed: int):
    answerable = positives.answerable()
    if not len(answerable):
      raise UserError("retrieval picture: no caption has an image, so there is nothing to show")
    self.recall = float(np.mean(ranks(queries, gallery, positives, which=answerable) <= 1))
    self.queries = np.random.default_rng(seed).permutation(answerable)[:rows]
    nearest, right, self._rank = found(queries, gallery, positives, self.queries)
    self._found, self._right = nearest[:, :top], right[:, :top]

  def __iter__(self):
    return iter(zip(self.queries, self._found, self._right, self._rank))


def _rank(rank: int, top: int) -> tuple[str, float]:
  """A small remark on where the right answer came: nothing to add when it is shown."""
  return ("" if rank <= top else f"right one is no. {rank:,}"), 8.5
