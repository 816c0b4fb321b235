"""Where a picture is written: known, and refused, before there is anything to draw."""

from __future__ import annotations

import os

from mmcontrast.errors import UserError
from mmcontrast.folders import Folder, at


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
