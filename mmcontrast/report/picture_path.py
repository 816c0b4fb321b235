"""Where a picture is written: known, and refused, before there is anything to draw."""

from __future__ import annotations

import os
import pathlib

from mmcontrast.errors import UserError


def png_path(path: str | os.PathLike, option: str) -> pathlib.Path:
  """`path` of a picture, the value of `option`: .png is added where it has no suffix.

  Raises UserError where it has another suffix or is a folder.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f"{option} {path}: is a folder; give the file to write, such as {path / 'picture.png'}")
  if not path.suffix:
    path = path.with_name(f"{path.name}.png")
  if path.suffix.lower() != ".png":
    raise UserError(
      f"{option} {path}: pictures are written as PNG; give a name that ends in .png, such as {path.with_suffix('.png')}"
    )
  return path
