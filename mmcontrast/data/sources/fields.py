"""From a row of a table to a record: which column is what, the options that all row formats share."""

from __future__ import annotations

import base64
import binascii
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data import regions
from mmcontrast.data.record import BadRecord, Info, Record, Region
from mmcontrast.data.sources import files
from mmcontrast.data.sources.values import (
  id_of,
  is_missing,
  listed,
  name_of,
  number_of,
  place_of,
  text_of,
  texts_of,
  vocabulary,
)
from mmcontrast.errors import UserError, nearest, note
from mmcontrast.modalities import MODALITIES, Modality
from mmcontrast.registry import check_options

DEFAULTS = {
  # Column of the image, or {style: column} of several drawings of one thing; None: no images. It holds
  # bytes, {"bytes", "path"} as Hugging Face writes, a data URL, or a path or URL, relative to the table.
  "image": "image",
  "base64": False,  # text in the image column is base64, not a path
  # Column, or a list of them, each a caption field; None: no captions. Text or list of texts. A text with columns in
  # braces, such as "a photo of a {class}", makes the captions of one field, "caption".
  "caption": "caption",
  "tags": None,  # column: a list, or text with separators
  "tag_separator": ",",
  "tag_names": (),  # the vocabulary, tags outside it are dropped; empty: every tag of the data, sorted
  "labels": (),  # column of class names, or a list of them
  "label_names": {},  # column -> class names in order; a column not here: every name of the data, sorted
  "id": None,  # column: rows with the same id show the same thing; None: the row's number
  "name": None,  # column for messages; None: the row's place
  "weight": None,  # column of what an example counts, a number from 0 on; an empty one is 1. None: all the same
  # Columns of regions of the image, dict(box=COLUMN, text=COLUMN): lists of as many boxes (x0, y0, x1, y1 in shares of
  # the sides) and texts, or lists of texts; None: no regions.
  "regions": None,
  "languages": {},  # language -> column of the thing's name in it
  "missing": (),  # texts that say that there is nothing, beside white space and NaN
}
_USUAL_CAPTIONS = ("text", "captions", "TEXT")  # columns taken for captions where the options name none


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
    self._further = {one.name: one for one in MODALITIES.values() if one.source_options}
    further = {key: value for one in self._further.values() for key, value in one.source_options.items()}
    known = {**DEFAULTS, **further, **defaults}
    check_options(options, known, f"{where}: data.source")
    given, self.options = options, {**known, **options}
    options = self.options
    self._where = where
    self._images = self._keyed("image")
    self._image_is_given = "image" in given or "image" in defaults
    self._things = {name: self._keyed(name) for name in self._further}
    self._others = tuple(
      value for key in further if key not in self._further and isinstance(value := options[key], str)
    )
    self._caption_is_given = "caption" in given
    self._template = template_of(options["caption"], f"{where}: data.source.caption")
    self._captions = ("caption",) if self._template else _names(options["caption"], f"{where}: data.source.caption")
    self._missing = frozenset(_names(options["missing"], f"{where}: data.source.missing"))
    self._labels = _names(options["labels"], f"{where}: data.source.labels")
    self._languages = self._table("languages")
    self._regions = {} if options["regions"] is None else self._table("regions")
    if self._regions and set(self._regions) != set(regions.COLUMNS):
      raise UserError(
        f"{where}: data.source.regions: {dict(self._regions)!r} does not name the columns of boxes and of their texts; "
        "write dict(box='boxes', text='names')"
      )
    self._tag_names = _names(options["tag_names"], f"{where}: data.source.tag_names")
    self._label_names = {key: _names(names, f"{where}: data.source.label_names.{key}")
                         for key, names in self._table("label_names").items()}  # fmt: skip
    for key, names in (("tag_names", self._tag_names), *self._label_names.items()):
      if len({name_of(name, key) for name in names}) < len(names):
        raise UserError(f"{where}: data.source: two names of {key} differ only in white space")
    for key in self._label_names:
      if key not in self._labels:
        raise UserError(f"{where}: data.source.label_names.{key}: not in data.source.labels {self._labels}")
    single = {key: options[key] for key in ("tags", "id", "name", "weight")}
    for key, column in single.items():
      if column is not None and not isinstance(column, str):
        raise UserError(f"{where}: data.source.{key}: {column!r} is not the name of a column")
    self._numbered: set[str] = set()  # columns of class numbers, whose names the file brings
    self._single = tuple(single.values())
    tags = (options["tags"],) if options["tags"] and not self._tag_names else ()
    self.uncollected = (*tags, *(key for key in self._labels if key not in self._label_names))
    self._index()

  @property
  def columns(self) -> tuple[str, ...]:
    captions = columns_in(self._template) if self._template else self._captions
    things = [column for columns in self._things.values() for column in columns.values()]
    named = (*self._images.values(), *things, *self._others, *captions, *self._labels, *self._languages.values())
    named += (*self._regions.values(), *self._single)
    return tuple(dict.fromkeys(column for column in named if column is not None))

  def take(self, modality: str, column: str) -> None:
    """Takes a column for that of a further modality, where the options name none."""
    self._things[modality] = self._things[modality] or {modality: column}

  def _keyed(self, key: str) -> dict[str, str]:
    """Key -> column of an option that is a column, {key: column} or None."""
    if self.options[key] is None or isinstance(self.options[key], str):
      return {key: self.options[key]} if self.options[key] else {}
    return self._table(key)

  def _table(self, key: str) -> dict:
    if not isinstance(self.options[key], Mapping):
      raise UserError(f"{self._where}: data.source.{key}: {self.options[key]!r} is not a table such as {{'a': 'b'}}")
    return dict(sorted(self.options[key].items()))  # a config from a checkpoint has lost the order it was written in

  def _index(self) -> None:
    self._are_numbers = {key: any(number_of(name_of(name, key)) is not None for name in names)
                         for key, names in self._label_names.items()}  # fmt: skip
    self._tag_at = {name_of(name, "tags"): at for at, name in enumerate(self._tag_names)}
    self._label_at = {key: {name_of(name, key): at for at, name in enumerate(names)}
                      for key, names in self._label_names.items()}  # fmt: skip

  def check_columns(self, columns: Iterable[str], file: str) -> None:
    """UserError when `file`, which has `columns`, lacks one that the options name."""
    columns = list(columns)
    if not self._image_is_given and "image" not in columns and any(self._things.values()):
      self._images = {}  # of a table of sounds nobody has to say that it has no images
    for column in self.columns:
      if column not in columns:
        key = next(
          key for key in self.options if column in (*_values(self.options[key]), *columns_in(self.options[key]))
        )
        near = nearest(column, columns)
        raise UserError(f"{file}: no column {column!r}, which data.source.{key} names{' ' if near[0] == '(' else '; '}"
                        f"{near}; name another, or set it to None")  # fmt: skip

  def guess_captions(self, columns: Iterable[str], file: str) -> None:
    """Takes a column of another usual name for captions, and says so, where the options name none."""
    usual = [name for name in _USUAL_CAPTIONS if name in columns]
    if usual and not self._caption_is_given and "caption" not in columns:
      self._captions = (usual[0],)
      note(f"{file}: no column 'caption'; captions are read from {usual[0]!r}, as by data.source.caption={usual[0]!r}")

  def add_label_names(self, names: Mapping[str, Sequence[str]]) -> None:
    """Takes the class names, of which the columns hold numbers, where the options give none."""
    for column, given in names.items():
      if column in self.uncollected and column in self._labels:
        self._label_names[column] = tuple(given)
        self._numbered.add(column)
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
          elif not self._is_missing(value):
            names.add(name_of(value, column))
        except BadRecord:
          pass  # `record` will say so
    for column in self._labels:
      if column in found:
        self._label_names[column] = vocabulary(found[column])
    if self.options["tags"] in found:
      self._tag_names = vocabulary(found[self.options["tags"]])
    self._index()

  def info(self, name: str) -> Info:
    """The schema of a source of this name."""
    return Info(name=name, styles=tuple(self._images), tag_names=self._tag_names,
                label_names={key: self._label_names[key] for key in self._labels},
                languages=tuple(self._languages), caption_fields=self._captions,
                keys={name: tuple(columns) for name, columns in self._things.items() if columns},
                row_ids=not self.options["id"], weighted=bool(self.options["weight"]),
                regions=bool(self._regions))  # fmt: skip

  def id_of(self, row: Mapping[str, Any], index: int) -> int:
    """The id of a row: see values.id_of; without a column of ids, `index`."""
    column = self.options["id"]
    return id_of(self._given(row.get(column)), column, index) if column else index

  def place_of(self, row: Mapping[str, Any], index: int) -> int:
    """What splits go by: see values.place_of."""
    column = self.options["id"]
    return place_of(self._given(row.get(column)), column, index) if column else index

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
    images = {style: self._file(row.get(column), column, folder) for style, column in self._images.items()}
    things = {
      self._further[name].field: {
        key: raw for key, column in columns.items() if (raw := self._thing(name, column, row, folder)) is not None
      }
      for name, columns in self._things.items()
      if columns
    }
    name = self._given(row.get(self.options["name"])) if self.options["name"] else None
    labels = {column: self._label(row.get(column), column) for column in self._labels}
    return Record(
      images={style: data for style, data in images.items() if data is not None},
      captions={"caption": self._filled(row, labels)} if self._template else
               {column: self._texts(row.get(column), column) for column in self._captions},
      names={key: "" if self._is_missing(row.get(column)) else text_of(row[column], column)
             for key, column in self._languages.items()},
      tags=tags,
      labels=labels,
      id=self.id_of(row, index),
      name=where if is_missing(name) else text_of(name, self.options["name"]),
      mirror_safe=True,
      **({"weight": self._weight(row)} if self.options["weight"] else {}),
      **({"regions": self._regions_of(row)} if self._regions else {}),
      paths=self.paths(row, folder),
      **things,
    )  # fmt: skip

  def _regions_of(self, row: Mapping[str, Any]) -> list[Region]:
    boxes, texts = (row.get(self._regions[key]) for key in regions.COLUMNS)
    return regions.of_columns(boxes, texts, self._regions)

  def _weight(self, row: Mapping[str, Any]) -> float:
    column = self.options["weight"]
    value = row.get(column)
    if isinstance(value, (str, bytes)):
      text = text_of(value, column).strip()
      try:
        value = float(text)
      except ValueError:
        if text and not self._is_missing(value):
          raise BadRecord(f"column {column!r} is {text[:40]!r}, which is not a weight") from None
        value = None
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
      return 1.0
    # NaN is not taken for missing here: it is what becomes of a weight that was computed wrongly.
    try:
      weight = float(value)
    except (TypeError, ValueError):
      raise BadRecord(f"column {column!r} is a {type(value).__name__}, not a weight") from None
    if not 0 <= weight < float("inf"):
      raise BadRecord(f"column {column!r} is {weight:g}; a weight is a finite number, 0 or more")
    return weight

  def _given(self, value: Any) -> Any:
    """`value`; None for a text that `missing` lists."""
    if self._missing and isinstance(value, (str, bytes)):
      text = value if isinstance(value, str) else value.decode(errors="replace")
      return None if text.strip() in self._missing else value
    return value

  def _is_missing(self, value: Any) -> bool:
    return is_missing(self._given(value))

  def _texts(self, value: Any, column: str) -> list[str]:
    return [text for one in listed(value) for text in texts_of(self._given(one), column)]

  def _filled(self, row: Mapping[str, Any], labels: Mapping[str, int]) -> list[str]:
    """The captions that the template makes, one for each text of its column; none where a column is empty."""
    columns = columns_in(self._template)
    found = [[self._label_names[column][labels[column]]] if column in labels else
             [text for text in self._texts(row.get(column), column) if text.strip()] for column in columns]  # fmt: skip
    return fill(self._template, dict(zip(columns, found)))

  def paths(self, row: Mapping[str, Any], folder: str = "") -> dict[str, str]:
    """Where the images of `row` lie, by style, of those that are files; `folder` as of `record`."""
    found = {style: self._path(row.get(column), folder) for style, column in self._images.items()}
    return {style: path for style, path in found.items() if path}

  def files_of(self, row: Mapping[str, Any], folder: str = "") -> list[str]:
    """Where all that `row` names by a path lies; `folder` as of `record`."""
    things = [column for columns in self._things.values() for column in columns.values()]
    return [path for column in (*self._images.values(), *things) if (path := self._path(row.get(column), folder))]

  def _path(self, value: Any, folder: str) -> str:
    """Where the file of a value lies; "" of one that is no path."""
    if isinstance(value, Mapping):
      value = value.get("path") if is_missing(value.get("bytes")) else None
    if not isinstance(value, str) or self._is_missing(value) or self.options["base64"] or value.startswith("data:"):
      return ""
    return files.join(folder, value)

  def _thing(self, modality: str, column: str, row: Mapping[str, Any], folder: str) -> Any:
    """What a record holds of a further modality, of one column; None where there is nothing."""
    value = row.get(column)
    if self._is_missing(value):
      return None
    its = self._further[modality]
    raw = its.raw_of(value, column, row, self.options)
    if raw is None and its.folders and (parts := self._parts(its, value, column, folder)):
      found = [self._file(part, column, folder) for part in parts]
      if None in found:
        raise BadRecord(f"column {column!r}: frame {found.index(None)} is missing")
      return its.of_files(found)
    if raw is not None:
      return raw
    found, path = self._file(value, column, folder), self._path(value, folder)
    return its.of_file(found, files.beside(path)) if path and found is not None else found

  def _parts(self, modality: Modality, value: Any, column: str, folder: str) -> list[Any]:
    """The files of a thing that is several of them: of a list, or of the path of a folder; none of any other value."""
    if isinstance(value, list | tuple | np.ndarray):
      if not len(value):
        raise BadRecord(f"column {column!r} is an empty list")
      return list(value)
    path = self._path(value, folder)
    if not path or path.lower().endswith(modality.suffixes):
      return []
    found = [files.join(path, name) for name in modality.files_in(files.names_in(path))]
    if not found and files.is_folder(path):
      raise BadRecord(f"{path}: a folder without pictures")
    return found

  def _file(self, value: Any, column: str, folder: str) -> bytes | None:
    """An encoded image or the like; None where there is none."""
    if isinstance(value, Mapping):
      value = value.get("path") if is_missing(value.get("bytes")) else value["bytes"]
    if self._is_missing(value):
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
    return _read_file(folder, value)

  def _tags_of(self, value: Any) -> set[str]:
    column = self.options["tags"]
    if isinstance(value, (str, bytes)):
      value = text_of(value, column).split(self.options["tag_separator"])
    return {name_of(one, column) for one in self._texts(value, column) if not is_missing(one)}

  def _label(self, value: Any, column: str) -> int:
    if self._is_missing(value):
      raise BadRecord(f"column {column!r} is empty; a label is needed")
    text, at = name_of(value, column), self._label_at[column]
    number = number_of(text)
    if text in at and not (column in self._numbered and number is not None and not isinstance(value, (str, bytes))):
      return at[text]
    # An index into the names; where these are numbers themselves, it would be now this one and now that.
    if number is not None and number < len(at) and (column in self._numbered or not self._are_numbers[column]):
      return number
    raise BadRecord(f"column {column!r} is {text[:40]!r}, which is not one of its {len(at)} names")


