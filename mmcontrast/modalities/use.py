"""A modality in use: how its things are taken from records and from outside, what a model sees of them, what a person.

A thing is stored encoded (`raw`: the bytes of a file, a string). As evaluation shows it, it is a `value`: an array, or
a string. A batch of values is what the model's function takes on the device.
"""

from __future__ import annotations

import abc
import collections
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Any, ClassVar, NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError, one_line


class Shown(NamedTuple):
  """How a person sees, or hears, a thing: a picture uint8 [H, W, 3] or None; words, "" for none; a file's suffix and
  bytes, or None."""

  picture: np.ndarray | None = None
  words: str = ""
  file: tuple[str, bytes] | None = None


class InUse(abc.ABC):
  """What everything after training asks of a modality.

  Attributes:
    name: "image". a: "an image", nouns: "images", as messages call things.
    asked: what a search is asked by: "the path of an image". taken: what to give, where something is no such thing.
    words: whether its things are texts. pictured: whether `show` gives a picture; heard: whether a file to play, too.
    derived: whether its things are another modality's, which already says what records have of them.
    shows_all: whether an evaluation set shows all of an example's things, or those of one key only.
    field: of a record, which holds them. key: what their keys are called there: "style".
    suffixes: how the names of its files end. folders: whether a folder of files may be one thing, and a list of them.
    source_options: keys of config.data.source and their defaults, of tables whose columns hold it; the one called as
      the modality names the column, or is {key: column}. Images and captions have options in all sources.
  """

  name: ClassVar[str]
  a: ClassVar[str]
  nouns: ClassVar[str]
  asked: ClassVar[str]
  taken: ClassVar[str] = "give a path or the bytes of a file"
  field: ClassVar[str]
  key: ClassVar[str] = "column"
  words: ClassVar[bool] = False
  pictured: ClassVar[bool] = True
  heard: ClassVar[bool] = False
  derived: ClassVar[bool] = False
  shows_all: ClassVar[bool] = True
  suffixes: ClassVar[tuple[str, ...]] = ()
  folders: ClassVar[bool] = False
  source_options: ClassVar[Mapping[str, Any]] = {}

  # From tables and records.

  def raw_of(self, value: Any, column: str, row: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """What a record holds of the value in a column of a row; None for what stands for a file: bytes, a path, base64.

    Args:
      options: all of config.data.source.

    Raises BadRecord.
    """
    return None

  def files_in(self, names: Sequence[str]) -> list[str]:
    """Of the names of files in a folder those that make one thing, in order; of a modality with `folders`."""
    raise NotImplementedError

  def of_files(self, files: Sequence[bytes]) -> bytes:
    """What a record holds of several files that are one thing; of a modality with `folders`."""
    raise NotImplementedError

  def of_file(self, data: bytes, beside: Callable[[str], bytes | None]) -> bytes:
    """What a record holds of a file: its bytes, or what is made of it and of files beside it, which `beside` reads by
    name (None: there is no such file)."""
    return data

  def columns(self, info: Any) -> Sequence[str]:
    """The keys of the things that records of a source may have, by its `Info`; none: it has nothing of the modality."""
    return info.keys.get(self.name, ())

  def values(self, record: Mapping, settings: Mapping | None = None) -> list[tuple[str, Any]]:
    """(key, raw) of all of a record's things: those that resolved config.data lets pass, or as they are stored."""
    return list(record.get(self.field, {}).items())

  def of_view(self, record: Mapping, settings: Mapping, view: int, style: str | None = None) -> tuple[str, Any] | None:
    """(key, raw) of what view number `view` of a record is in evaluation; None where it has none. `style`: the only
    key that counts."""
    found = [(key, raw) for key, raw in self.values(record, settings) if style in (None, key)]
    return found[view % len(found)] if found else None

  def lacks(self, info: Any, settings: Mapping, view: int) -> str:
    """What a source lacks that view number `view` shows, for messages; "" where it has it."""
    return "" if self.columns(info) else self.nouns

  @abc.abstractmethod
  def evaluation_view(self, raw: Any, settings: Mapping) -> Any:
    """The value of a thing, the same whenever it is asked for. Raises BadRecord."""

  # From outside.

  def many(self, things: Any, where: str) -> list:
    """One thing or many as a list. Raises UserError, which begins with `where`."""
    return [things] if self.takes(things) else as_list(things, where, f"not {self.a}", self.taken)

  def takes(self, thing: Any) -> bool:
    """Whether something may be one thing of the modality, by its type."""
    return isinstance(thing, str | os.PathLike | bytes | bytearray)

  def opened(self, data: bytes) -> Any:
    """A thing of the bytes of a file, read whole and checked. Raises BadRecord."""
    self.check_raw(data)
    return data

  def checked(self, thing: Any, name: str) -> Any:
    """A thing from outside, opened. Raises UserError, which begins with `name`, for what is none."""
    try:
      return self.opened(self.file_of(thing, name))
    except BadRecord as error:
      raise UserError(f"{_called(thing, name)}: {error}; {self.taken}") from None

  def accepts(self, thing: Any, settings: Mapping, name: str) -> Any:
    """The value of a thing from outside. Raises UserError, which begins with `name`, for what is none."""
    try:
      return self.evaluation_view(self.file_of(thing, name), settings)
    except BadRecord as error:
      raise UserError(f"{_called(thing, name)}: {error}; {self.taken}") from None

  def file_of(self, thing: Any, name: str) -> bytes:
    """The bytes of a file: those of a path, or as they are. Raises UserError."""
    if isinstance(thing, bytes | bytearray | memoryview):
      return bytes(thing)
    if not isinstance(thing, str | os.PathLike):
      raise UserError(f"{name}: {shown(thing)} is not {self.a}; {self.taken}")
    try:
      return place_of(thing).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a path that no system has
      reason, path = getattr(error, "strerror", None) or one_line(error), os.fspath(thing)
      hint = "; download it first" if "://" in str(path) else ""
      raise UserError(f"{path}: {reason}; give the path of {self.a}{hint}") from None

  # To the model.

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> Any:
    """N values, or what is such a batch already, as the arrays of one view: [N, ...], or name -> [N, ...]."""
    return np.asarray(values)

  def seen(self, values: Sequence, settings: Mapping, tokenizer: Any) -> Sequence:
    """What the model sees of N values: equal ones are one to it."""
    return values

  def without_padding(self, batch: Any, settings: Mapping) -> Any:
    """A batch without what pads all of it, of few different lengths; for towers that do not see padding."""
    return batch

  # To a person.

  def size(self, settings: Mapping) -> str:
    """What a model sees: "images of 224 px"."""
    return self.nouns

  def cut_line_of(self, name: str, values: Sequence, settings: Mapping, tokenizer: Any) -> str:
    """What the limits of a run cut from the things of a set, in a line; "" where nothing is cut."""
    return ""

  @abc.abstractmethod
  def show(self, thing: Any) -> Shown:
    """A thing, encoded or as evaluation shows it, for a person. Raises BadRecord."""

  def described(self, records: Sequence[Sequence[Any]]) -> str:
    """The encoded things that records have of one key, in a line of `mmcontrast data inspect`."""
    found = [raw for things in records for raw in things]
    if not found:
      return f"none in {len(records)} records"
    each = sum(map(len, found)) / len(found) / 1024
    kinds = frequent(collections.Counter(self.describe(raw).split(",")[0] for raw in found))
    return f"{len(found)} of {len(records)} records; {kinds}; {each:.1f} KiB each"

  def describe(self, raw: Any) -> str:
    """One encoded thing, in a line."""
    return f"{len(raw)} bytes"

  def check_raw(self, raw: Any) -> None:
    """Raises BadRecord for an encoded thing that training could not read."""
    self.show(raw)


def place_of(thing: str | os.PathLike) -> folders.Folder:
  """Where a file from outside is: on this machine, or in an object store."""
  return folders.at(thing, "file") if folders.of_store(thing) else pathlib.Path(thing)


def is_array(value: Any) -> bool:
  """numpy's, JAX's, and torch's tensors on a CPU."""
  return hasattr(value, "ndim") and hasattr(value, "__array__")


def as_list(values: Any, where: str, what: str, instead: str) -> list:
  """Many things as a list. Raises UserError: `values` is `what`; `instead`."""
  if isinstance(values, Mapping | Set):
    raise UserError(f"{where}: a {type(values).__name__} has no order; give a list")
  try:
    return list(values)
  except TypeError:
    raise UserError(f"{where}: {shown(values)} is {what}; {instead}") from None


def shown(value: Any) -> str:
  """A value in a message: as it is where that is short, else its type."""
  if value is None or isinstance(value, str | bytes | bytearray | int | float | list | tuple | os.PathLike):
    return one_line(repr(value), 40)
  return f"a {type(value).__name__}"


def stacked(values: Sequence[Any]) -> Any:
  """Values as one array where they have one shape."""
  arrays = all(isinstance(value, np.ndarray) for value in values)
  return np.stack(values) if arrays and len({value.shape for value in values}) == 1 else list(values)


def frequent(counts: Mapping[str, int], most: int = 12) -> str:
  """The most frequent of what was counted, with the numbers."""
  ordered = [(name, count) for name, count in sorted(counts.items(), key=lambda item: -item[1]) if count]
  more = f", ... {len(ordered) - most} more" if len(ordered) > most else ""
  return ", ".join(f"{name} {count}" for name, count in ordered[:most]) + more


def nothing_of(modalities: Iterable[InUse]) -> str:
  """Says that a record has nothing of any of them."""
  names = [modality.a for modality in modalities]
  alone = names[0].partition(" ")[2] if names else "thing"
  return f"neither {' nor '.join(names)}" if len(names) > 1 else f"no {alone}"


def _called(thing: Any, name: str) -> str:
  return os.fspath(thing) if isinstance(thing, str | os.PathLike) else name
