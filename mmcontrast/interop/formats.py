"""The formats that are read and written, by name. One more is a file here with `read` and `write`, and a line below.

    read(path, torch, allow_unused) -> Pretrained    path: a folder, or "NAME@FILE" where a file says no architecture
    write(pretrained, out) -> None                   out: an empty folder
"""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
from collections.abc import Sequence

from mmcontrast.errors import UserError, choose
from mmcontrast.folders import whole
from mmcontrast.interop.pretrained import Pretrained


@dataclasses.dataclass(frozen=True)
class Format:
  """A format, whose file is imported when it is used.

  Attributes:
    module: in mmcontrast.interop.
    reads, writes: whether it has `read` and `write`.
  """

  module: str
  reads: bool = True
  writes: bool = True

  def read(self, path: str, torch: bool = False, allow_unused: Sequence[str] = ()) -> Pretrained:
    """What the file or folder at `path` holds.

    Args:
      torch: read torch's .bin, .pt and .pth too.
      allow_unused: regexes of arrays' names that may be left over.
    Raises UserError when it is not there, damaged, or holds what our encoders do not compute.
    """
    return importlib.import_module(f"mmcontrast.interop.{self.module}").read(path, torch, allow_unused)

  def write(self, pretrained: Pretrained, out: str | pathlib.Path) -> None:
    """Writes the folder `out`, which the other package loads.

    Raises UserError where it cannot express an option, and where `out` holds something; then nothing is written.
    """
    with whole(out, "--out") as folder:
      importlib.import_module(f"mmcontrast.interop.{self.module}").write(pretrained, folder)


FORMATS = {
  "open_clip": Format("open_clip"),
  "hf": Format("hugging_face"),
  "timm": Format("timm"),
  "torchvision": Format("torchvision"),
  "detectron2": Format("detectron2", reads=False),
  "big_vision": Format("big_vision", writes=False),
}


def read(place: str, torch: bool = False, allow_unused: Sequence[str] = ()) -> Pretrained:
  """`place`: "KIND:PATH" with a kind of FORMATS that is read. Raises as `Format.read`."""
  kind, colon, path = place.partition(":")
  readable = [name for name, one in FORMATS.items() if one.reads]
  if not colon or not path:
    raise UserError(f"{place}: not KIND:PATH, such as open_clip:DIR; the kinds are {', '.join(readable)}")
  return FORMATS[choose(kind, readable, place)].read(path, torch, allow_unused)
