"""Texts drawn as pictures: letters of several scripts, in lines, by Pillow.

The fonts are DejaVu's, which matplotlib brings along, so that a picture is the same on a fresh machine: Latin,
Cyrillic, Greek, Hebrew, Arabic, Armenian and Georgian letters. Other scripts need the file of a font that has them.
"""

from __future__ import annotations

import functools
import importlib.util
import pathlib
import threading
import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmcontrast.errors import UserError, nearest, note

FONTS = {"sans": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf", "italic": "DejaVuSans-Oblique.ttf",
         "serif": "DejaVuSerif.ttf", "mono": "DejaVuSansMono.ttf"}  # fmt: skip
"""Names of fonts, and their files among matplotlib's."""
_MEASURED = 256  # letters of a line at first
_SPACING = 1.25  # from line to line, in heights of the font


def font_file(font: str) -> pathlib.Path:
  """The file of a font, by a name of FONTS or its own path. Raises UserError where it is none that can be scaled."""
  if font in FONTS:
    (folder,) = importlib.util.find_spec("matplotlib").submodule_search_locations
    return pathlib.Path(folder, "mpl-data", "fonts", "ttf", FONTS[font])
  path = pathlib.Path(font)
  try:
    ImageFont.truetype(path, 10)
  except OSError as error:
    raise UserError(
      f"data.written.fonts: {font!r}: {error.strerror or error}; give the path of a .ttf or .otf file, or "
      f"{nearest(font, FONTS)}"
    ) from None
  return path


def drawn(text: str, size: tuple[int, int], points: int, font: str = "sans") -> np.ndarray:
  """Black letters on white, from the top left, in as many lines as fit.

  Lines break between words; a word that is longer than a line is broken where it ends. What does not fit is left out.
  A letter that the font lacks is taken from DejaVu Sans; where that lacks it too, a box stands for it.

  Args:
    size: rows and columns of pixels.
    points: height of the letters, in pixels.
    font: of FONTS, or the path of a font.
  Returns:
    uint8 [rows, columns].
  """
  rows, columns = size
  step = max(1, round(points * _SPACING))
  picture = Image.new("L", (columns, rows), 255)
  draw = ImageDraw.Draw(picture)
  fonts = _fonts(str(font_file(font)), points, threading.get_ident())
  # A single line may be less high than `step`: it stands in the middle then.
  top = (rows - step) / 2 if rows < 2 * step else 0
  for number, line in enumerate(_lines(text, columns, fonts, max(1, rows // step))):
    left = 0.0
    for which, part in _runs(line, fonts):
      draw.text((left, top + step * (number + 0.8)), part, 0, fonts[which].scaled, anchor="ls")
      left += fonts[which].scaled.getlength(part)
  return np.asarray(picture)


class _Font:
  """A font of one size, and the code points that it has."""

  def __init__(self, path: str, points: int):
    self.scaled = ImageFont.truetype(path, points)
    self.letters = _letters(path)


@functools.lru_cache(64)
def _fonts(path: str, points: int, thread: int) -> tuple[_Font, ...]:
  """The font, and that whose letters stand in for those it lacks; a thread has its own, as FreeType asks."""
  return tuple(_Font(one, points) for one in dict.fromkeys((path, str(font_file("sans")))))


@functools.cache
def _letters(path: str) -> frozenset[int]:
  from fontTools.ttLib import TTFont

  with TTFont(path, lazy=True, fontNumber=0) as font:
    return frozenset(font.getBestCmap() or {})


def _runs(line: str, fonts: tuple[_Font, ...]) -> list[tuple[int, str]]:
  """Parts of a line, each with the number of the font that it is drawn with."""
  runs: list[tuple[int, str]] = []
  for letter in line:
    which = next((number for number, font in enumerate(fonts) if ord(letter) in font.letters), None)
    if which is None:
      which = 0
      if letter.isprintable():
        _say_missing(fonts)
    if runs and runs[-1][0] == which:
      runs[-1] = which, runs[-1][1] + letter
    else:
      runs.append((which, letter))
  return runs


@functools.cache
def _say_missing(fonts: tuple[_Font, ...]) -> None:
  note("texts have letters that none of their fonts has, and a box stands for each; give the path of a font that has "
       "them in data.written.fonts")  # fmt: skip


def _width(text: str, fonts: tuple[_Font, ...]) -> float:
  return sum(fonts[which].scaled.getlength(part) for which, part in _runs(text, fonts))


def _fitting(text: str, columns: int, fonts: tuple[_Font, ...]) -> int:
  """How many of a text's first letters a line holds, at least one. Of a long text only the beginning is measured."""
  high = min(_MEASURED, len(text))
  while high < len(text) and _width(text[:high], fonts) <= columns:
    high = min(2 * high, len(text))
  if high == len(text) and _width(text, fonts) <= columns:
    return len(text)
  low = 1
  while high - low > 1:
    middle = (low + high) // 2
    low, high = (middle, high) if _width(text[:middle], fonts) <= columns else (low, middle)
  return low


def _lines(text: str, columns: int, fonts: tuple[_Font, ...], most: int) -> list[str]:
  lines = [""]
  for word in text.split():
    joined = f"{lines[-1]} {word}" if lines[-1] else word
    if _fitting(joined, columns, fonts) == len(joined):
      lines[-1] = joined
      continue
    if len(lines) == most:
      lines[-1] = joined
      break
    lines += [word] if lines[-1] else []
    lines[-1] = lines[-1] or word
    while len(lines) < most and (kept := _fitting(lines[-1], columns, fonts)) < len(lines[-1]):
      lines[-1:] = [lines[-1][:kept], lines[-1][kept:]]
  kept = _fitting(lines[-1], columns, fonts)
  if kept < len(lines[-1]) and unicodedata.bidirectional(lines[-1][kept]) not in ("R", "AL"):
    kept += 1  # what is cut is seen up to the edge; of what runs to the left that would be its beginning
  return [*lines[:-1], lines[-1][:kept]]
