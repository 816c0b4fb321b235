"""CSV and TSV with a header: rows read on demand by their byte offset. `data.dataset` is "csv:PATTERN"."""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.data.sources import files
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.sources.other_files import refuse_other_files
from mmcontrast.data.sources.table import Row, TableSource
from mmcontrast.errors import UserError

DEFAULTS = {
  "delimiter": None,  # None: a tab in .tsv and .tab, else a comma
  "quote": '"',  # round a cell that holds delimiters or line ends, written twice within it; None: it is any character
  "encoding": "utf-8",
  # Texts that say that there is nothing: a table of text has no other way. What pandas writes of NaN, NA and NaT.
  "missing": ("NaN", "nan", "<NA>", "NaT"),
}
_DELIMITERS = ",;\t|"
_LONGEST_CELL = 2**28  # csv's own limit, of all readers in the process, is too short for base64 images


def open_csv(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None) -> TableSource:
  """Opens the rows of the files that `path` names."""
  return TableSource("csv", CsvRows, path, options, split, DEFAULTS)


class CsvRows:
  """A CSV file. Opening it reads it once; 12 bytes a row stay in memory.

  Its note says where a cell is written over several lines: of quotes that are only text, rows become one.

  Raises UserError when it has no header, or its quotes do not close.
  """

  def __init__(self, path: str, fields: Fields):
    refuse_other_files(path, "csv")
    csv.field_size_limit(_LONGEST_CELL)
    self.path, self.label_names, self.note = path, {}, ""
    delimiter = fields.options["delimiter"] or ("\t" if path.endswith((".tsv", ".tab")) else ",")
    self._encoding, self._format = _encoding(fields.options["encoding"]), _format(delimiter, fields.options["quote"])
    self.columns: list[str] = []
    bounds, lines, over_lines = [0], [], []
    for start, end, line, line_ends, cells in self._cells():
      if self.columns:
        bounds[-1:] = start, end
        lines.append(line)
        over_lines += [(line, line_ends)] if line_ends else []
      elif cells is None:
        raise UserError(f"{path}: its header is not {self._encoding.upper()}; {self._other_encoding()}")
      else:
        self.columns = [cell.strip() for cell in cells]
        _check_delimiter(path, self.columns, delimiter, fields)
    if not self.columns:
      raise UserError(f"{path}: is empty; expected a header, the names of the columns")
    if len(set(self.columns)) < len(self.columns):
      raise UserError(f"{path}: its header {self.columns} names a column twice")
    if over_lines:
      (line, line_ends), count = over_lines[0], len(over_lines)
      others = f" (and {count - 1:,} more such rows)" if count > 1 else ""
      self.note = (f"{path}:{line}: a quoted cell makes lines {line} to {line + line_ends} one row{others}; where "
                   "quotes are only text, set data.source.quote=None")  # fmt: skip
    self._bounds = np.array(bounds, np.int64)
    self._lines = np.array(lines, np.int32)

  def __len__(self) -> int:
    return len(self._lines)

  def __getitem__(self, row: int) -> Row:
    start, end = int(self._bounds[row]), int(self._bounds[row + 1])
    data = files.read(self.path, start, end - start)
    try:
      lines = io.StringIO(data.decode(self._encoding), newline="\n")
      cells = next(filter(None, csv.reader(lines, **self._format)), [])
    except UnicodeDecodeError as error:
      raise BadRecord(f"not {self._encoding.upper()} ({error.reason} at byte {error.start}); "
                      f"{self._other_encoding()}") from None  # fmt: skip
    except csv.Error as error:  # the file has changed since it was opened
      raise BadRecord(f"not CSV ({error})") from None
    if len(cells) != len(self.columns):
      quoted = b'"' in data and self._format.get("quotechar") == '"'
      raise BadRecord(f"has {len(cells)} cells, the header {len(self.columns)}"
                      + ("; where quotes are only text, set data.source.quote=None" if quoted else ""))  # fmt: skip
    return dict(zip(self.columns, cells))

  def place(self, row: int) -> str:
    """FILE:LINE."""
    return f"{self.path}:{self._lines[row]}"

  def scan(self, columns: Sequence[str]) -> Iterator[Row]:
    """All rows in order."""
    del columns
    records = self._cells()
    next(records)
    for *_, cells in records:
      yield dict(zip(self.columns, cells)) if cells and len(cells) == len(self.columns) else {}

  def _other_encoding(self) -> str:
    other = "cp1252" if self._encoding == "utf-8" else "utf-8"
    return f"if it is of another program, say of which encoding, such as data.source.encoding={other!r}"

  def _cells(self) -> Iterator[tuple[int, int, int, int, list[str] | None]]:
    """(first byte, byte after the last, first line, line ends within, cells) of each record.

    No cells where it is not of the encoding.
    """
    end, line, is_readable = 0, 0, True

    def decoded(file) -> Iterator[str]:
      nonlocal end, line, is_readable
      for data in file:
        end, line = end + len(data), line + 1
        if line == 1 and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
          raise UserError(f"{self.path}: is UTF-16, in which single rows cannot be read; save it as UTF-8")
        data = data.removeprefix(codecs.BOM_UTF8) if line == 1 else data
        try:
          yield data.decode(self._encoding)
        except UnicodeDecodeError:
          is_readable = False
          yield data.decode("latin-1")  # delimiters and quotes are ASCII: the record ends where it ends

    with files.open_binary(self.path) as file:
      reader = csv.reader(decoded(file), **self._format)
      while True:
        start, first_line = end, line + 1
        try:
          cells = next(reader, None)
        except csv.Error as error:
          if "new-line character" in str(error):
            raise UserError(f"{self.path}:{first_line}: a line ends with only a carriage return; save the file with "
                            "line feeds, and put cells of several lines into quotes") from None  # fmt: skip
          raise UserError(f"{self.path}:{first_line}: {error}; fix the quotes of this row, or, where quotes are only "
                          "text, set data.source.quote=None") from None  # fmt: skip
        if cells is None:
          return
        if cells:
          yield start, end, first_line, line - first_line, cells if is_readable else None
        is_readable = True


