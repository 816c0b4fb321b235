"""A source made of tables: the files of a pattern, each with rows by number, and which column is what."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from mmcontrast.data.record import BadRecord, Record
from mmcontrast.data.sources import files, splits
from mmcontrast.data.sources.fields import Fields
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.errors import UserError, note

Row = Mapping[str, Any]
_OPEN_AT_ONCE = 8


class Table(Protocol):
  """One file of rows; reading by several threads is safe."""

  path: str
  columns: Sequence[str]
  label_names: Mapping[str, Sequence[str]]  # the names of classes that the file itself brings, by column
  note: str  # what a user should know of the file; "" mostly

  def __len__(self) -> int: ...

  def __getitem__(self, row: int) -> Row:
    """Raises BadRecord when the row cannot be made out, OSError when the file cannot be read."""
    ...

  def place(self, row: int) -> str:
    """Where a row is, for messages."""
    ...

  def scan(self, columns: Sequence[str]) -> Iterator[Row]:
    """All rows in order with `columns` at least, one after another; {} for one that cannot be made out."""
    ...


class TableSource:
  """The rows of every file that a pattern names, of one split.

  Raises:
    UserError: unknown option, no such file, a column that a file lacks, no such split.
  """

  def __init__(self, kind: str, open_table: Callable[[str, Fields], Table], path: str, options: Mapping, split: str,
               defaults: Mapping[str, Any] = {}, guesses_captions: bool = False):  # fmt: skip
    """
    Args:
      open_table: (path, fields) -> table; the fields say which columns and options are wanted.
      path: the pattern, see files.find, with {split} in it or not.
      options: `data.source`.
      defaults: the options that this kind of table has besides, with their defaults.
      guesses_captions: whether captions may be read from another column of a usual name.
    """
    name = f"{kind}:{path}"
    self._fields = fields = Fields(options, name, {"splits": {}, **defaults})
    shares = fields.options["splits"]
    paths = files.find(splits.fill_path(path, split, shares, name), (f".{kind}",))
    with concurrent.futures.ThreadPoolExecutor(_OPEN_AT_ONCE) as pool:
      self._tables = list(pool.map(lambda path: _open(open_table, path, fields), paths))
    if notes := [table.note for table in self._tables if table.note]:
      note(notes[0] + (f" (and {len(notes) - 1:,} more such files)" if len(notes) > 1 else ""))
    if guesses_captions and self._tables:
      fields.guess_captions(self._tables[0].columns, self._tables[0].path)
    for table in self._tables:
      fields.check_columns(table.columns, table.path)
      fields.add_label_names(table.label_names)
    self._ends = np.cumsum([len(table) for table in self._tables])
    if fields.uncollected:
      fields.collect(self._scan(fields.uncollected))
    self._rows = splits.chosen(self._ids(shares), split, shares, name)
    self.info = fields.info(name)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    table, row, number = self._at(index)
    try:
      return self._fields.record(table[row], number, table.place(row), files.folder_of(table.path))
    except BadRecord as error:
      raise BadRecord(f"{table.place(row)}: {error}") from None

  def key(self, index: int) -> str:
    """The values of the row, and size and time of the files that it names; see keys.key_of."""
    table, row, _ = self._at(index)
    values = table[row]
    paths = self._fields.files_of(values, files.folder_of(table.path))
    return digest_of([dict(values), [key_of_file(path) for path in paths]])

  def _at(self, index: int) -> tuple[Table, int, int]:
    """(table, row in it, row of all) of record `index`."""
    number = int(self._rows[index])
    at = int(np.searchsorted(self._ends, number, side="right"))
    table = self._tables[at]
    return table, number - int(self._ends[at]) + len(table), number

  def _scan(self, columns: Sequence[str]) -> Iterator[Row]:
    for table in self._tables:
      yield from table.scan(columns)

  def _ids(self, shares: Mapping[str, float]) -> np.ndarray:
    """What splits go by, of every row, read only where it matters."""
    column = self._fields.options["id"]
    if not (shares and column):
      return np.arange(self._ends[-1])
    ids = []
    for number, row in enumerate(self._scan((column,))):
      try:
        ids.append(self._fields.place_of(row, number))
      except BadRecord:  # `record` will say so
        ids.append(number)
    return np.array(ids, np.int64)


def _open(open_table: Callable[[str, Fields], Table], path: str, fields: Fields) -> Table:
  try:
    return open_table(path, fields)
  except OSError as error:
    raise UserError(f"data.dataset: {error}") from None
