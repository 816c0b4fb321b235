"""Files by path or URL: found by pattern, read whole or in part.

A path is local, or a URL of a filesystem that fsspec knows: gs://, s3://, memory://, ...
"""

from __future__ import annotations

import concurrent.futures
import difflib
import fnmatch
import itertools
import os
import posixpath
import re
from collections.abc import Callable, Sequence
from typing import BinaryIO

from mmcontrast.data.left_behind import is_left_behind
from mmcontrast.data.sources import local_files
from mmcontrast.errors import MissingData, UserError, nearest, one_line

_PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs"}  # of the extras "gs" and "s3"
_BRACES = re.compile(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_LOOKS_AT_ONCE = 16  # a look at a file of a bucket takes tens of milliseconds


def find(pattern: str, endings: Sequence[str] = ()) -> list[str]:
  """The files that `pattern` names, sorted, each once.

  Args:
    pattern: a path or URL, with any of {a,b}, {000..012}, *, ?, [abc] and **. The path of a file that exists is no
      pattern, whatever signs are in it; what systems leave behind (left_behind.py) matches no wildcard.
    endings: how the names of such files end, for the message about a folder, such as (".tar",).
  Raises:
    UserError: a part of the pattern names no file, or the protocol is not known or its package missing.
  """
  if any(sign in pattern for sign in "{[*?") and _match_exactly(pattern):
    return _match_exactly(pattern)
  found: set[str] = set()
  missing = []
  with concurrent.futures.ThreadPoolExecutor(_LOOKS_AT_ONCE) as pool:
    for part, files in zip(parts := _parts(pattern), pool.map(_match, parts)):
      found.update(files)
      if not files:
        missing.append(part)
  if missing:
    more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    raise MissingData(f"{missing[0]}: no such file{more}; {_hint(missing[0], endings)}")
  return sorted(found)


def find_below(folder: str) -> dict[str, str]:
  """{path seen from `folder`: path} of every file in it and the folders in it, sorted.

  Links are followed on a local disk; what systems leave behind (left_behind.py) is not listed.
  Raises UserError when there is none, or a folder cannot be listed.
  """
  system, inner = _open_system(folder)
  start = len(inner.rstrip("/")) + 1
  try:
    is_file = system.isfile(inner)
    found = [] if is_file or not system.isdir(inner) else _below(system, inner)
  except Exception as error:
    raise UserError(f"{folder}: cannot be listed ({_reason(error)})") from None
  if not found:
    raise UserError(f"{folder}: {'is a file, not a folder' if is_file else 'no such folder, or it is empty'}")
  return {path[start:]: _whole(system, path) for path in sorted(found)}


def _below(system, inner: str) -> list[str]:
  if _is_of_disk(system):
    return list(local_files.walk(inner))
  start = len(inner.rstrip("/")) + 1
  return [path for path in system.find(inner) if not any(map(is_left_behind, path[start:].split("/")))]


def names_in(folder: str) -> list[str]:
  """The names of what is in a folder, sorted, without what systems leave behind; none where there is no such folder."""
  try:
    system, inner = _open_system(folder)
    found = system.ls(inner, detail=False) if system.isdir(inner) else []
  except Exception:  # each filesystem has errors of its own
    return []
  return sorted(name for path in found if not is_left_behind(name := posixpath.basename(path.rstrip("/"))))


def is_folder(path: str) -> bool:
  """Whether there is a folder at a path."""
  try:
    system, inner = _open_system(path)
    return system.isdir(inner)
  except Exception:  # each filesystem has errors of its own
    return False


def read(path: str, start: int = 0, length: int | None = None) -> bytes:
  """The bytes of a file from `start` on: `length` of them, or all that follow.

  Raises:
    OSError: it cannot be read, or ends before `start + length`; FileNotFoundError where there is none.
    UserError: the protocol is not known, or its package is missing.
  """
  try:
    if _is_local(path):
      with open(path, "rb") as file:
        file.seek(start)
        data = file.read() if length is None else file.read(length)
    else:
      system, inner = _open_system(path)
      data = system.cat_file(inner, start=start, end=None if length is None else start + length)
  except (UserError, MemoryError):
    raise
  except FileNotFoundError:
    raise FileNotFoundError(f"{path}: no such file") from None
  except Exception as error:  # each filesystem has errors of its own
    raise OSError(f"{path}: cannot be read ({_reason(error)})") from error
  if length is not None and len(data) < length:
    raise OSError(f"{path}: ends at byte {start + len(data)}, before byte {start + length}; it is truncated")
  return data


def beside(path: str) -> Callable[[str], bytes | None]:
  """What reads a file by its name, seen from the folder of `path` and not above it; None where there is none."""

  def found(name: str) -> bytes | None:
    inner = posixpath.normpath(name.replace("\\", "/"))
    if inner.startswith(("/", "..")) or ":" in inner or "\0" in inner:
      return None
    try:
      return read(join(folder_of(path), inner))
    except (OSError, UserError):
      return None

  return found


def open_binary(path: str) -> BinaryIO:
  """A file object that reads, and seeks in, a file. Raises as `read` does."""
  try:
    if _is_local(path):
      return open(path, "rb")
    system, inner = _open_system(path)
    return system.open(inner, "rb")
  except UserError:
    raise
  except FileNotFoundError:
    raise FileNotFoundError(f"{path}: no such file") from None
  except Exception as error:
    raise OSError(f"{path}: cannot be read ({_reason(error)})") from error


def folder_of(path: str) -> str:
  """The folder that holds `path`: "gs://bucket/a" of "gs://bucket/a/b"."""
  return posixpath.dirname(path)


def join(folder: str, path: str) -> str:
  """`path` as seen from `folder`; an absolute path or a URL is itself."""
  return path if "://" in path else posixpath.join(folder, path)


def expand_braces(pattern: str) -> list[str]:
  """The patterns that {a,b} and {000..012} stand for; a range keeps the digits of its first number."""
  braces = _BRACES.search(pattern)
  if not braces:
    return [pattern]
  if bounds := _RANGE.fullmatch(braces[1]):
    low, high = bounds.groups()
    options = [str(number).zfill(len(low)) for number in range(int(low), int(high) + 1)]
  else:
    options = braces[1].split(",")
  before, after = pattern[: braces.start()], pattern[braces.end() :]
  return list(itertools.chain.from_iterable(expand_braces(f"{before}{option}{after}") for option in options))


def _parts(pattern: str) -> list[str]:
  """The patterns without braces that `pattern` stands for; a local folder whose own name has braces keeps them."""
  folder = pattern
  while "{" in (folder := posixpath.dirname(folder)):
    if _is_local(folder) and os.path.isdir(folder):
      return [folder + rest for rest in expand_braces(pattern[len(folder) :])]
  return expand_braces(pattern)


def _match_exactly(path: str) -> list[str]:
  """The file of this name, whatever signs of a pattern are in it; none where there is none."""
  system, inner = _open_system(path)
  try:
    return [_whole(system, inner)] if system.isfile(inner) else []
  except Exception:  # no name that this system could have
    return []


def _match(part: str) -> list[str]:
  system, inner = _open_system(part)
  try:
    if _is_of_disk(system):
      return local_files.match(inner)
    found = system.glob(inner) if _is_glob(part) else [inner]
    return [_whole(system, path) for path in found if _is_wanted(path, inner) and system.isfile(path)]
  except Exception as error:
    raise UserError(f"{part}: cannot be looked up ({_reason(error)})") from None


def _is_wanted(path: str, pattern: str) -> bool:
  """Whether no part of a path is left behind by a system, but for those that the pattern spells."""
  spelt = [part for part in pattern.split("/") if is_left_behind(part)]
  return not any(is_left_behind(name) and not any(fnmatch.fnmatchcase(name, part) for part in spelt)
                 for name in path.split("/"))  # fmt: skip


def _hint(part: str, endings: Sequence[str]) -> str:
  """What is near a pattern that names no file."""
  system, inner = _open_system(part)
  try:
    if system.isdir(inner):
      return _hint_in_folder(part.rstrip("/"), inner, _below(system, inner), endings)
    if _is_glob(part):
      return "no file matches the pattern"
    there = [posixpath.basename(path.rstrip("/")) for path in system.ls(posixpath.dirname(inner), detail=False)]
  except Exception:
    return "nor is there such a folder"
  there = [name for name in there if not is_left_behind(name)]
  if not there:
    return "the folder is empty"
  near = difflib.get_close_matches(posixpath.basename(inner), there, n=3)
  return (
    f"did you mean {' or '.join(map(repr, near))}?"
    if near
    else f"of the {len(there)} names in that folder none is similar"
  )


def _hint_in_folder(folder: str, inner: str, below: Sequence[str], endings: Sequence[str]) -> str:
  """What to give instead of a folder, of which `inner` is the path in its system and `below` are the files."""
  known = [path for path in below if not endings or path.lower().endswith(tuple(endings))]
  if not known:
    return "it is a folder without a file" + (f" that ends in {' or '.join(endings)}" if endings else "")
  direct = [path for path in known if posixpath.dirname(path) == inner.rstrip("/")]
  ending = next((one for one in endings if (direct or known)[0].lower().endswith(one)), "")
  return f"it is a folder: give the files in it, such as {folder}/{'' if direct else '**/'}*{ending}"


def _open_system(path: str):
  """(filesystem of `path`, the path in it)."""
  import fsspec

  protocol = path.partition("://")[0]
  try:
    return fsspec.core.url_to_fs(path)
  except ImportError as error:
    package = _PACKAGES.get(protocol)
    todo = f"pip install {package}" if package else _reason(error)
    raise UserError(f"{path}: reading {protocol}:// needs a package that is not installed; {todo}") from None
  except ValueError as error:
    if "Protocol not known" not in str(error):
      raise UserError(f"{path}: {_reason(error)}") from None
    raise UserError(f"{path}: {protocol!r} is not a known protocol; "
                    f"{nearest(protocol, ('gs', 's3', 'http', 'https', 'file', 'memory'))}") from None  # fmt: skip
  except Exception as error:  # such as no credentials
    raise UserError(f"{path}: cannot be reached ({_reason(error)})") from None


def _whole(system, inner: str) -> str:
  """The path that `_open_system` takes for `inner`."""
  return inner if _is_of_disk(system) else system.unstrip_protocol(inner)


def _is_of_disk(system) -> bool:
  from fsspec.implementations.local import LocalFileSystem

  return isinstance(system, LocalFileSystem)


def _is_local(path: str) -> bool:
  return "://" not in path and not path.startswith("~")


def _is_glob(path: str) -> bool:
  return any(sign in path for sign in "*?[")


def _reason(error: Exception) -> str:
  return one_line(f"{type(error).__name__}: {error}")  # some filesystems give only a path
