"""Folders that a command writes into: on this machine, writable, and never left half full."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator

from mmcontrast.errors import UserError

_SCRATCH = ".partial"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # pathlib makes one slash of two; C:/ is a drive
# What a disk, a mount or its owner says, never a mistake in the program.
_OF_THE_SYSTEM = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
  errno.ENOTDIR,
  errno.EISDIR,
  errno.ENAMETOOLONG,
  errno.EIO,
  errno.ESTALE,
  errno.ELOOP,
)


def local(path: str | os.PathLike, option: str) -> pathlib.Path:
  """`path`, the value of `option`. Raises UserError when it is a URL: runs and results are written to local folders."""
  if _URL.match(os.fspath(path)):
    raise UserError(
      f"{option} {os.fspath(path)}: is a URL, and only folders on this machine can be written; give a "
      "local "
      "or mounted folder, and copy it to the bucket afterwards"
    )
  if not os.fspath(path).strip():
    raise UserError(f"{option} is empty; give a folder")
  return pathlib.Path(path).expanduser()


def make(folder: str | os.PathLike, option: str) -> pathlib.Path:
  """`folder`, the value of `option`, made with its parents where it is not there. Raises UserError when it is a URL
  or a file, or cannot be made or written into."""
  path = local(folder, option)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    if os.path.exists(path) and not os.path.isdir(path):
      raise UserError(f"{option} {folder}: is a file; give a folder") from error
    raise UserError(
      f"{option} {folder}: cannot be written to ({error.strerror}: {error.filename or path}); give a folder that can"
    ) from error
  return path


def of_the_system(error: OSError) -> str | None:
  """One line about an `error` of the disk or of permissions, with the path; None when it is of another kind."""
  if error.errno not in _OF_THE_SYSTEM:
    return None
  return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)


def check_empty(folder: str | os.PathLike, option: str) -> None:
  """Raises UserError when `folder`, the value of `option`, holds something or is a file or a URL."""
  path = local(folder, option)
  if os.path.exists(path) and not os.path.isdir(path):
    raise UserError(f"{option} {folder}: is a file; give an empty folder, or a new one")
  if os.path.isdir(path) and any(one.name != _SCRATCH for one in path.iterdir()):
    raise UserError(f"{option} {folder}: is not empty; give an empty folder, or a new one")


@contextlib.contextmanager
def whole(folder: str | os.PathLike, option: str) -> Iterator[pathlib.Path]:
  """A folder to write into: what is in it at the end of the block becomes what `folder` holds.

  When the block raises, nothing is left, nor any folder that was made on the way. The scratch folder is inside
  `folder`, which may be a mount of its own.
  Raises UserError at once when `folder`, the value of `option`, holds something, is a file or a URL, or cannot be
  made.
  """
  folder = local(folder, option)
  check_empty(folder, option)
  new, scratch = [path for path in (folder, *folder.parents) if not os.path.exists(path)], folder / _SCRATCH
  make(folder, option)
  shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
  scratch.mkdir()
  try:
    yield scratch
    for path in sorted(scratch.iterdir()):
      path.replace(folder / path.name)
  except UserError as error:
    raise type(error)(str(error).replace(str(scratch), str(folder))) from error.__cause__
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
    for path in new:  # from the inside out, as far as they are empty
      if any(path.iterdir()):
        break
      path.rmdir()
