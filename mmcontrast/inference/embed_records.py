"""The records of a source through a model: rows, and what each is of, part by part. `embed` and `search` use it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import numpy as np

from mmcontrast.data.attempts import Attempts
from mmcontrast.data.sources import BadRecord, Record, Source
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import one_line
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.inference import Inference
from mmcontrast.inference.embeddings import Rows
from mmcontrast.modalities import MODALITIES, Modality, nothing_of, stacked

_SHOWN = 5  # bad records that are named

Values = list[tuple[dict, Any]]
"""What each row is of, by column, and what the model sees."""


class Wanted(NamedTuple):
  """What of a record is embedded: `kind` of `Inference.embed`, and how its values are read."""

  kind: str
  modality: str
  read: Callable[[Record, Mapping], Values]
  columns: tuple[str, ...]


class Part(NamedTuple):
  """The records `indices`: rows by the name of what was wanted, index -> why of the bad ones, and a digest of all."""

  indices: range
  rows: dict[str, Rows]
  bad: dict[int, str]
  digest: str


def wanted_of(kinds: Sequence[str], model: Inference, style: str | None = None) -> dict[str, Wanted]:
  """The things of a record, of each modality among `kinds`; of those that a set shows one of, that of one style."""
  return {
    kind: Wanted(
      model.kind_of(kind), kind, functools.partial(_things, MODALITIES[kind], model.data, style), columns_of(kind)
    )
    for kind in kinds
  }


def columns_of(modality: str) -> tuple[str, ...]:
  """What is kept of each thing of a modality: see embeddings.Rows."""
  return ("index", "id", "name", "path", MODALITIES[modality].key, "text")


def describe(modality: Modality, record: Record, what: Mapping, key: str, raw: Any, data: Mapping) -> dict:
  """What a thing of a record is, by column. `what`: of the record."""
  paths = record.get("paths", {})
  words = isinstance(raw, str)
  path = next(iter(paths.values()), "") if words else paths.get(key, "")
  return {**what, modality.key: key, "path": path, "text": raw if words else caption_of(record, data)}


def _things(modality: Modality, data: Mapping, style: str | None, record: Record, what: Mapping) -> Values:
  return [
    (describe(modality, record, what, key, raw, data), modality.evaluation_view(raw, data))
    for key, raw in modality.values(record, data)
    if style in (None, key) or modality.shows_all
  ]


def caption_of(record: Record, data: Mapping) -> str:
  """The first caption of a record, "" where it has none."""
  return next((text for _, text in MODALITIES[PROMPTS].values(record, data)), "")


class Embedder:
  """Embeds records; a context, which ends the threads that read.

  A bad record is left out and named, `data.on_error` of the run says how reads are tried again.
  """

  def __init__(self, model: Inference, source: Source, wanted: Mapping[str, Wanted]):
    self._model, self._source, self._wanted = model, source, dict(wanted)
    self._size = model.config["evaluation"]["batch_size"]
    self._attempts = Attempts(model.data["on_error"])
    self._pool = futures.ThreadPoolExecutor(model.data["read"]["threads"])

  def __enter__(self) -> Embedder:
    return self

  def __exit__(self, *error: object) -> None:
    self._attempts.close()
    self._pool.shutdown()

  def digest(self, indices: range) -> str:
    """What tells the records `indices` from others that may take their places; images are not read where a source
    can do without."""
    return _digest(self._pool.map(self._key, indices))

  def embed(self, indices: range, advance: Callable[[int], None] = lambda count: None) -> Part:
    """Embeds the records at `indices`; `advance` is called as they are done."""
    streams = {name: _Stream(functools.partial(self._rows, one.kind), self._size) for name, one in self._wanted.items()}
    bad, keys, waiting = {}, [], []
    for start in [*range(0, len(indices), self._size), None]:
      part = indices[start : start + self._size] if start is not None else range(0)
      begun = [(index, self._pool.submit(self._read, index)) for index in part]
      for index, job in waiting:  # those of the part before: one is read while the model is at work
        key, found = job.result()
        keys.append(key)
        if isinstance(found, str):
          bad[index] = found
        else:
          for name, values in found.items():
            streams[name].add(values)
        advance(1)
      waiting = begun
    rows = {name: stream.end(self._wanted[name].columns) for name, stream in streams.items()}
    return Part(indices, rows, bad, _digest(keys))

  def _rows(self, kind: str, values: list, name: Callable[[int], str]) -> Any:
    rows = self._model.embed(kind, stacked(values), name)
    return unit(rows) if self._model.parsed(kind).field else rows

  def _key(self, index: int) -> str:
    try:
      return self._attempts(lambda: key_of(self._source, index))
    except (BadRecord, OSError) as error:
      return one_line(error)

  def _read(self, index: int) -> tuple[str, dict[str, Values] | str]:
    key = ""
    try:
      record = self._attempts(lambda: self._source[index])
      key = key_of(self._source, index, record)
      return key, self._values(record, index)
    except (BadRecord, OSError) as error:
      return key or self._key(index), one_line(error)

  def _values(self, record: Record, index: int) -> dict[str, Values]:
    what = {"index": index, "id": record["id"], "name": record["name"]}
    try:
      found = {name: one.read(record, what) for name, one in self._wanted.items()}
      if not any(found.values()):
        raise BadRecord(nothing_of(MODALITIES[one.modality] for one in self._wanted.values()))
      return found
    except BadRecord as error:
      raise BadRecord(f"{record['name']}: {error}") from None


def some(bad: Mapping[int, str]) -> str:
  """The first of the bad records, with why."""
  named = "; ".join(f"record {index}: {reason}" for index, reason in sorted(bad.items())[:_SHOWN])
  return named + (f"; and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")


@contextlib.contextmanager
def progress(total: int, doing: str = "embedding") -> Iterator[Callable[[int], None]]:
  """A bar on the terminal, of records or shards; gives the function that moves it on."""
  from rich.console import Console
  from rich.progress import Progress

  console = Console(file=sys.stderr)
  with Progress(console=console, disable=not console.is_terminal) as bar:
    task = bar.add_task(doing, total=total)
    yield lambda count: bar.advance(task, count)


class _Stream:
  """Values of one kind, embedded in whole batches as they come."""

  def __init__(self, function: Callable[[list, Callable[[int], str]], Any], size: int):
    self._function, self._size = function, size
    self._what: list[dict] = []
    self._waiting: list = []
    self._rows: list[Any] = []
    self._done = 0

  def add(self, found: Values) -> None:
    self._what += [what for what, _ in found]
    self._waiting += [value for _, value in found]
    while len(self._waiting) >= self._size:
      self._embed(self._size)

  def end(self, columns: Sequence[str]) -> Rows:
    """All rows, the rest embedded too."""
    if self._waiting:
      self._embed(len(self._waiting))
    rows = jax.tree.map(lambda *parts: np.concatenate(parts), *self._rows or [np.zeros((0, 0), np.float32)])
    return Rows(rows, {name: [what[name] for what in self._what] for name in columns})

  def _embed(self, count: int) -> None:
    done = self._done
    self._rows.append(self._function(self._waiting[:count], lambda row: repr(self._what[done + row]["name"])))
    self._done += count
    del self._waiting[:count]


def _digest(keys: Iterable[str]) -> str:
  digest = hashlib.blake2b(digest_size=8)
  for key in keys:
    digest.update(f"{key}\0".encode(errors="surrogatepass"))
  return digest.hexdigest()
