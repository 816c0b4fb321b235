"""What is known of each record of a set, shard by shard, and the index of those that are kept by it.

manifest.json, 00003.json     made_shards.py
00003.exact.npy               a column of shard 3: a row a record, or rows that name their record
kept.npy, kept.json           written when all shards are there: sources/kept.py
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import Any

import numpy as np

from mmcontrast import folders
from mmcontrast.data import made_shards
from mmcontrast.data.attempts import Attempts
from mmcontrast.data.made_shards import MadeShards
from mmcontrast.data.record import BadRecord, Record, Source
from mmcontrast.data.settings import defaults
from mmcontrast.data.sources.kept import NOTES
from mmcontrast.data.sources.keys import key_of
from mmcontrast.errors import UserError, one_line

Measure = Callable[[int, Record], Mapping[str, Any]]
"""(number of a record, the record) -> column -> its row, or rows. Raises BadRecord."""
_THREADS = 8


class Survey(MadeShards):
  """Columns over the records of a set."""

  def write(self, shard: int, columns: Mapping[str, np.ndarray], bad: Mapping[int, str], digest: str) -> None:
    """Writes a shard: its columns, its bad records and a digest of all."""
    self.forget(shard)
    for name, rows in columns.items():
      with folders.written(self._path(shard, name)) as scratch, scratch.open("wb") as file:
        np.save(file, rows)
    self.finish(shard, {"bad": dict(bad), "digest": digest})

  def column(self, name: str) -> np.ndarray:
    """A column of all shards, one after another."""
    parts = []
    for shard in range(self.manifest["shards"]):
      with folders.fetched(self._path(shard, name)) as file:
        parts.append(np.load(file))
    return np.concatenate(parts)

  def digest_of_all(self) -> str:
    """Of what all shards were made of."""
    words = [self.digest(shard) for shard in range(self.manifest["shards"])]
    return hashlib.blake2b(" ".join(words).encode(), digest_size=8).hexdigest()

  def is_kept(self, more: str) -> bool:
    """Whether kept.json is there, and of these shards and of `more`."""
    file = self.folder / NOTES
    return file.is_file() and json.loads(file.read_text()).get("digest") == self.digest_of_all() + more

  def _path(self, shard: int, name: str) -> folders.Folder:
    return self.folder / f"{shard:05d}.{name}.npy"


def begin(out: str | os.PathLike, manifest: Mapping[str, Any]) -> Survey:
  """The survey in `out`, new or to be gone on with. Raises UserError when it holds another, or something else."""
  path = folders.at(out, "--out")
  whole = {**manifest, "shards": -(-manifest["records"] // manifest["records_a_shard"])}
  there = made_shards.begin(path, whole, "--out")
  given = json.loads(json.dumps(whole))
  if there.get("command") != given["command"]:
    raise UserError(f"--out {out}: holds {there.get('command', 'something else')}; give an empty folder")
  for key in sorted(given.keys() - {"records_a_shard", "shards"}):
    if there.get(key) != given[key]:
      raise UserError(
        f"--out {out}: holds {given['command']} of another {key} ({there.get(key)}, now {given[key]}); give an empty "
        "folder, or remove this one"
      )
  return Survey(path, there)


class Reading:
  """Reads records with several threads, again where a read fails; a context."""

  def __init__(self, source: Source):
    self._source = source
    self._attempts = Attempts(defaults()["on_error"])
    self._pool = futures.ThreadPoolExecutor(_THREADS)

  def __enter__(self) -> Reading:
    return self

  def __exit__(self, *error: object) -> None:
    self._attempts.close()
    self._pool.shutdown()

  def digest(self, indices: range) -> str:
    """What tells the records from others that may take their places."""
    digest = hashlib.blake2b(digest_size=8)
    for key in self._pool.map(self._key, indices):
      digest.update(f"{key}\0".encode(errors="surrogatepass"))
    return digest.hexdigest()

  def measured(
    self, indices: range, measure: Measure, advance: Callable[[int], None]
  ) -> tuple[list[Mapping[str, Any] | None], dict[int, str]]:
    """(what `measure` says of each record, None of a bad one; why those are bad)."""

    def one(index: int) -> Mapping[str, Any] | str:
      try:
        return measure(index, self._attempts(lambda: self._source[index]))
      except (BadRecord, OSError) as error:
        return one_line(error)

    found, bad = [], {}
    with contextlib.closing(self._pool.map(one, indices)) as rows:
      for index, row in zip(indices, rows):
        found.append(None if isinstance(row, str) else row)
        if isinstance(row, str):
          bad[index] = row
        advance(1)
    return found, bad

  def _key(self, index: int) -> str:
    try:
      return self._attempts(lambda: key_of(self._source, index))
    except (BadRecord, OSError) as error:
      return one_line(error)
