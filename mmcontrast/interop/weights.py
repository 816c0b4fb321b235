"""Files of arrays: safetensors (one file, or a sharded one by its index), npz, and torch's where it is asked for."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Mapping

import ml_dtypes  # it gives numpy the bfloat16 of a safetensors file too
import numpy as np

from mmcontrast.errors import UserError, nearest, one_line

Arrays = dict[str, np.ndarray]
TORCH = (".bin", ".pt", ".pth")
_INDEX = ".safetensors.index.json"
_HOLDERS = ("state_dict", "model")  # where a training script's file keeps the arrays


def read_weights(path: str | pathlib.Path, torch: bool = False) -> Arrays:
  """The arrays of a file, by name; floats of any precision as float32.

  Args:
    path: of a .safetensors, .safetensors.index.json, .npz, or, with `torch`, .bin, .pt or .pth file.
    torch: read torch's own files too, by `torch.load(weights_only=True)`, which runs no code of the file.
  Raises UserError when there is no such file, it is damaged, empty, or of another kind.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise UserError(f"{path}: no such file; give the path of a .safetensors or .npz")
  if path.name.endswith(_INDEX):
    arrays = _read_shards(path)
  elif path.suffix == ".safetensors":
    arrays = _read_safetensors(path)
  elif path.suffix == ".npz":
    arrays = _read_npz(path)
  elif path.suffix in TORCH and torch:
    arrays = _read_torch(path)
  elif path.suffix in TORCH:
    raise UserError(f"{path}: torch's files are read by the import command only: mmcontrast import KIND:PATH --workdir "
                    "runs/x; or save it as .safetensors")
  else:
    raise UserError(f"{path}: of no kind that is read; {nearest(path.suffix, ('.safetensors', '.npz', *TORCH))}")
  if not arrays:
    raise UserError(f"{path}: holds no arrays; was it written to the end?")
  return {name: _float32(array) for name, array in arrays.items()}


def write_weights(path: str | pathlib.Path, arrays: Mapping[str, np.ndarray],
                  metadata: Mapping[str, str] | None = None) -> None:
  """Writes a .safetensors file; `metadata` goes into its header."""
  from safetensors.numpy import save_file
  contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
  save_file(contiguous, str(path), metadata=dict(metadata or {"format": "pt"}))
  pathlib.Path(path).chmod(0o644)  # it makes them readable for their owner alone


def _read_safetensors(path: pathlib.Path) -> Arrays:
  from safetensors import SafetensorError
  from safetensors.numpy import load_file
  try:
    return load_file(str(path))
  except (SafetensorError, OSError, TypeError, KeyError) as error:
    raise _damaged(path, error) from None


def _read_shards(index: pathlib.Path) -> Arrays:
  try:
    files = json.loads(index.read_text())["weight_map"]
  except (ValueError, KeyError, TypeError) as error:
    raise _damaged(index, error) from None
  shards = {file: read_weights(index.parent / pathlib.PurePath(file).name) for file in sorted(set(files.values()))}
  if missing := [name for name, file in files.items() if name not in shards[file]]:
    raise UserError(f"{index}: {files[missing[0]]} lacks {missing[0]!r}, which the index says it has; copy it again")
  return {name: shards[file][name] for name, file in files.items()}


def _read_npz(path: pathlib.Path) -> Arrays:
  try:
    with np.load(path, allow_pickle=False) as file:
      return dict(file)
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise _damaged(path, error) from None


def _read_torch(path: pathlib.Path) -> Arrays:
  try:
    import torch
  except ImportError:
    raise UserError(f"{path}: reading it needs torch; pip install torch, or save it as .safetensors") from None
  try:
    found = torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:  # of many kinds: pickle's, zip's, the operating system's
    raise _damaged(path, error) from None
  for holder in _HOLDERS:
    if isinstance(found, Mapping) and isinstance(found.get(holder), Mapping):
      found = found[holder]
  if not isinstance(found, Mapping) or not all(isinstance(leaf, torch.Tensor) for leaf in found.values()):
    raise UserError(f"{path}: not a table of tensors by name; save the state_dict of the model")
  wrapped = all(name.startswith("module.") for name in found)  # by DistributedDataParallel
  return {name.removeprefix("module.") if wrapped else name:
          (leaf.float() if leaf.is_floating_point() else leaf).numpy() for name, leaf in found.items()}


def _float32(array: np.ndarray) -> np.ndarray:
  if array.dtype == np.dtype("V2"):  # what numpy makes of a bfloat16 in an npz
    array = array.view(ml_dtypes.bfloat16)
  # numpy does not count ml_dtypes' kinds ("V") among floats
  return array.astype(np.float32, copy=False) if array.dtype.kind in "fV" else array


def _damaged(path: pathlib.Path, error: Exception) -> UserError:
  return UserError(f"{path}: damaged, or not what its name says ({one_line(error, most=120)}); copy it again")
