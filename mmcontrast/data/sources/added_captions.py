"""Captions that were made after the data: a file of further texts for each record of a source, `data.added_captions`.

    {"index": 17, "name": "u1f600", "concept": ["face", "smile"], "negative": ["frowning face"]}

One line a record, in any order; what is no index and no name is a field of captions, a text or a list of texts. Records
without a line have their own captions alone. `mmcontrast data retrieve` writes such files.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from mmcontrast import folders
from mmcontrast.data.record import BadRecord, Info, Record, Source
from mmcontrast.data.sources.keys import digest_of, key_of
from mmcontrast.errors import UserError

_WHERE = "data.added_captions"


class AddedCaptions:
  """A source whose records have the captions of a file besides; in all else the source itself."""

  def __init__(self, source: Source, path: str):
    """Raises UserError for a file that cannot be read, or has a field that the source has already."""
    self._source, self._path, self._rows = source, path, read_added(path)
    fields = dict.fromkeys(field for _, captions in self._rows.values() for field in captions)
    if there := [field for field in fields if field in source.info.caption_fields]:
      raise UserError(
        f"{_WHERE}: {path} has the field {there[0]!r}, which {source.info.name} has; give it another name"
      )
    if (last := max(self._rows, default=0)) >= len(source):
      raise UserError(
        f"{_WHERE}: {path} has a line for record {last}, and {source.info.name} has {len(source)} records in this "
        "split; make it of the split that is trained on"
      )
    self.info: Info = dataclasses.replace(source.info, caption_fields=(*source.info.caption_fields, *fields))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    record = self._source[index]
    name, captions = self._rows.get(index, (None, {}))
    if name is not None and name != record["name"]:
      raise BadRecord(f"{self._path} was made of other data: record {index} is {record['name']!r}, not {name!r}")
    return {**record, "captions": {**record["captions"], **captions}}

  def key(self, index: int) -> str:
    """See keys.key_of."""
    own = key_of(self._source, index)
    return f"{own} {digest_of(self._rows[index])}" if index in self._rows else own

  def __getattr__(self, name: str) -> Any:
    if name.startswith("_"):  # of its own, and not there yet
      raise AttributeError(name)
    return getattr(self._source, name)


def read_added(path: str) -> dict[int, tuple[str | None, dict[str, list[str]]]]:
  """Index -> (name of the record or None, captions by field) of a file; UserError naming the line that is wrong."""
  try:
    lines = folders.at(path, _WHERE).read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f"{_WHERE}: {path} cannot be read ({getattr(error, 'strerror', None) or error}); make it by `mmcontrast data "
      "retrieve`"
    ) from None
  rows: dict[int, tuple[str | None, dict[str, list[str]]]] = {}
  for number, line in enumerate(lines, start=1):
    if line.strip():
      where = f"{_WHERE}: {path}, line {number}"
      index, row = _row(line, where)
      if index in rows:
        raise UserError(f"{where}: a second line for record {index}; write all of its fields in one")
      rows[index] = row
  if not rows:
    raise UserError(f"{_WHERE}: {path} is empty; leave it out, or make it by `mmcontrast data retrieve`")
  return rows


def _row(line: str, where: str) -> tuple[int, tuple[str | None, dict[str, list[str]]]]:
  try:
    row = json.loads(line)
  except ValueError as error:
    raise UserError(f"{where}: no JSON ({error})") from None
  index = row.pop("index", None) if isinstance(row, dict) else None
  if isinstance(index, bool) or not isinstance(index, int) or index < 0:
    raise UserError(f'{where}: names no record; write {{"index": 0, "FIELD": ["a text"]}}')
  name, captions = row.pop("name", None), {}
  for field, texts in row.items():
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
      raise UserError(f"{where}: {field!r} is no text and no list of texts")
    if texts:
      captions[field] = texts
  return index, (name, captions)


def added(source: Source, config: Mapping[str, Any]) -> Source:
  """`source` with the captions of config.data.added_captions, or itself where it names none."""
  path = config.get("added_captions")
  if path and config.get("mixture"):
    raise UserError(f"{_WHERE}: is of one dataset, and this is a mixture; leave it out, or train on one")
  return AddedCaptions(source, path) if path else source
