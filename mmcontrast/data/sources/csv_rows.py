"""CSV and TSV with a header: rows read on demand by their byte offset. `data.dataset` is "csv:PATTERN"."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data.sources import files
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.sources.jsonl import refuse_compressed
from mmcontrast.data.sources.record import BadRecord
from mmcontrast.data.sources.table import Row, TableSource
from mmcontrast.errors import UserError

DEFAULTS = {"delimiter": None}  # None: a tab in .tsv and .tab, else a comma
_LONGEST_CELL = 2**28  # csv's own limit, of all readers in the process, is too short for base64 images


def open_csv(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None) -> TableSource:
  """Opens the rows of the files that `path` names."""
  return TableSource("csv", CsvRows, path, options, split, DEFAULTS)


class CsvRows:
  """A CSV file. Opening it reads it once; 12 bytes a row stay in memory.

  Raises UserError when it has no header, or its quotes do not close.
  """

  def __init__(self, path: str, fields: Fields):
    refuse_compressed(path)
    csv.field_size_limit(_LONGEST_CELL)
    self.path, self.label_names = path, {}
    self._delimiter = fields.options["delimiter"] or ("\t" if path.endswith((".tsv", ".tab")) else ",")
    if not isinstance(self._delimiter, str) or len(self._delimiter) != 1:
      raise UserError(f"data.source.delimiter: {self._delimiter!r} is not one character")
    self.columns: list[str] = []
    bounds, lines = [0], []
    for start, end, line, cells in self._cells():
      if self.columns:
        bounds[-1:] = start, end
        lines.append(line)
      elif cells is None:
        raise UserError(f"{path}: its header is not UTF-8")
      else:
        self.columns = [cell.strip() for cell in cells]
    if not self.columns:
      raise UserError(f"{path}: is empty; expected a header, the names of the columns")
    if len(set(self.columns)) < len(self.columns):
      raise UserError(f"{path}: its header {self.columns} names a column twice")
    self._bounds = np.array(bounds, np.int64)
    self._lines = np.array(lines, np.int32)

  def __len__(self) -> int:
    return len(self._lines)

  def __getitem__(self, row: int) -> Row:
    start, end = int(self._bounds[row]), int(self._bounds[row + 1])
    data = files.read(self.path, start, end - start)
    try:
      lines = io.StringIO(data.decode(), newline="\n")
      cells = next(filter(None, csv.reader(lines, delimiter=self._delimiter, strict=True)), [])
    except UnicodeDecodeError as error:
      raise BadRecord(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except csv.Error as error:  # the file has changed since it was opened
      raise BadRecord(f"not CSV ({error})") from None
    if len(cells) != len(self.columns):
      raise BadRecord(f"has {len(cells)} cells, the header {len(self.columns)}")
    return dict(zip(self.columns, cells))

  def place(self, row: int) -> str:
    """FILE:LINE."""
    return f"{self.path}:{self._lines[row]}"

  def scan(self, columns: Sequence[str]) -> Iterator[Row]:
    """All rows in order."""
    del columns
    records = self._cells()
    next(records)
    for _, _, _, cells in records:
      yield dict(zip(self.columns, cells)) if cells and len(cells) == len(self.columns) else {}

  def _cells(self) -> Iterator[tuple[int, int, int, list[str] | None]]:
    """(first byte, byte after the last, first line, cells) of each record; no cells where it is not UTF-8."""
    end, line, is_utf8 = 0, 0, True

    def decoded(file) -> Iterator[str]:
      nonlocal end, line, is_utf8
      for data in file:
        end, line = end + len(data), line + 1
        data = data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
        try:
          yield data.decode()
        except UnicodeDecodeError:
          is_utf8 = False
          yield data.decode("latin-1")  # delimiters and quotes are ASCII: the record ends where it ends

    with files.open_binary(self.path) as file:
      reader = csv.reader(decoded(file), delimiter=self._delimiter, strict=True)
      while True:
        start, first_line = end, line + 1
        try:
          cells = next(reader, None)
        except csv.Error as error:
          raise UserError(f"{self.path}:{first_line}: {error}; mend the quotes of this row") from None
        if cells is None:
          return
        if cells:
          yield start, end, first_line, cells if is_utf8 else None
        is_utf8 = True
