"""From a row of a table to a record: which column is what, the options that all row formats share."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.sources import files
from mmcontrast.data.sources.record import BadRecord, Info, Record, id_of_text
from mmcontrast.errors import UserError, nearest

DEFAULTS = {
  # Column of the image, or {style: column} of several drawings of one thing; None: no images. It holds
  # bytes, {"bytes", "path"} as Hugging Face writes, a data URL, or a path or URL, relative to the table.
  "image": "image",
  "base64": False,  # text in the image column is base64, not a path
  "caption": "caption",  # column, or a list of them, each a caption field; None: no captions. Text or list of texts.
  "tags": None,  # column: a list, or text with separators
  "tag_separator": ",",
  "tag_names": (),  # the vocabulary, tags outside it are dropped; empty: every tag of the data, sorted
  "labels": (),  # column of class names, or a list of them
  "label_names": {},  # column -> class names in order; a column not here: every name of the data, sorted
  "id": None,  # column: rows with the same id show the same thing; None: the row's number
  "name": None,  # column for messages; None: the row's place
  "languages": {},  # language -> column of the thing's name in it
}
_MOST_IDS = 2**31


class Fields:
  """The columns of a row format, by its options.

  Attributes:
    options: every option with its value, those of the format itself too.
    columns: the columns that records are made from, each once.
    uncollected: those of them that `collect` must see before `info` and `record`.
  """

  def __init__(self, options: Mapping[str, Any], where: str, defaults: Mapping[str, Any] = {}):
    """`where`: the source, for messages. `defaults`: the format's own options, and its defaults of the shared ones.

    Raises UserError on an unknown option, or one of another type.
    """
    known = {**DEFAULTS, **defaults}
    for key in options:
      if key not in known:
        raise UserError(f"{where}: data.source.{key}: unknown key; {nearest(key, known)}")
    self.options = options = {**known, **options}
    self._where = where
    if options["image"] is None or isinstance(options["image"], str):
      self._images = {"image": options["image"]} if options["image"] else {}
    else:
      self._images = self._table("image")
    self._captions = _names(options["caption"], f"{where}: data.source.caption")
    self._labels = _names(options["labels"], f"{where}: data.source.labels")
    self._languages = self._table("languages")
    self._tag_names = _names(options["tag_names"], f"{where}: data.source.tag_names")
    self._label_names = {key: _names(names, f"{where}: data.source.label_names.{key}")
                         for key, names in self._table("label_names").items()}  # fmt: skip
    for key in self._label_names:
      if key not in self._labels:
        raise UserError(f"{where}: data.source.label_names.{key}: not in data.source.labels {self._labels}")
    single = {key: options[key] for key in ("tags", "id", "name")}
    for key, column in single.items():
      if column is not None and not isinstance(column, str):
        raise UserError(f"{where}: data.source.{key}: {column!r} is not the name of a column")
    named = (*self._images.values(), *self._captions, *self._labels, *self._languages.values(), *single.values())
    self.columns = tuple(dict.fromkeys(column for column in named if column is not None))
    tags = (options["tags"],) if options["tags"] and not self._tag_names else ()
    self.uncollected = (*tags, *(key for key in self._labels if key not in self._label_names))
    self._index()

  def _table(self, key: str) -> dict:
    if not isinstance(self.options[key], Mapping):
      raise UserError(f"{self._where}: data.source.{key}: {self.options[key]!r} is not a table such as {{'a': 'b'}}")
    return dict(sorted(self.options[key].items()))  # a config from a checkpoint has lost the order it was written in

  def _index(self) -> None:
    self._tag_at = {name: at for at, name in enumerate(self._tag_names)}
    self._label_at = {key: {name: at for at, name in enumerate(names)} for key, names in self._label_names.items()}

  def check_columns(self, columns: Iterable[str], file: str) -> None:
    """UserError when `file`, which has `columns`, lacks one that the options name."""
    columns = list(columns)
    for column in self.columns:
      if column not in columns:
        key = next(key for key in DEFAULTS if column in _values(self.options[key]))
        raise UserError(f"{file}: no column {column!r}, which data.source.{key} names; "
                        f"{nearest(column, columns)}; name another, or set it to None")  # fmt: skip

  def add_label_names(self, names: Mapping[str, Sequence[str]]) -> None:
    """Takes the class names of columns for which the options give none."""
    for column, given in names.items():
      if column in self.uncollected and column in self._labels:
        self._label_names[column] = tuple(given)
        self.uncollected = tuple(one for one in self.uncollected if one != column)
    self._index()

  def collect(self, rows: Iterable[Mapping[str, Any]]) -> None:
    """Makes the vocabularies that the options leave out from all rows; needs `uncollected` columns only."""
    found: dict[str, set[str]] = {column: set() for column in self.uncollected}
    for row in rows:
      for column, names in found.items():
        value = row.get(column)
        try:
          if column == self.options["tags"]:
            names.update(self._tags_of(value))
          elif value is not None and value != "":
            names.add(_text(value, column))
        except BadRecord:
          pass  # `record` will say so
    for column in self._labels:
      if column in found:
        self._label_names[column] = tuple(sorted(found[column], key=_number_first))
    if self.options["tags"] in found:
      self._tag_names = tuple(sorted(found[self.options["tags"]], key=_number_first))
    self._index()

  def info(self, name: str) -> Info:
    """The schema of a source of this name."""
    return Info(name=name, styles=tuple(self._images), tag_names=self._tag_names,
                label_names={key: self._label_names[key] for key in self._labels},
                languages=tuple(self._languages), caption_fields=self._captions)  # fmt: skip

  def id_of(self, row: Mapping[str, Any], index: int) -> int:
    """A whole number from 0 to 2**31 - 1 as it is; any other text by a hash of 31 bits; without one, `index`."""
    value = row.get(self.options["id"]) if self.options["id"] else None
    if value is None or value == "":
      return index
    text = _text(value, self.options["id"])
    number = _number(text)
    if number is not None and number < _MOST_IDS and str(number) == text:
      return number
    return id_of_text(text)

  def record(self, row: Mapping[str, Any], index: int, where: str, folder: str = "") -> Record:
    """The record of `row`.

    Args:
      row: column -> value; text may be UTF-8 bytes. A column that is not there is empty.
      index: the row's number, its id where the options name no column of ids.
      where: the row's place, such as "a.jsonl:17": its name where the options name no column.
      folder: what paths of images are relative to.
    Raises:
      BadRecord: a value that is not what the options say.
      OSError: an image file that cannot be read.
    """
    tags = np.zeros(len(self._tag_names), np.uint8)
    if self.options["tags"]:
      tags[[self._tag_at[tag] for tag in self._tags_of(row.get(self.options["tags"])) if tag in self._tag_at]] = 1
    images = {style: self._image(row.get(column), column, folder) for style, column in self._images.items()}
    name = row.get(self.options["name"]) if self.options["name"] else None
    return Record(
      images={style: data for style, data in images.items() if data is not None},
      captions={column: _texts(row.get(column), column) for column in self._captions},
      names={key: "" if row.get(column) is None else _text(row[column], column)
             for key, column in self._languages.items()},
      tags=tags,
      labels={column: self._label(row.get(column), column) for column in self._labels},
      id=self.id_of(row, index),
      name=where if name is None else _text(name, self.options["name"]),
      mirror_safe=True,
    )  # fmt: skip

  def _image(self, value: Any, column: str, folder: str) -> bytes | None:
    """The encoded image; None where there is none."""
    if isinstance(value, Mapping):
      value = value.get("bytes") or value.get("path")
    if value is None or value == "":
      return None
    if isinstance(value, (bytes, bytearray, memoryview)):
      return bytes(value)
    if not isinstance(value, str):
      raise BadRecord(f"column {column!r} is a {type(value).__name__}, not bytes, a path or base64")
    head, _, payload = value.partition(",")
    is_url = head.startswith("data:")
    if is_url and not head.endswith(";base64"):
      raise BadRecord(f"column {column!r} is a data URL that is not base64: {head[:40]!r}")
    if is_url or self.options["base64"]:
      try:
        return base64.b64decode(payload if is_url else value, validate=True)
      except (binascii.Error, ValueError):
        raise BadRecord(f"column {column!r} is not base64: {value[:20]!r}...") from None
    if "\0" in value or len(value) > 4096:
      raise BadRecord(f"column {column!r} is not a path: {value[:20]!r}...; where it is base64, set data.source.base64")
    return files.read(files.join(folder, value))

  def _tags_of(self, value: Any) -> set[str]:
    column = self.options["tags"]
    if isinstance(value, (str, bytes)):
      value = _text(value, column).split(self.options["tag_separator"])
    return {text for one in _texts(value, column) if (text := one.strip())}

  def _label(self, value: Any, column: str) -> int:
    if value is None or value == "":
      raise BadRecord(f"column {column!r} is empty; a label is needed")
    text, at = _text(value, column), self._label_at[column]
    if text in at:
      return at[text]
    if (number := _number(text)) is not None and number < len(at):
      return number  # an index into the names given
    raise BadRecord(f"column {column!r} is {text[:40]!r}, which is none of its {len(at)} names")


def _names(value: Any, where: str) -> tuple[str, ...]:
  names = () if value is None else (value,) if isinstance(value, str) else value
  if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
    raise UserError(f"{where}: {value!r} is not a name or a list of names")
  if len(set(names)) < len(names):
    raise UserError(f"{where}: a name is there twice")
  return tuple(names)


def _values(option: Any) -> tuple:
  if isinstance(option, Mapping):
    return tuple(option.values())
  return tuple(option) if isinstance(option, (list, tuple)) else (option,)


def _text(value: Any, column: str) -> str:
  """Text of one value; raises BadRecord for what is neither text nor a number."""
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise BadRecord(f"column {column!r} is not UTF-8 ({error.reason} at byte {error.start})") from None
  if isinstance(value, (str, int, float, np.integer, np.floating)):
    return str(value)
  raise BadRecord(f"column {column!r} is a {type(value).__name__}, not text")


def _texts(value: Any, column: str) -> list[str]:
  if value is None:
    return []
  values = value if isinstance(value, (list, tuple, np.ndarray)) else [value]
  return [_text(one, column) for one in values if one is not None]


def _number_first(text: str) -> tuple[int, int, str]:
  """Sorts "2" before "10", and numbers before words."""
  number = _number(text)
  return (1, 0, text) if number is None else (0, number, text)


def _number(text: str) -> int | None:
  """The number that a text of at most ten digits writes: Python refuses to read thousands of them."""
  return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None
