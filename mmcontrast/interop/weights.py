"""Files of arrays: safetensors and torch's, one or several by their index, and npz. Content decides, not the suffix."""

from __future__ import annotations

import dataclasses
import pathlib
import sys
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes  # it gives numpy the bfloat16 of a safetensors file too
import numpy as np

from mmcontrast.errors import UserError, nearest, one_line
from mmcontrast.interop import torch_file
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.wrappings import choose_table, unwrapped

Arrays = dict[str, np.ndarray]
TORCH = (".bin", ".pt", ".pth", ".ckpt", ".tar")
NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_INDEX = ".index.json"
_NEITHER = {  # what a file may begin with instead -> what to do
  b"version https://git-lfs": "a pointer of Git LFS, not the weights: git lfs pull",
  b"<": "a web page, not the weights: the download failed; download it again",
  b"\x1f\x8b": "compressed by gzip: unpack it first",
  b"\x89HDF": "of HDF5 (Keras), which is not read: save it as .safetensors",
}


@dataclasses.dataclass(frozen=True)
class Reading:
  """How files of weights are read.

  Attributes:
    torch: torch's files too, which are pickles. They are read without running anything of theirs (torch_file.py).
    weights: which of several in one file: see `wrappings.choose_table`.
    allow_unused: regexes of arrays' names that may be left over.
  """

  torch: bool = False
  weights: str = ""
  allow_unused: Sequence[str] = ()


PLAIN = Reading()


def read_weights(path: str | pathlib.Path, torch: bool = False, weights: str = "") -> Arrays:
  """The arrays of a file, by name without what wrappers of training put before it; floats of any precision as float32.

  What was chosen among several, or taken off the names, is said in a line.

  Args:
    path: of a file of safetensors, torch or npz, or of the .index.json of several.
    torch, weights: of `Reading`.
  Raises UserError when there is no such file, it is damaged, empty, or of another kind.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(
      f"{path}: a folder; give the file of weights in it"
      if path.is_dir()
      else f"{path}: no such file; give the path of a .safetensors or .npz"
    )
  tree = _read(path, torch)
  if type(tree) is dict and not tree:
    raise UserError(f"{path}: holds no arrays; was it written to the end?")
  table, chosen = choose_table(tree, str(path), weights)
  plain, taken_off = unwrapped(table)
  for said in filter(None, (chosen, taken_off)):
    print(f"{path}: {said}", file=sys.stderr)
  try:
    return {
      name: _float32(leaf.array() if isinstance(leaf, torch_file.Tensor) else leaf) for name, leaf in plain.items()
    }
  except Exception as error:  # of many kinds: of the archive, of the numbers
    raise _damaged(path, error) from None


def find_weights(folder: pathlib.Path, more: Sequence[str] = ()) -> pathlib.Path:
  """The file of weights in `folder`, by the usual names or one of `more`; torch's last. Else the only one of a suffix
  of weights, such as epoch_3.pt.

  Raises UserError when there is none, naming what is there instead.
  """
  found = [folder / name for name in (*more, *NAMES) if (folder / name).is_file()]
  found.sort(key=lambda file: any(suffix in file.suffixes for suffix in TORCH))
  if not found:
    there = sorted(file.name for file in folder.iterdir())
    weights = [name for name in there if name.endswith((".safetensors", *TORCH)) and (folder / name).is_file()]
    if len(weights) == 1:
      return folder / weights[0]
    if weights:
      raise UserError(
        f"{folder}: it is not known which of {', '.join(weights)} is meant; leave one in the folder, or "
        f"call it {(*more, *NAMES)[0]}"
      )
    raise UserError(f"{folder}: no weights there, such as {(*more, *NAMES)[0]}; {nearest(NAMES[0], there)}")
  return found[0]


def write_weights(
  path: str | pathlib.Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
  """Writes a .safetensors file; `metadata` goes into its header."""
  from safetensors.numpy import save_file

  contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
  save_file(contiguous, str(path), metadata=dict(metadata or {"format": "pt"}))
  pathlib.Path(path).chmod(0o644)  # it makes them readable for their owner only


def _read(path: pathlib.Path, torch: bool) -> Any:
  """What a file holds: name -> array, or what `torch_file.load` gives."""
  kind = _kind(path)
  if kind == "index":
    return _read_shards(path, torch)
  if kind == "torch" and not torch:
    raise UserError(
      f"{path}: torch's files are read by the import command only: mmcontrast import KIND:PATH --workdir "
      "runs/x; or save it as .safetensors"
    )
  try:
    if kind == "torch":
      return torch_file.load(path)
    if kind == "npz":
      with np.load(path, allow_pickle=False) as file:
        return dict(file)
    from safetensors.numpy import load_file

    return load_file(str(path))
  except UserError:
    raise
  except Exception as error:  # of many kinds: the pickle's, the archive's, the operating system's
    raise _damaged(path, error) from None


def _kind(path: pathlib.Path) -> str:
  """ "safetensors", "torch", "npz" or "index": by what it begins with, else by its name. UserError for none of them."""
  with path.open("rb") as file:
    head = file.read(512)
  for beginning, what in _NEITHER.items():
    if head.startswith(beginning):
      raise UserError(f"{path}: {what}")
  if head[257:262] == b"ustar":
    raise UserError(f"{path}: a tar archive; unpack it and give the file of weights in it")
  if head.startswith((b"PK\3\4", b"PK\5\6")):
    names = zipfile.ZipFile(path).namelist() if zipfile.is_zipfile(path) else ()
    return "torch" if any(name.rpartition("/")[2] == "data.pkl" for name in names) else "npz"
  if head[2:].startswith(torch_file.MAGIC):
    return "torch"
  if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
    return "safetensors"
  by_name = {".safetensors": "safetensors", ".npz": "npz", **dict.fromkeys(TORCH, "torch")}
  if path.name.endswith(_INDEX):
    return "index"
  if path.suffix not in by_name:
    raise UserError(f"{path}: of a kind that cannot be read; {nearest(path.suffix, by_name)}")
  return by_name[path.suffix]


def _read_shards(index: pathlib.Path, torch: bool) -> Arrays:
  files = read_json(index).get("weight_map")
  if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
    raise UserError(f"{index}: has no weight_map, which says the file of each array; copy it again")
  names = sorted(set(files.values()))
  places = {file: index.parent / pathlib.PurePath(file).name for file in names}
  for place in places.values():
    if not place.is_file():
      raise UserError(f"{place}: no such file, and {index.name} says that weights are in it; copy it too")
  shards = {file: _read(place, torch) for file, place in places.items()}
  if missing := [name for name, file in files.items() if name not in shards[file]]:
    raise UserError(f"{index}: {files[missing[0]]} lacks {missing[0]!r}, which the index says it has; copy it again")
  return {name: shards[file][name] for name, file in files.items()}


def _float32(array: np.ndarray) -> np.ndarray:
  if array.dtype == np.dtype("V2"):  # what numpy makes of a bfloat16 in an npz
    array = array.view(ml_dtypes.bfloat16)
  # numpy does not count ml_dtypes' kinds ("V") among floats
  return array.astype(np.float32, copy=False) if array.dtype.kind in "fV" else array


def _damaged(path: pathlib.Path, error: Exception) -> UserError:
  return UserError(f"{path}: damaged, or not what its name says ({one_line(error, most=120)}); copy it again")
