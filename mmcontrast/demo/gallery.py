"""What a demo searches: the things of a source or an evaluation set, or what `mmcontrast embed` made."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmcontrast.data.sources import BadRecord, Source
from mmcontrast.errors import UserError, one_line
from mmcontrast.evaluation import nearest
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import Embedder, progress, some, wanted_of
from mmcontrast.inference.embedding_index import nearest_rows
from mmcontrast.inference.embeddings import Embeddings, Rows
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.use import Shown


class Near(NamedTuple):
  """A thing that was found: its place among those of its modality, its cosine, and what it is, by column."""

  place: int
  cosine: float
  what: dict[str, Any]


class Gallery(Protocol):
  """Things by modality. `counts`: modality -> how many."""

  counts: dict[str, int]

  def nearest(self, kind: str, row: np.ndarray, count: int) -> list[Near]:
    """The nearest to a unit row, the nearest first."""

  def what(self, kind: str, place: int) -> dict[str, Any]:
    """What a thing is, by column. Raises IndexError."""


class InMemory:
  """All rows of a source at once, each modality that the run embeds and the source has."""

  def __init__(self, model: Inference, source: Source, kinds: Sequence[str], style: str | None):
    with Embedder(model, source, wanted_of(kinds, model, style)) as embedder, progress(len(source)) as advance:
      part = embedder.embed(range(len(source)), advance)
    self._rows: dict[str, Rows] = {kind: rows for kind, rows in part.rows.items() if len(rows.rows)}
    self.bad = part.bad
    self.counts = {kind: len(rows.rows) for kind, rows in self._rows.items()}

  def nearest(self, kind: str, row: np.ndarray, count: int) -> list[Near]:
    found = nearest.exact(row, [self._rows[kind].rows], count)
    return [Near(place, cosine, self.what(kind, place)) for place, cosine in zip(*map(np.ndarray.tolist, found))]

  def what(self, kind: str, place: int) -> dict[str, Any]:
    return {name: values[place] for name, values in self._rows[kind].columns.items()}

  def bad_line(self, total: int) -> str:
    """What was left out, in a line; "" where nothing was."""
    return f"{len(self.bad)} of {total} records are left out: {some(self.bad)}" if self.bad else ""


class OfFolder:
  """The embeddings in a folder, read shard by shard or by their index."""

  def __init__(self, there: Embeddings):
    self._there, self._lock = there, threading.Lock()
    self.counts = {kind: sum(there.counts(kind)) for kind in there.manifest["kinds"]}
    self.counts = {kind: count for kind, count in self.counts.items() if count}

  def nearest(self, kind: str, row: np.ndarray, count: int) -> list[Near]:
    with self._lock:
      found = nearest_rows(self._there, kind, row, count, 0)
      what = self._there.describe(kind, found.index)
    return [Near(*one) for one in zip(found.index.tolist(), found.cosine.tolist(), what)]

  def what(self, kind: str, place: int) -> dict[str, Any]:
    if not 0 <= place < self.counts[kind]:
      raise IndexError(place)
    with self._lock:
      return self._there.describe(kind, np.array([place]))[0]


class Shower:
  """Shows the things of a gallery as they are in the source, which is opened when the first is asked for."""

  def __init__(self, opened: Callable[[], Source]):
    self._opened, self._source, self._lock = opened, None, threading.Lock()

  def show(self, kind: str, what: dict[str, Any]) -> Shown:
    """A thing for a person. Raises UserError where the source is not what it was."""
    modality = MODALITIES[kind]
    if modality.words:
      return Shown(words=what["text"])
    with self._lock:
      if self._source is None:
        self._source = self._opened()
      try:
        raw = dict(modality.values(self._source[what["index"]]))[what[modality.key]]
        return modality.show(raw)
      except (BadRecord, OSError, KeyError, IndexError) as error:
        raise UserError(
          f"{what['name']} cannot be shown ({one_line(error)}): the data are not what they were when they were embedded"
        ) from None
