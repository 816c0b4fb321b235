"""retrieval.png: what a model finds: of two modalities the one by the other on the left, the other way on the right."""

from __future__ import annotations

import pathlib

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.retrieval import best_candidates, ranks
from mmcontrast.modalities import MODALITIES
from mmcontrast.report.canvas import GREEN, GREY, INK, Canvas
from mmcontrast.report.fonts import clip, wrap

_ROW, _TILE, _TOP, _MARGIN = 1.12, 0.96, 1.62, 0.4  # inches
_QUERY, _GAP, _LIST = 2.1, 0.1, 4.6  # the query's column, between tiles, the right side's width


def draw(
  path: str | pathlib.Path,
  embedded: EmbeddedSet,
  pair: tuple[str, str] = ("text", "image"),
  *,
  rows: int = 6,
  top: int = 5,
  seed: int = 0,
) -> pathlib.Path:
  """Draws random queries, not chosen ones, with the first things found; right ones in green.

  Args:
    path: of the PNG.
    embedded: an evaluation set in the joint space.
    pair: two modalities: on the left the first finds the second, on the right the second the first.
    rows: queries a side; fewer when the set has fewer that can be answered.
    top: results a query.
    seed: of the choice of queries.

  Returns:
    The path.

  Raises:
    UserError: when nothing of the one belongs to anything of the other.
  """
  sides = [
    _Direction(embedded, query, gallery, rows, top, seed + n) for n, (query, gallery) in enumerate((pair, pair[::-1]))
  ]
  right = _MARGIN + sides[0].width + 0.45
  bottom = _TOP + _ROW * max(len(side.queries) for side in sides)
  page = Canvas(right + sides[1].width + _MARGIN, bottom + 0.2)
  page.text(_MARGIN, 0.42, f"{embedded.name}  ·  {'trained on' if embedded.seen else 'held out'}", 17, weight="bold")
  numbers = ", ".join(
    f"{len(embedded.data.things[one].values):,} {MODALITIES[one].nouns}"
    for one in sorted(pair, key=list(embedded.data.things).index)
  )
  page.text(
    _MARGIN,
    0.78,
    f"{numbers}; queries drawn at random (seed {seed}); right answers in green"
    + "; by the cosine of a pair" * bool(embedded.joined),
    10,
    color=GREY,
  )
  for x, side in zip((_MARGIN, right), sides):
    page.text(x, 1.22, f"{side.query.capitalize()} to {side.gallery}: top {top}", 12, weight="bold")
    page.text(x + side.width, 1.22, f"R@1 {side.recall:.1%}", 12, weight="bold", color=GREEN, ha="right")
    page.rule(x, 1.42, x + side.width, 1.42)
    side.draw(page, x)
  page.rule(right - 0.22, 1.08, right - 0.22, bottom)
  return page.save(path)


class _Direction:
  """One direction: its R@1 over all answerable queries, and a few of them to show, in the order that makes ranks."""

  def __init__(self, embedded: EmbeddedSet, query: str, gallery: str, rows: int, top: int, seed: int):
    self.query, self.gallery, self._top = query, gallery, top
    positives = embedded.matches(query, gallery)
    answerable = positives.answerable()
    if not len(answerable):
      raise UserError(f"retrieval picture: no {query} has a {gallery}, so there is nothing to show")
    queries, candidates = embedded.joint(query), embedded.joint(gallery)
    self.recall = float(np.mean(ranks(queries, candidates, positives, which=answerable) <= 1))
    self.queries = np.random.default_rng(seed).permutation(answerable)[:rows]
    nearest, right, self._rank = best_candidates(queries, candidates, positives, self.queries)
    self._nearest, self._right = nearest[:, :top], right[:, :top]
    self._values = {one: embedded.data.things[one].values for one in (query, gallery)}
    self._listed = MODALITIES[gallery].words
    self.width = _LIST if self._listed else _QUERY + top * (_TILE + _GAP)

  def draw(self, page: Canvas, x: float) -> None:
    """Each query with what it finds below the last, from the left end `x` on."""
    for row, (query, nearest, right, rank) in enumerate(zip(self.queries, self._nearest, self._right, self._rank)):
      y = _TOP + row * _ROW
      self._draw_query(page, x, y, query, rank)
      for n, (index, hit) in enumerate(zip(nearest, right)):
        shown = MODALITIES[self.gallery].show(self._values[self.gallery][index])
        if self._listed:
          words = f"{n + 1}  {clip(shown.words, 36)}"
          place = x + _TILE + 0.2, y + 0.1 + n * (_TILE - 0.2) / max(self._top - 1, 1)
          page.text(*place, words, 9.5, color=GREEN if hit else INK, weight="bold" if hit else "normal")
        else:
          place = x + _QUERY + _GAP + n * (_TILE + _GAP), y
          page.picture(shown.picture, *place, _TILE, *((GREEN, 2.8) if hit else ()))

  def _draw_query(self, page: Canvas, x: float, y: float, query: int, rank: int) -> None:
    shown = MODALITIES[self.query].show(self._values[self.query][query])
    if shown.picture is not None:
      page.picture(shown.picture, x, y, _TILE)
      if self._listed:
        page.text(x + self.width, y + 0.1, *_rank(rank, self._top), color=GREY, ha="right")
      else:
        page.text(x + _TILE + _GAP, y + _TILE / 2, *_rank(rank, self._top), color=GREY)
      return
    lines = wrap(clip(shown.words, 54), 20)[:3]
    middle = y + _TILE / 2 - (0.1 if rank > self._top else 0)
    for n, words in enumerate(lines):
      page.text(x, middle + (n - (len(lines) - 1) / 2) * 0.19, words, 10.5, weight="bold")
    page.text(x, middle + len(lines) * 0.095 + 0.11, *_rank(rank, self._top), color=GREY)


def _rank(rank: int, top: int) -> tuple[str, float]:
  """A small remark on where the right answer came: nothing to add when it is shown."""
  return ("" if rank <= top else f"right one is no. {rank:,}"), 8.5