def _names(value: Any, where: str) -> tuple[str, ...]:
  names = () if value is None else (value,) if isinstance(value, str) else value
  if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
    raise UserError(f"{where}: {value!r} is not a name or a list of names")
  if len(set(names)) < len(names):
    twice = next(name for at, name in enumerate(names) if name in names[:at])
    hint = "; names for zero-shot, of which two may be equal, go into evaluation.evaluators.zero_shot.names"
    hint = hint if ".label_names." in where else ""
    raise UserError(f"{where}: {twice!r} is given twice{hint}")
  return tuple(names)


def _values(option: Any) -> tuple:
  if isinstance(option, Mapping):
    return tuple(option.values())
  return tuple(option) if isinstance(option, (list, tuple)) else (option,)


def fill(template: str, texts: Mapping[str, Sequence[str]]) -> list[str]:
  """The captions of a template such as "a photo of a {class}": one for each choice of its columns' texts."""
  made = [template.strip()]
  for column, found in texts.items():
    made = [caption.replace(f"{{{column}}}", text.strip()) for caption in made for text in found]
  return made


def template_of(option: Any, where: str) -> str:
  """`option` where it is a text with columns in braces, else ""."""
  if not isinstance(option, str) or not set("{}") & set(option):
    return ""
  try:
    parts = list(string.Formatter().parse(option))
  except ValueError:
    parts = [("", "", None, None)]
  if any(column == "" or spec or conversion for _, column, spec, conversion in parts):
    raise UserError(f"{where}: {option!r} is not a text with columns in braces, such as 'a photo of a {{class}}'")
  return option


def columns_in(template: Any) -> tuple[str, ...]:
  """The columns that a template names."""
  try:
    named = [column for _, column, _, _ in string.Formatter().parse(template) if column]
  except (ValueError, TypeError):  # no template
    return ()
  return tuple(dict.fromkeys(named))


def _read_file(folder: str, path: str) -> bytes:
  """The file at `path`; where it is not there, at the path without white space round it and backslashes in it."""
  try:
    return files.read(files.join(folder, path))
  except FileNotFoundError as error:
    other = path.strip().replace("\\", "/")
    if other[1:3] == ":/" or path.startswith("\\\\"):
      raise FileNotFoundError(f"{error} (a Windows path: write it relative to the table's folder, with "
                              "/)") from None  # fmt: skip
    if other == path:
      raise
    return files.read(files.join(folder, other))
