"""Words that can be drawn: installed fonts for scripts that the usual one lacks, code points where none has them."""

from __future__ import annotations

import functools
import unicodedata

_USUAL = "DejaVu Sans"  # matplotlib brings it along
_USELESS = ("color", "colour", "lastresort")  # bitmaps, which cannot be scaled; a box for every letter there is


def drawable(words: str) -> tuple[str, list[str]]:
  r"""What to draw of `words`, and the font families that have it, for matplotlib to try in turn.

  A letter that no installed font has is its code point ("\u4e2d"); marks without a width that none has are left out.
  """
  out, families = [], {_USUAL: None}
  for letter in words:
    if unicodedata.category(letter) == "Cc":
      letter = " "
    family = _family_of(letter)
    if family:
      families[family] = None
      out.append(letter)
    elif unicodedata.category(letter) not in ("Cf", "Mn"):
      out.append(letter.encode("unicode_escape").decode())
  return "".join(out), list(families)


def columns(words: str) -> int:
  """How wide `words` are, in Latin letters: those of East Asian scripts are two."""
  return sum(map(_columns_of, words))


def clip(words: str, most: int) -> str:
  """`words`, as they can be drawn, in at most `most` columns, an ellipsis for what is cut."""
  words = drawable(words)[0]
  if columns(words) <= most:
    return words
  room, kept = most - 1, []
  for letter in words:
    room -= _columns_of(letter)
    if room < 0:
      break
    kept.append(letter)
  return "".join(kept).rstrip() + "…"


def clip_left(words: str, most: int) -> str:
  """As `clip`, but the end stays: that of a path says which file it is."""
  words = drawable(words)[0]
  return words if columns(words) <= most else "…" + clip(words[::-1], most)[-2::-1]


def wrap(words: str, most: int, lines: int | None = None) -> list[str]:
  """`words`, as they can be drawn, in lines of at most `most` columns (and so many lines), broken between words.

  A word that is too long for a line is cut; in scripts that write without spaces lines are broken anywhere.
  """
  import textwrap

  drawn = drawable(words)[0]
  spaceless = columns(drawn) > len(drawn)
  parts = [part if spaceless else clip(part, most) for part in drawn.split()]
  filled = "".join(letter + _FILL * (_columns_of(letter) - 1) for letter in " ".join(parts))
  made = textwrap.wrap(filled, most, break_long_words=spaceless, break_on_hyphens=False, max_lines=lines,
                       placeholder=" …")  # fmt: skip
  return [line.replace(_FILL, "") for line in made]


_FILL = "\x1f"  # no font has it, and `drawable` leaves none: it stands for the second column of a wide letter


def _columns_of(letter: str) -> int:
  return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


@functools.cache
def _family_of(letter: str) -> str | None:
  """The first installed family that has a letter, in bold too; None without one."""
  for family, paths in _installed():
    if all(ord(letter) in _letters_of(path) for path in paths):
      return family
  return None


@functools.cache
def _installed() -> list[tuple[str, tuple[str, ...]]]:
  """(family, a file of each weight) of the upright fonts that matplotlib knows, the usual one first."""
  from matplotlib import font_manager

  fonts: dict[str, set[str]] = {}
  for font in font_manager.fontManager.ttflist:
    if font.style == "normal" and not any(word in font.fname.lower() for word in _USELESS):
      fonts.setdefault(font.name, set()).add(font.fname)
  # Of the usual one the files that its name finds: a second copy may be of another version.
  fonts[_USUAL] = {font_manager.findfont(font_manager.FontProperties(_USUAL, weight=weight))
                   for weight in ("normal", "bold")}  # fmt: skip
  ordered = sorted(fonts, key=lambda name: (name != _USUAL, "Sans" not in name, name))  # sans before others
  return [(name, tuple(sorted(fonts[name]))) for name in ordered]


@functools.cache
def _letters_of(path: str) -> frozenset[int]:
  """The code points that a font file has; none of a file that cannot be read or scaled."""
  from matplotlib import ft2font

  try:
    font = ft2font.FT2Font(path)
    return frozenset(font.get_charmap()) if font.scalable else frozenset()
  except (RuntimeError, OSError):
    return frozenset()
