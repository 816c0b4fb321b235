"""Where a picture is written: known, and refused, before there is anything to draw; and what is kept beside it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from mmcontrast.errors import UserError
from mmcontrast.folders import Folder, at, written


def png_path(path: str | os.PathLike, option: str) -> Folder:
  """`path` of a picture, the value of `option`: .png is added where it has no suffix.

  Raises UserError where it has another suffix or is a folder.
  """
  path = at(path, option)
  if path.is_dir():
    raise UserError(f"{option} {path}: is a folder; give the file to write, such as {path / 'picture.png'}")
  if not path.suffix:
    path = path.with_name(f"{path.name}.png")
  if path.suffix.lower() != ".png":
    raise UserError(
      f"{option} {path}: pictures are written as PNG; give a name that ends in .png, such as {path.with_suffix('.png')}"
    )
  return path


def keep_files(path: Folder, files: Sequence[tuple[str, bytes] | None]) -> list[Folder]:
  """Writes what is shown and can be heard beside the picture at `path`: "found-1.wav" of found.png's first tile.

  Args:
    files: (suffix, bytes) of each tile, None where it is a picture only.

  Raises:
    UserError: there is no room.
  """
  kept = []
  for number, file in enumerate(files, 1):
    if file is not None:
      suffix, data = file
      kept.append(path.with_name(f"{path.stem}-{number}{suffix}"))
      with written(kept[-1]) as scratch:
        scratch.write_bytes(data)
  return kept
