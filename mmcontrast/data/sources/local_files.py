"""Local files, listed: links are followed, and what systems leave behind is passed over."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence

from mmcontrast.data.left_behind import is_left_behind

Identity = tuple[int, int]
"""What a folder is, by whatever path: its device and its number there."""


def walk(folder: str) -> Iterator[str]:
  """The paths of all files in `folder` and the folders in it, linked ones too. A link to nowhere is a file.

  A folder that lies in itself, by a link, is not entered again.

  Raises:
    OSError: a folder cannot be listed.
  """
  yield from _walk(folder, ())


def match(pattern: str) -> list[str]:
  """The files that a pattern of *, ?, [abc] and ** names, each once. What exists under its name is no pattern.

  What systems leave behind (left_behind.py) matches only a part of the pattern that spells it: @eaDir, .hid*, *.part.

  Args:
    pattern: an absolute path.
  Raises OSError as `walk` does.
  """
  if os.path.isfile(pattern):
    return [pattern]
  return sorted(set(_match("/", pattern.strip("/").split("/"), ())))


def _walk(folder: str, above: tuple[Identity, ...]) -> Iterator[str]:
  above = _entered(folder, above)
  for entry in _entries(folder) if above else ():
    if is_left_behind(entry.name):
      continue
    if entry.is_dir():
      yield from _walk(entry.path, above)
    else:
      yield entry.path


def _match(folder: str, parts: Sequence[str], above: tuple[Identity, ...]) -> Iterator[str]:
  """The files of `parts` of a pattern, seen from `folder`; `above`: the folders that ** went through, its own too."""
  part, rest = parts[0], parts[1:]
  exact = os.path.join(folder, part)
  if part == "**":
    if not os.path.isdir(folder) or not (above := _entered(folder, above)):
      return
    if rest:
      yield from _match(folder, rest, ())
    for entry in _entries(folder):
      if is_left_behind(entry.name):
        continue
      if entry.is_dir():
        yield from _match(entry.path, parts, above)
      elif not rest:
        yield entry.path
  elif os.path.exists(exact):
    if rest:
      yield from _match(exact, rest, ())
    elif os.path.isfile(exact):
      yield exact
  elif any(sign in part for sign in "*?["):
    for entry in _entries(folder):
      fits = fnmatch.fnmatchcase(entry.name, part) and (is_left_behind(part) or not is_left_behind(entry.name))
      if fits and rest and entry.is_dir():
        yield from _match(entry.path, rest, ())
      elif fits and not rest and entry.is_file():
        yield entry.path


def _entered(folder: str, above: tuple[Identity, ...]) -> tuple[Identity, ...]:
  """`above` with `folder`; empty where that lies in itself."""
  status = os.stat(folder)
  identity = (status.st_dev, status.st_ino)
  return () if identity in above else (*above, identity)


def _entries(folder: str) -> list[os.DirEntry]:
  if not os.path.isdir(folder):
    return []
  with os.scandir(folder) as entries:
    return sorted(entries, key=lambda entry: entry.name)