def _format(delimiter: object, quote: object) -> dict[str, object]:
  """Arguments of csv.reader."""
  for key, value in (("delimiter", delimiter), ("quote", quote)):
    if not (key == "quote" and value is None) and (not isinstance(value, str) or len(value) != 1):
      raise UserError(f"data.source.{key}: {value!r} is not one character")
  quoting = {"quoting": csv.QUOTE_NONE} if quote is None else {"quotechar": quote}
  return {"delimiter": delimiter, "strict": True, **quoting}


def _encoding(name: object) -> str:
  try:
    known = codecs.lookup(name).name.removesuffix("-sig")  # a mark at the start is taken off in any case
    if "\n,".encode(known) == b"\n,":
      return known
  except (LookupError, TypeError, UnicodeError):
    pass
  raise UserError(f"data.source.encoding: {name!r} is not an encoding with the line ends of ASCII; give one such as "
                  "'utf-8', 'cp1252' or 'shift_jis', or save the file as UTF-8")  # fmt: skip


def _check_delimiter(path: str, header: list[str], delimiter: str, fields: Fields) -> None:
  """UserError when the header is one cell, or lacks columns, and would not with another delimiter."""
  if header[0].startswith("sep="):
    raise UserError(f"{path}: its first line, {header[0]!r}, is an instruction for Excel, not a header; remove it, "
                    "and set "
                    f"data.source.delimiter={header[0][4:5] or delimiter!r}")  # fmt: skip
  whole, missing = delimiter.join(header), set(fields.columns) - set(header)
  other = max(_DELIMITERS.replace(delimiter, ""), key=whole.count)
  names = {name.strip() for name in whole.split(other)}
  if other in whole and (len(header) == 1 or names & missing) and missing:
    shown = "a tab" if other == "\t" else repr(other)
    raise UserError(f"{path}: its header is {header}, and the delimiter looks like {shown}; set "
                    f"data.source.delimiter={other!r}")  # fmt: skip
