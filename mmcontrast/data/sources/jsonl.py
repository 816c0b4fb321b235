"""JSON lines: a row a line, read on demand by its byte offset. `data.dataset` is "jsonl:PATTERN"."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.data.sources import files
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.sources.other_files import refuse_other_files
from mmcontrast.data.sources.table import Row, TableSource
from mmcontrast.errors import UserError

_CHUNK = 2**23  # bytes
_LOOKED_AT = 100  # rows that say what columns there are: one row may leave some out


def open_jsonl(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None) -> TableSource:
  """Opens the rows of the files that `path` names."""
  return TableSource("jsonl", JsonLines, path, options, split, guesses_captions=True)


class JsonLines:
  """A file of JSON lines. Opening it reads it once; 20 bytes a row stay in memory."""

  def __init__(self, path: str, fields: Fields):
    del fields
    refuse_other_files(path, "jsonl")
    self.path, self.label_names, self.note = path, {}, ""
    newlines, offset = [], 0
    with files.open_binary(path) as file:
      while chunk := file.read(_CHUNK):
        newlines.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + offset)
        offset += len(chunk)
    bounds = np.concatenate([[-1], *newlines, [offset]])
    lines = np.flatnonzero(np.diff(bounds) > 2)  # what is shorter holds no row: it is empty, or a carriage return
    self._starts, self._ends, self._lines = bounds[lines] + 1, bounds[lines + 1], lines.astype(np.int32) + 1
    self.columns = self._columns()

  def _columns(self) -> tuple[str, ...]:
    found, reason = {}, ""
    with files.open_binary(self.path) as file:
      for line in itertools.islice((line for line in file if _holds_a_row(line)), _LOOKED_AT):
        try:
          found |= dict.fromkeys(_parse(line))
        except BadRecord as error:
          reason = reason or str(error)
    if reason and not found:
      raise UserError(f"{self.path}: its first row is {reason}; expected one JSON object per line")
    return tuple(found)

  def __len__(self) -> int:
    return len(self._starts)

  def __getitem__(self, row: int) -> Row:
    start, end = int(self._starts[row]), int(self._ends[row])
    return _parse(files.read(self.path, start, end - start))

  def place(self, row: int) -> str:
    """FILE:LINE."""
    return f"{self.path}:{self._lines[row]}"

  def scan(self, columns: Sequence[str]) -> Iterator[Row]:
    """All rows in order."""
    del columns
    with files.open_binary(self.path) as file:
      for line in file:
        if _holds_a_row(line):
          try:
            yield _parse(line)
          except BadRecord:
            yield {}


def _holds_a_row(line: bytes) -> bool:
  return len(line.removesuffix(b"\n")) > 1


def _parse(line: bytes) -> Row:
  try:
    row = json.loads(line.decode("utf-8-sig"))
  except UnicodeDecodeError as error:
    raise BadRecord(f"not UTF-8 ({error.reason} at byte {error.start})") from None
  except (ValueError, RecursionError) as error:
    raise BadRecord(f"not JSON ({error})") from None
  if not isinstance(row, dict):
    raise BadRecord(f"a {type(row).__name__}, not a table of columns")
  return row
