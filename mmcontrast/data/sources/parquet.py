"""Parquet tables, images embedded or by path. `data.dataset` is "parquet:PATTERN".

Parquet is read by whole row groups, so a row costs the reading of its group unless it is in memory.
A dataset larger than `data.source.cache_bytes` wants small row groups, or to be converted.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.data.sources import files
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.sources.table import Row, TableSource
from mmcontrast.errors import UserError, one_line

_ARROW = ("is Arrow, as datasets' save_to_disk writes, which is not read; write Parquet instead: "
          "dataset.to_parquet('train.parquet')")  # fmt: skip
DEFAULTS = {"cache_bytes": 2**29}  # of row groups in memory, those used last; one group at least


def open_parquet(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None) -> TableSource:
  """Opens the rows of the files that `path` names."""
  if os.path.isdir(path) and any(name.endswith(".arrow") for name in os.listdir(path)):
    raise UserError(f"{path}: {_ARROW}")
  groups = RowGroups(options.get("cache_bytes", DEFAULTS["cache_bytes"]))
  return TableSource("parquet", functools.partial(ParquetTable, groups), path, options, split, DEFAULTS,
                     guesses_captions=True)  # fmt: skip


class RowGroups:
  """The row groups used last, up to a number of bytes."""

  def __init__(self, most_bytes: int):
    if not isinstance(most_bytes, int) or most_bytes < 0:
      raise UserError(f"data.source.cache_bytes: {most_bytes!r} is not a number of bytes")
    self._most, self.bytes = most_bytes, 0
    self._groups: collections.OrderedDict[Any, Any] = collections.OrderedDict()
    self._lock = threading.Lock()

  def get(self, key: Any, read: Callable[[], Any]) -> Any:
    """The pyarrow table at `key`, by `read` where it is not in memory."""
    with self._lock:
      if key in self._groups:
        self._groups.move_to_end(key)
        return self._groups[key]
    group = read()
    with self._lock:
      if key not in self._groups:  # another thread may have read it meanwhile
        self._groups[key] = group
        self.bytes += group.nbytes
      while self.bytes > self._most and len(self._groups) > 1:
        self.bytes -= self._groups.popitem(last=False)[1].nbytes
    return group


class ParquetTable:
  """A Parquet file, of which only the footer stays in memory. UserError when it is none."""

  def __init__(self, groups: RowGroups, path: str, fields: Fields):
    import pyarrow
    import pyarrow.parquet

    self.path, self.note, self._groups = path, "", groups
    with files.open_binary(path) as file:
      try:
        opened = pyarrow.parquet.ParquetFile(file)
      except (pyarrow.ArrowException, OSError) as error:
        if path.endswith(".arrow"):
          raise UserError(f"{path}: {_ARROW}") from None
        raise UserError(f"{path}: is not a readable Parquet file ({one_line(error)})") from None
      self._metadata, self.columns = opened.metadata, opened.schema_arrow.names
      self.label_names = _class_names(opened.schema_arrow.metadata or {})
    sizes = [self._metadata.row_group(group).num_rows for group in range(self._metadata.num_row_groups)]
    self._ends = np.cumsum(sizes, dtype=np.int64)
    self._fields = fields

  def __len__(self) -> int:
    return self._metadata.num_rows

  def __getitem__(self, row: int) -> Row:
    group = int(np.searchsorted(self._ends, row, side="right"))
    table = self._groups.get((self.path, group), lambda: self._read(group, self._wanted()))
    try:
      return table.slice(row - int(self._ends[group]) + table.num_rows, 1).to_pylist()[0]
    except UnicodeDecodeError as error:
      raise BadRecord(f"not UTF-8 ({error.reason} at byte {error.start})") from None

  def place(self, row: int) -> str:
    """FILE, row NUMBER, counted from 0."""
    return f"{self.path}, row {row}"

  def scan(self, columns: Sequence[str]) -> Iterator[Row]:
    """All rows in order, of `columns`."""
    for group in range(len(self._ends)):
      table = self._read(group, list(columns))
      try:
        yield from table.to_pylist()
      except UnicodeDecodeError:  # of one row at least: one by one
        yield from (_row_or_nothing(table, row) for row in range(table.num_rows))

  def _wanted(self) -> list[str]:
    return [column for column in self.columns if column in self._fields.columns]

  def _read(self, group: int, columns: list[str]) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
      with files.open_binary(self.path) as file:
        opened = pyarrow.parquet.ParquetFile(file, metadata=self._metadata)
        return _microseconds(opened.read_row_group(group, columns=columns, use_threads=False))
    except pyarrow.ArrowException as error:
      raise BadRecord(f"row group {group} cannot be read ({one_line(error)})") from None


def _microseconds(table: Any) -> Any:
  """A table without the nanoseconds of pandas' times, which Python's have not: they are no values otherwise."""
  import pyarrow

  for at, field in enumerate(table.schema):
    if (pyarrow.types.is_timestamp(field.type) or pyarrow.types.is_duration(field.type)) and field.type.unit == "ns":
      kind = (pyarrow.duration("us") if pyarrow.types.is_duration(field.type)
              else pyarrow.timestamp("us", field.type.tz))  # fmt: skip
      table = table.set_column(at, field.name, table[field.name].cast(kind, safe=False))
  return table


def _row_or_nothing(table: Any, row: int) -> Row:
  try:
    return table.slice(row, 1).to_pylist()[0]
  except UnicodeDecodeError:
    return {}


def _class_names(metadata: Mapping[bytes, bytes]) -> dict[str, list[str]]:
  """Column -> class names, where Hugging Face's datasets wrote the file."""
  try:
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    return {column: feature["names"] for column, feature in features.items() if feature.get("_type") == "ClassLabel"}
  except (KeyError, ValueError, TypeError, AttributeError):  # another writer, or another version of it
    return {}
