"""The things of records, by modality, as a model's evaluation shows them: each decoded once, arrays kept as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.sources import BadRecord, Record
from mmcontrast.modalities import Modality, nothing_of


class Things(NamedTuple):
  """N things of one modality.

  values: what a model embeds, as the modality's evaluation gives it: uint8 [N, H, W, 3], N texts.
  concept: int [N]; things of equal numbers belong together, whatever their modality.
  example: int [N], the place of the example that each is of; -1: of none.
  """

  values: Any
  concept: np.ndarray
  example: np.ndarray

  def of_examples(self, values: np.ndarray, absent: Any) -> np.ndarray:
    """`values` [E, ...] of the examples as those of the things, [N, ...]; `absent` where a thing is of none."""
    if len(values):
      out = values[self.example]
      return np.where((self.example < 0).reshape(-1, *[1] * (out.ndim - 1)), np.array(absent, out.dtype), out)
    return np.full((len(self.example), *values.shape[1:]), absent, values.dtype)


def taken_at(values: Any, index: Sequence[int] | np.ndarray) -> Any:
  """The values of things at some places: of an array, or of a list."""
  return values[np.asarray(index)] if isinstance(values, np.ndarray) else [values[place] for place in index]


class ExampleViews(NamedTuple):
  """The views of one modality that terms read of each example: `values`, and where among them, int [V, E]; -1: none."""

  values: Any
  index: np.ndarray


class ReadThings:
  """Reads records one after the other.

  Args:
    shown: the modalities that are read.
    styles: modality -> the only key of its things that is shown.
    data: resolved config.data.
    records: how many there may be.

  Attributes:
    records: what was read of the examples, without what is encoded.
    left_out: modality -> how many records are left out since they have nothing of it.
  """

  def __init__(self, shown: Mapping[str, Modality], styles: Mapping[str, str], data: Mapping, records: int):
    self._shown, self._styles, self._data = shown, styles, data
    self.records: list[dict] = []
    self.left_out: dict[str, int] = {}
    self._columns = {one: _Column(records) for one in shown}
    self._views: dict[str, list[list[int]]] = {one: [] for one in shown}
    self._words: dict[str, list[str]] = {one: [] for one, modality in shown.items() if modality.words}
    self._aside: list[tuple[set[str], Record, dict]] = []
    self._has: set[str] = set()

  def add(self, record: Record) -> None:
    """Reads a record. Raises BadRecord where it has nothing, or something that cannot be read."""
    raw = {one: modality.values(record, self._data) for one, modality in self._shown.items()}
    self._has |= {one for one, found in raw.items() if found}
    lacking = {one for one, found in raw.items() if not found and not self._shown[one].words}
    if lacking and self._data["missing"] == "skip":
      self._aside.append((lacking, record, raw))
    else:
      self._add(record, raw)

  def end(self) -> list[str]:
    """Adds what lacks only what all records lack; returns why some of it is bad."""
    bad = []
    for lacking, record, raw in self._aside:
      if lacking & self._has:
        first = next(one for one in self._shown if one in lacking & self._has)
        self.left_out[first] = self.left_out.get(first, 0) + 1
        continue
      try:
        self._add(record, raw)
      except BadRecord as error:
        bad.append(f"{record['name']}: {error}")
    return bad

  def things(self) -> dict[str, Things]:
    """Those of each modality."""
    return {one: column.things() for one, column in self._columns.items()}

  def views(self) -> dict[str, ExampleViews]:
    """Those that terms read, of each modality."""
    things = self.things()
    return {
      one: ExampleViews(
        self._words.get(one, things[one].values),
        np.array(places, np.int64).reshape(len(self.records), self._data["views"][one]).T,
      )
      for one, places in self._views.items()
    }

  def _add(self, record: Record, raw: Mapping[str, list[tuple[str, Any]]]) -> None:
    shown = {
      one: [(key, value) for key, value in found if self._styles.get(one, key) == key] for one, found in raw.items()
    }
    if not any(shown.values()):
      raise BadRecord(nothing_of(self._shown.values()))
    # First all that may be bad, so that no half of an example is kept.
    values = {
      one: [(key, self._shown[one].evaluation_view(value, self._data)) for key, value in found]
      for one, found in shown.items()
    }
    example = len(self.records)
    self.records.append({key: record[key] for key in ("name", "id", "labels", "tags")})
    for one, modality in self._shown.items():
      places = {key: self._columns[one].add(value, record["id"], example) for key, value in values[one]}
      self._views[one].append([self._view(modality, record, places, view) for view in range(self._data["views"][one])])

  def _view(self, modality: Modality, record: Record, places: Mapping[str, int], view: int) -> int:
    found = modality.of_view(record, self._data, view, self._styles.get(modality.name))
    if found is None or not modality.words:
      return -1 if found is None else places.get(found[0], -1)
    self._words[modality.name].append(found[1])
    return len(self._words[modality.name]) - 1


class _Column:
  """The things of one modality: strings, or arrays; where all are of one shape they are one array, which is made
  once, else a list."""

  def __init__(self, room: int):
    self._room = room
    self._values: Any = []
    self._concept: list[int] = []
    self._example: list[int] = []

  def add(self, value: Any, concept: int, example: int) -> int:
    """Adds a thing; returns its place."""
    place = len(self._concept)
    self._concept.append(concept)
    self._example.append(example)
    if isinstance(value, np.ndarray) and value.ndim > 1 and self._are_alike(value, place):
      if not place:
        self._values = np.zeros((self._room, *value.shape), value.dtype)
      elif place == len(self._values):
        self._values = np.concatenate([self._values, np.zeros_like(self._values)])
      self._values[place] = value
    else:
      self._values.append(value)
    return place

  def _are_alike(self, value: np.ndarray, place: int) -> bool:
    """Whether all things so far are of the shape of `value`; the first that is not makes them a list."""
    if place and isinstance(self._values, np.ndarray) and self._values.shape[1:] != value.shape:
      self._values = list(self._values[:place])
    return not place or isinstance(self._values, np.ndarray)

  def things(self) -> Things:
    """All that were added."""
    count = len(self._concept)
    return Things(self._values[:count], np.array(self._concept, np.int64), np.array(self._example, np.int64))
