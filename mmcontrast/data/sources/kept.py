"""The records of a source that were kept: an index of them, `data.kept`, never a copy.

    DIR/kept.npy     int64, their numbers in the source, ascending
    DIR/kept.json    of how many records of which source, why the others were left out, the names of a few

`mmcontrast data filter`, `dedup` and `balance` write such folders.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcontrast import folders
from mmcontrast.data.record import BadRecord, Info, Record, Source
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import UserError, one_line

INDEX, NOTES = "kept.npy", "kept.json"
_WHERE = "data.kept"
_NAMED = 8  # records, by whose names other data are noticed


class KeptRecords:
  """A source of some of the records of another.

  Attributes:
    indices: int64 [N], the number of each in the other, ascending.
  """

  def __init__(self, source: Source, path: str, split: str):
    """Raises UserError for an index that cannot be read, or is of other data."""
    self._source = source
    notes, self.indices = read_kept(path)
    if notes["records"] != len(source) or notes["source"]["split"] != split:
      raise UserError(
        f"{_WHERE}: {path} was made of the {notes['records']} records of split {notes['source']['split']!r} of "
        f"{notes['source']['dataset']}, and {source.info.name} has {len(source)} in split {split!r}; make it of the "
        "data that are read"
      )
    for index, name in notes["names"].items():
      try:
        found = _called(source[int(index)])
      except (BadRecord, OSError):  # it may be mended, or noticed when it is read
        continue
      if found != name:
        raise UserError(
          f"{_WHERE}: {path} was made of other data: record {index} is {found!r}, not {name!r}; make it anew"
        )
    note = f"{len(self.indices):,} of {len(source):,} records are kept ({path})"
    self.info: Info = dataclasses.replace(source.info, notes=(*source.info.notes, note))

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, index: int) -> Record:
    return self._source[int(self.indices[index])]

  def key(self, index: int) -> str:
    """See keys.key_of."""
    return key_of(self._source, int(self.indices[index]))


def read_kept(path: str) -> tuple[dict[str, Any], np.ndarray]:
  """(what kept.json says, the numbers of the records) of a folder. Raises UserError."""
  folder = folders.at(path, _WHERE)
  if not (folder / NOTES).is_file():
    made = (folder / "manifest.json").is_file()
    raise UserError(
      f"{_WHERE}: {path} holds no {NOTES}; "
      + ("not all of its parts are made" if made else "make it by mmcontrast data filter, dedup or balance")
    )
  try:
    notes = json.loads((folder / NOTES).read_text())
    with folders.fetched(folder / INDEX) as file:
      indices = np.load(file)
    known = {"records": notes["records"], "source": notes["source"], "names": notes["names"]}
  except (OSError, ValueError, KeyError) as error:
    raise UserError(f"{_WHERE}: {path} cannot be read ({one_line(error)}); make it anew") from None
  if not len(indices):
    raise UserError(f"{_WHERE}: {path} keeps none of {notes['records']} records; make it with other bounds")
  if indices[-1] >= known["records"]:
    raise UserError(f"{_WHERE}: {path} names record {indices[-1]} of {known['records']}; make it anew")
  return notes, indices


def write_kept(folder: folders.Folder, indices: np.ndarray, source: Source, of: Mapping[str, Any],
               left_out: Mapping[str, int], **more: Any) -> None:  # fmt: skip
  """Writes an index: `indices` int64 [K] of the records of `source` that are kept, which `of` names.

  Args:
    of: dataset, options, split, as of the command.
    left_out: reason -> how many records.
    more: what else kept.json says.
  """
  places = sorted({int(place) for place in np.linspace(0, len(indices) - 1, _NAMED)}) if len(indices) else []
  names = {}
  for place in places:
    try:
      names[str(int(indices[place]))] = _called(source[int(indices[place])])
    except (BadRecord, OSError):
      continue
  with folders.written(folder / INDEX) as scratch, scratch.open("wb") as file:
    np.save(file, np.asarray(indices, np.int64))
  notes = {"source": dict(of), "records": len(source), "kept": len(indices), "left_out": dict(left_out), "names": names}
  with folders.written(folder / NOTES) as scratch:
    scratch.write_text(json.dumps({**notes, **more}, indent=1) + "\n")


def _called(record: Record) -> str:
  """Its name without folders, which may be others on another machine."""
  return record["name"].rpartition("/")[2]


def kept(source: Source, config: Mapping[str, Any], split: str) -> Source:
  """`source` as far as the index config.data.kept keeps it, or itself where it names none."""
  path = config.get("kept")
  if path and config.get("mixture"):
    raise UserError(f"{_WHERE}: is of one dataset, and this is a mixture; set data.mixture.NAME.kept of its parts")
  return KeptRecords(source, path, split) if path else source
