"""Files as torch.save and torch.jit.save write them, made without torch: pickles put together opcode by opcode."""

import dataclasses
import io
import json
import pickle
import zipfile

import numpy as np

STORAGES = {
  "float32": "FloatStorage",
  "float16": "HalfStorage",
  "bfloat16": "BFloat16Storage",
  "int64": "LongStorage",
  "bool": "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C


@dataclasses.dataclass(frozen=True)
class Call:
  """An object that a pickle makes by calling MODULE.NAME; `state` is what it then sets, `new` by cls.__new__."""

  module: str
  name: str
  arguments: tuple = ()
  state: object = None
  new: bool = False


def parameter(array):
  """A torch.nn.Parameter, which requires grad."""
  return Call("torch._utils", "_rebuild_parameter", (array, True, Call("collections", "OrderedDict")))


def module(path, **state):
  """An object of a class as TorchScript names them."""
  holder, _, name = path.rpartition(".")
  return Call(holder, name, state=state, new=True)


def save(path, tree, top="archive", script=""):
  """Writes `tree`, in which arrays are tensors, as the zip archive of torch 1.6 and later.

  `script`: the program of a TorchScript archive.
  """
  storages = []
  with zipfile.ZipFile(path, "w") as file:
    file.writestr(f"{top}/data.pkl", b"\x80\x02" + _emit(tree, storages) + b".")
    file.writestr(f"{top}/byteorder", "little")
    for key, array in enumerate(storages):
      file.writestr(f"{top}/data/{key}", array.tobytes())
    if script:
      file.writestr(f"{top}/code/__torch__.py", script)
      file.writestr(f"{top}/constants.pkl", pickle.dumps((), 2))


def save_stream(path, tree):
  """The same as the stream of pickles before 1.6."""
  storages, out = [], io.BytesIO()
  body = b"\x80\x02" + _emit(tree, storages) + b"."
  for value in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
    pickle.dump(value, out, 2)
  out.write(body)
  pickle.dump([str(key) for key in range(len(storages))], out, 2)
  for array in storages:
    out.write(np.int64(array.size).tobytes() + array.tobytes())
  path.write_bytes(out.getvalue())


def save_index(path, parts):
  """An index of several files: file name -> names of its arrays."""
  path.write_text(json.dumps({"weight_map": {name: file for file, names in parts.items() for name in names}}))


def _emit(value, storages):
  if isinstance(value, np.ndarray):
    contiguous = np.ascontiguousarray(value.T if value.flags.f_contiguous and value.ndim > 1 else value)
    strides = tuple(stride // value.itemsize for stride in value.strides)
    storages.append(contiguous)
    storage = (
      b"("
      + b"".join(
        _emit(one, storages)
        for one in ("storage", Call("torch", STORAGES[value.dtype.name]), str(len(storages) - 1), "cpu", value.size)
      )
      + b"tQ"
    )
    rest = [_emit(one, storages) for one in (0, value.shape, strides, False, Call("collections", "OrderedDict"))]
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"".join(rest) + b"tR"
  if isinstance(value, Call):
    name = f"c{value.module}\n{value.name}\n".encode()
    if value.module == "torch":
      return name
    made = name + _emit(value.arguments, storages) + (b"\x81" if value.new else b"R")
    return made if value.state is None else made + _emit(value.state, storages) + b"b"
  if isinstance(value, dict):
    return b"}(" + b"".join(_emit(one, storages) for pair in value.items() for one in pair) + b"u"
  if isinstance(value, tuple | list):
    return b"(" + b"".join(_emit(one, storages) for one in value) + (b"t" if isinstance(value, tuple) else b"l")
  return pickle.dumps(value, 2)[2:-1]
