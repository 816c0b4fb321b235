"""Folders that a command fills: new or empty at first, and never half full."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from mmcontrast.errors import UserError

_SCRATCH = ".partial"


def check_empty(folder: str | os.PathLike, option: str) -> None:
  """Raises UserError when `folder`, the value of `option`, holds something or is a file."""
  path = pathlib.Path(folder)
  if path.exists() and not path.is_dir():
    raise UserError(f"{option} {folder}: is a file; give an empty folder, or a new one")
  if path.is_dir() and any(one.name != _SCRATCH for one in path.iterdir()):
    raise UserError(f"{option} {folder}: is not empty; give an empty folder, or a new one")


@contextlib.contextmanager
def whole(folder: str | os.PathLike, option: str) -> Iterator[pathlib.Path]:
  """A folder to write into: what is in it at the end of the block becomes what `folder` holds.

  When the block raises, nothing is left. The scratch folder is inside `folder`, which may be a mount of its own.
  Raises UserError at once when `folder`, the value of `option`, holds something or is a file.
  """
  folder = pathlib.Path(folder)
  check_empty(folder, option)
  new, scratch = not folder.exists(), folder / _SCRATCH
  shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
  scratch.mkdir(parents=True)
  try:
    yield scratch
    for path in sorted(scratch.iterdir()):
      path.replace(folder / path.name)
  except UserError as error:
    raise type(error)(str(error).replace(str(scratch), str(folder))) from error.__cause__
  finally:
    shutil.rmtree(scratch, ignore_errors=True)
    if new and not any(folder.iterdir()):
      folder.rmdir()
