"""Files that `torch.save` and `torch.jit.save` write, read without torch and without running anything of theirs.

Such a file is a pickle and raw numbers. A pickle calls what it names; here it can call a short list of functions of
this module, which make tensors and containers. Every other name, of a class that this machine may not even have,
becomes an `Other`, which keeps what it is given and does nothing: a Namespace, a numpy scalar, a state of an optimizer,
a whole model. Tensors are read from the file when `Tensor.array` is called, so those nobody wants are never read.

Formats: zip archives of torch 1.6 and later, TorchScript archives, and the stream of pickles of earlier versions.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import math
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from mmcontrast.errors import UserError

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # of the older format, after two bytes of the pickle's protocol
# A pickle is given names of types, which nothing in it can change: (module's attribute) -> numpy's name.
_STORAGES = {
  "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
  "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
  "BoolStorage": "bool", "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
  "UntypedStorage": "uint8",
}  # fmt: skip
_OF_ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_DTYPES = {*_STORAGES.values(), *_OF_ML_DTYPES, "uint16", "uint32", "uint64"}


@dataclasses.dataclass(frozen=True)
class Storage:
  """Raw numbers of a file, of numpy's type `dtype`. `read` gives them as they are in the file."""

  dtype: str
  read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Which numbers of a storage, as of type `dtype`, make an array."""

  storage: Storage
  dtype: str
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]

  def array(self) -> np.ndarray:
    """The numbers, read now. Raises ValueError when the file has fewer than the tensor says."""
    dtype = _type(self.dtype)
    flat = np.frombuffer(self.storage.read(), dtype)
    last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
    if min(self.offset, 0, *self.shape, *self.strides) < 0 or (math.prod(self.shape) and last >= len(flat)):
      raise ValueError(f"a tensor of {list(self.shape)} in {len(flat)} numbers")
    bytes_apart = [stride * dtype.itemsize for stride in self.strides]
    return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, bytes_apart)


class Other(dict):
  """What stands for an object of a class that is not known here: its items, and its `state`; nothing of it runs."""

  path = ""  # MODULE.NAME of the class
  state: Any = None

  def __new__(cls, *_: Any, **__: Any) -> Other:
    return super().__new__(cls)

  def __init__(self, *_: Any, **__: Any):
    super().__init__()

  def __setstate__(self, state: Any) -> None:
    self.state = state

  def append(self, _: Any) -> None:
    """As a list would; forgotten."""

  def extend(self, _: Any) -> None:
    """As a list would; forgotten."""

  add = append
  __hash__ = object.__hash__
  __eq__ = object.__eq__


def load(path: pathlib.Path) -> Any:
  """What the file holds: dicts, lists and values, `Tensor`s, and `Other`s.

  Raises an error of many kinds when it is damaged; UserError when it is of another machine's byte order.
  """
  return _load_zip(path) if zipfile.is_zipfile(path) else _load_stream(path)


def named_tensors(module: Other, prefix: str = "") -> dict[str, Any]:
  """The tensors of a whole model that was saved, pickled or as TorchScript, by the names of its state_dict."""
  state = module.state if isinstance(module.state, Mapping) else {}
  if "_parameters" in state:  # of torch.nn.Module
    transient = state.get("_non_persistent_buffers_set") or ()
    buffers = {name: leaf for name, leaf in (state.get("_buffers") or {}).items() if name not in transient}
    leaves, inner = {**state["_parameters"], **buffers}, state.get("_modules") or {}
  else:  # of TorchScript
    leaves, inner = state, {name: leaf for name, leaf in state.items() if isinstance(leaf, Other)}
  found = {prefix + name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
  for name, leaf in inner.items():
    if isinstance(leaf, Other):
      found |= named_tensors(leaf, f"{prefix}{name}.")
  return found


def program_has(path: pathlib.Path, number: float) -> bool:
  """Whether `number` is in the program of a TorchScript archive, written in its code or among its constants."""
  if not zipfile.is_zipfile(path):
    return False
  with zipfile.ZipFile(path) as archive:
    code = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
    constants = [name for name in archive.namelist() if "/constants/" in name] if code else []
    raw = np.float64(number).tobytes()
    return any(str(number).encode() in archive.read(name) for name in code) or any(
      archive.getinfo(name).file_size == len(raw) and archive.read(name) == raw for name in constants
    )


class _Unpickler(pickle.Unpickler):
  """Names become the functions below, names of types, or `Other`s. `storage`: (key, dtype, count) -> its bytes."""

  def __init__(self, file: BinaryIO, storage: Callable[[str, str, int], Callable[[], bytes]] | None = None):
    super().__init__(file)
    self._storage = storage

  def find_class(self, module: str, name: str) -> Any:
    if (known := _KNOWN.get((module, name))) is not None:
      return known
    if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
      return _STORAGES[name]
    if module == "torch" and name in _DTYPES:
      return name
    return type(name.rpartition(".")[2], (Other,), {"path": f"{module}.{name}"})

  def persistent_load(self, pid: Any) -> Any:
    if pid[0] == "module":  # the older format keeps the source of a class beside it
      return pid[1]
    _, dtype, key, _, count, *view = pid
    if self._storage is None or dtype not in _DTYPES or any(view):
      raise pickle.UnpicklingError(f"a storage of a kind that is not read ({getattr(dtype, 'path', dtype)})")
    return Storage(dtype, self._storage(str(key), dtype, count))


def _load_zip(path: pathlib.Path) -> Any:
  with zipfile.ZipFile(path) as archive:
    names = archive.namelist()
    top = next(name for name in names if name.rpartition("/")[2] == "data.pkl").removesuffix("data.pkl")
    if f"{top}byteorder" in names and archive.read(f"{top}byteorder") != b"little":
      raise _big_endian(path)
    data = io.BytesIO(archive.read(f"{top}data.pkl"))

  @functools.lru_cache(maxsize=1)  # tensors of one storage mostly follow each other
  def read(key: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
      return archive.read(f"{top}data/{key}")

  return _Unpickler(data, lambda key, *_: functools.partial(read, key)).load()


def _load_stream(path: pathlib.Path) -> Any:
  sizes: dict[str, int] = {}  # of one number of a storage, in bytes
  places: dict[str, tuple[int, int]] = {}  # where the numbers of a storage begin, and how many bytes they are

  @functools.lru_cache(maxsize=1)
  def read(key: str) -> bytes:
    at, count = places[key]
    with path.open("rb") as file:
      file.seek(at)
      return file.read(count)

  def storage(key: str, dtype: str, _: int) -> Callable[[], bytes]:
    sizes[key] = _type(dtype).itemsize
    return functools.partial(read, key)

  with path.open("rb") as file:
    if not file.peek(len(MAGIC) + 2)[2:].startswith(MAGIC):
      raise ValueError("a pickle that torch.save did not write")
    _, _, system = (_Unpickler(file).load() for _ in range(3))  # a magic number, the version, the machine
    if not system.get("little_endian", True):
      raise _big_endian(path)
    tree, keys = _Unpickler(file, storage).load(), _Unpickler(file).load()
    for key in map(str, keys):
      count = int.from_bytes(file.read(8), "little") * sizes[key]
      places[key] = file.tell(), count
      file.seek(count, io.SEEK_CUR)
  return tree


def _big_endian(path: pathlib.Path) -> UserError:
  return UserError(f"{path}: its numbers are big-endian, of another kind of machine; save it as .safetensors there")


def _type(name: str) -> np.dtype:
  return np.dtype(getattr(ml_dtypes, name) if name in _OF_ML_DTYPES else name)


def _tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
  return Tensor(storage, storage.dtype, offset, tuple(shape), tuple(strides))


def _typed_tensor(
  storage: Storage, offset: int, shape: tuple, strides: tuple, _: Any, __: Any, dtype: str, *___: Any
) -> Tensor:
  return Tensor(storage, dtype, offset, tuple(shape), tuple(strides))


def _first(value: Any, *_: Any) -> Any:
  return value


def _subclass(make: Callable, _: Any, arguments: tuple, *__: Any) -> Any:
  """A tensor of a subclass, or one with attributes: `make` is of this module, as all that a pickle can name."""
  return make(*arguments)


_KNOWN: dict[tuple[str, str], Any] = {
  ("torch._utils", "_rebuild_tensor"): _tensor, ("torch._utils", "_rebuild_tensor_v2"): _tensor,
  ("torch._utils", "_rebuild_tensor_v3"): _typed_tensor, ("torch._utils", "_rebuild_parameter"): _first,
  ("torch._utils", "_rebuild_parameter_with_state"): _first, ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
  ("torch.jit._pickle", "restore_type_tag"): _first, ("torch", "Size"): tuple,
  ("collections", "OrderedDict"): collections.OrderedDict,
  **{(module, name): kind for module in ("builtins", "__builtin__")
     for name, kind in (("dict", dict), ("list", list), ("tuple", tuple), ("set", set), ("frozenset", frozenset))},
}  # fmt: skip
