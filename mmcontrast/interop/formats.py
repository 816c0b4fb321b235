"""The formats that are read and written, by name. One more is a file here with `read` and `write`, and a line below.

read(path, how) -> Pretrained     path: a folder, or "NAME@FILE" where a file says no architecture
plan(pretrained, where)           raises UserError for what the format does not have, and looks at no array
write(pretrained, out) -> None    out: an empty folder
"""

from __future__ import annotations

import dataclasses
import importlib
import pathlib
from typing import Any

from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.folders import whole
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.pretrained import Pretrained
from mmcontrast.interop.weights import Reading

# What a field of a config that is null, negative or of another type ends in.
_OF_A_WRONG_VALUE = (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError)


@dataclasses.dataclass(frozen=True)
class Format:
  """A format, whose file is imported when it is used.

  Attributes:
    module: in mmcontrast.interop.
    reads, writes: whether it has `read` and `write`.
    decoders: whether it has decoders of captions; else what is written is the model without its own.
    native: whether it has towers of images that keep their ratio.
  """

  module: str
  reads: bool = True
  writes: bool = True
  decoders: bool = False
  native: bool = False

  def read(self, path: str, **how: Any) -> Pretrained:
    """What the file or folder at `path` holds. `how`: torch, weights, allow_unused of `weights.Reading`.

    Raises UserError when it is not there, damaged, or holds what our encoders do not compute.
    """
    module = importlib.import_module(f"mmcontrast.interop.{self.module}")
    try:
      return module.read(path, Reading(**how))
    except _OF_A_WRONG_VALUE as error:
      if isinstance(error, UserError) and not str(error).startswith(("towers.", "heads.", "config.")):
        raise
      raise UserError(
        f"{path}: a file next to the weights has an invalid value ({type(error).__name__}: "
        f"{one_line(error, 100)}); copy them again from where they come from"
      ) from error

  def plan(self, pretrained: Pretrained, where: str) -> None:
    """Raises UserError, which begins with `where`, for what the format cannot express. Looks at no array's values."""
    self._check_images(pretrained, where)
    importlib.import_module(f"mmcontrast.interop.{self.module}").plan(self._expressed(pretrained), where)

  def write(self, pretrained: Pretrained, out: str | pathlib.Path) -> None:
    """Writes the folder `out`, which the other package loads.

    Raises UserError where it cannot express an option, and where `out` holds something; then nothing is written.
    """
    self._check_images(pretrained, str(out))
    with whole(out, "--out") as folder:
      importlib.import_module(f"mmcontrast.interop.{self.module}").write(self._expressed(pretrained), folder)

  def _check_images(self, pretrained: Pretrained, where: str) -> None:
    if pretrained.image and pretrained.image.patches and not self.native:
      able = " and ".join(f"--to {name}" for name, one in FORMATS.items() if one.native)
      raise UserError(
        f"{where}: {pretrained.key('towers/image')} reads images that keep their ratio (config.data.native.patches), "
        f"which only {able} has"
      )

  def _expressed(self, pretrained: Pretrained) -> Pretrained:
    return pretrained if self.decoders else pretrained.without_decoder()


FORMATS = {
  "open_clip": Format("open_clip", decoders=True),
  "hf": Format("hugging_face", decoders=True, native=True),
  "timm": Format("timm"),
  "torchvision": Format("torchvision"),
  "detectron2": Format("detectron2", reads=False),
  "big_vision": Format("big_vision", writes=False),
}


def read(place: str, **how: Any) -> Pretrained:
  """`place`: "KIND:PATH" with a kind of FORMATS that is read. `how` and what is raised: as `Format.read`."""
  kind, colon, path = place.partition(":")
  readable = [name for name, one in FORMATS.items() if one.reads]
  if not colon or not path:
    raise UserError(f"{place}: not KIND:PATH, such as open_clip:DIR; the kinds are {', '.join(readable)}")
  found = FORMATS[choose(kind, readable, place)]
  folder = pathlib.Path(path)
  if "@" not in path and not folder.exists():
    raise UserError(
      f"{place}: no such file or folder; nothing is downloaded: fetch it first, such as by hf download "
      "NAME --local-dir DIR"
    )
  if (others := _kinds_of(folder)) and kind not in others:
    raise UserError(f"{place}: is a folder of another kind: {' or '.join(f'{other}:{path}' for other in others)}")
  return found.read(path, **how)


def _kinds_of(folder: pathlib.Path) -> list[str]:
  """Of which kinds a folder may be, by the configs in it; a folder may hold one model for several packages."""
  if (folder / "checkpoints").is_dir() and (folder / "config.json").is_file():
    raise UserError(f"{folder}: is a run of mmcontrast already: --workdir {folder}; in config.init '{folder}:*'")
  found = ["open_clip"] if (folder / "open_clip_config.json").is_file() else []
  if (folder / "config.json").is_file():
    config = read_json(folder / "config.json")
    found += [kind for kind, key in (("hf", "model_type"), ("timm", "architecture")) if key in config]
  return found
