"""Files that `mmcontrast data convert` writes: ArrayRecord, a record a MessagePack message.

metadata.json next to them holds the schema (`Info`), the split, and the files with their counts.
Neither can hold code.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmcontrast.data.record import BadRecord, Info, Record, Region
from mmcontrast.data.sources import files
from mmcontrast.errors import MissingData, UserError, one_line
from mmcontrast.registry import check_options

METADATA, TOKENIZER = "metadata.json", "tokenizer.model"
_FORMAT = 1  # of the messages and of metadata.json


class ArrayRecordSource:
  """Records of converted files.

  Args:
    path: their folder, or a pattern of some of them; {split} stands for the split.

  Raises:
    UserError: no such file, not of a finished conversion, of another split, or an option, of which there are none.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    check_options(options, (), "array_record, whose options are those of convert: data.source")
    if "://" in path:
      raise UserError(f"data.dataset: array_record reads from a disk, not {path!r}; mount it, or copy it here")
    path = os.path.expanduser(path.replace("{split}", split))
    found = None if os.path.isdir(path) else files.find(path)
    folder = pathlib.Path(path if found is None else os.path.dirname(found[0]))
    table = _read_metadata(folder)
    if table["split"] != split:
      raise UserError(f"{folder}: holds split {table['split']!r}, not data.split {split!r}; set it so, or convert that")
    counts = table["files"] if found is None else {os.path.basename(file): 0 for file in found}
    if strange := set(counts) - set(table["files"]):
      raise UserError(f"{folder / min(strange)}: not one of the files of {folder / METADATA}")
    self._files = [_File(str(folder / file), table["files"][file]) for file in counts if table["files"][file]]
    if not self._files:
      raise UserError(f"{path}: no record in {len(counts)} files")
    self._ends = list(itertools.accumulate(file.take for file in self._files))
    self._data = ArrayRecordDataSource(self._files)
    self.info = _info(table["info"], folder)

  def __len__(self) -> int:
    return self._ends[-1]

  def __getitem__(self, index: int) -> Record:
    file = self._files[at := bisect.bisect_right(self._ends, index)]
    with reading(f"{file.filename}:{index - self._ends[at] + file.take}"):
      return unpack(self._data[index], len(self.info.tag_names))


@dataclasses.dataclass(frozen=True)
class _File:
  """A file and its count, in array_record's terms: given these it need not open every file at the start."""

  filename: str
  take: int
  skip: int = 0

  @property
  def examples_in_shard(self) -> int:
    return self.take


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
  """Turns what array_record raises into BadRecord where the data is damaged, OSError where it cannot be read."""
  try:
    yield
  except RuntimeError as error:
    kind = BadRecord if "orrupt" in str(error) else OSError
    raise kind(f"{where}: {one_line(error)}") from None


def pack(record: Record) -> bytes:
  """The message of a record; tags are the numbers of those that it has."""
  import msgpack

  return msgpack.packb({**record, "tags": np.flatnonzero(record["tags"]).tolist()})


def unpack(message: bytes, tag_count: int) -> Record:
  """Inverse of `pack`."""
  import msgpack

  record = msgpack.unpackb(message)
  tags = np.zeros(tag_count, np.uint8)
  tags[record["tags"]] = 1
  regions = {"regions": [Region(tuple(box), tuple(texts)) for box, texts in record.get("regions", ())]}
  return {**record, "tags": tags, **(regions if "regions" in record else {})}


def write_metadata(folder: pathlib.Path, info: Info, split: str, counts: Mapping[str, int], **more: Any) -> None:
  """Writes metadata.json, and the tokenizer that `info` names; with it a conversion is finished.

  Args:
    counts: records of each file, by its name in `folder`.
    more: what else a reader of the file may want to know.
  """
  schema = {field.name: getattr(info, field.name) for field in dataclasses.fields(info)}
  if info.tokenizer:
    (folder / TOKENIZER).write_bytes(info.tokenizer.read_bytes())
  schema["tokenizer"] = TOKENIZER if info.tokenizer else None
  table = {"format": _FORMAT, "split": split, "files": dict(counts), "info": schema, **more}
  scratch = folder / f".{METADATA}"
  scratch.write_text(json.dumps(table, indent=1, ensure_ascii=False, default=dict) + "\n", encoding="utf-8")
  scratch.replace(folder / METADATA)


def _read_metadata(folder: pathlib.Path) -> dict:
  try:
    table = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    if table["format"] == _FORMAT:
      return table
    raise UserError(f"{folder / METADATA}: of format {table['format']}, not {_FORMAT}; convert the data again")
  except OSError:
    raise MissingData(f"{folder}: no {METADATA}, so no finished conversion; run (again): mmcontrast data convert "
                      f"SOURCE --to array_record --out {folder}") from None  # fmt: skip
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(f"{folder / METADATA}: not what convert writes ({error!r}); convert the data again") from error


def _info(schema: Mapping[str, Any], folder: pathlib.Path) -> Info:
  schema = _tuples(schema)
  return Info(**schema | {"tokenizer": folder / TOKENIZER if schema["tokenizer"] else None})


def _tuples(value: Any) -> Any:
  """`value` with its lists as tuples, which JSON does not have."""
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
