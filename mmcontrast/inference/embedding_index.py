"""An index of embeddings: inverted lists in files of their own, into which a search looks without loading them.

    manifest.json       the embeddings it is of, their model, the modality, the width
    quantiser.faiss     the centres of the lists, trained once, by whoever comes first
    00003.faiss         the lists of a hundred shards of the embeddings; rows of another file have the same centres
    00003.json          written last: those are done; of what rows they are

Candidates of the lists are compared again by their rows, which are read from the embeddings: so a cosine is exact.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmcontrast import folders
from mmcontrast.data import made_shards
from mmcontrast.data.made_shards import MANIFEST, Made, MadeShards
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation import inverted_lists, nearest
from mmcontrast.evaluation.embed import unit
from mmcontrast.inference.embeddings import SHARD, Embeddings
from mmcontrast.modalities import MODALITIES

LARGE = 1_000_000  # rows, from which on an index is worth its making
SHARDS_A_FILE = 100
_COMMAND = "index"
_LOOKED_AT = 64  # shards, which say how many rows there are and where the centres are
_CANDIDATES = 8  # for each that is asked for, compared again by their rows,
_FEWEST = 64  # at least so many


class EmbeddingIndex(MadeShards):
  """The index in a folder. Raises UserError when there is none, or it is not whole.

  `records` of its manifest are shards of the embeddings.
  """

  def __init__(self, folder: str | os.PathLike, option: str = "--index"):
    path = folders.local(folder, option, "an index is mapped from a disk")
    file = path / MANIFEST
    make = f"mmcontrast index EMBEDDINGS --out {folder}"
    if not file.is_file():
      raise UserError(f"{option} {folder}: no index there; make one: {make}")
    manifest = json.loads(file.read_text())
    if manifest.get("command") != _COMMAND:
      embeddings = "; search embeddings with --embeddings, or index them" if "kinds" in manifest else ""
      raise UserError(
        f"{option} {folder}: holds {manifest.get('command', 'embeddings')}, no index{embeddings}: "
        f"{make.replace('EMBEDDINGS', str(folder)).replace(f'--out {folder}', '--out DIR') if embeddings else make}"
      )
    super().__init__(path, manifest)
    if missing := manifest["shards"] - len(self.done):
      raise UserError(
        f"{option} {folder}: {missing} of {manifest['shards']} files of the index are not made yet; run the rest of "
        f"mmcontrast index {manifest['embeddings']} --out {folder}"
      )
    self.kind, self.width, self.option = manifest["kind"], manifest["width"], f"{option} {folder}"
    self._lists: inverted_lists.Lists | None = None

  def embeddings(self, folder: str | os.PathLike | None = None) -> Embeddings:
    """The embeddings that it is of, where they were or in `folder`. Raises UserError when those are others."""
    there = Embeddings(folder or self.manifest["embeddings"])
    if (wrong := _other(self.manifest, there)) is not None:
      raise UserError(f"{self.option}: is of {wrong} than {there.folder} has; give its embeddings, or index them again")
    return there

  def nearest(self, there: Embeddings, row: np.ndarray, count: int, probes: int = 0) -> nearest.Neighbours:
    """Of a unit row [D] the nearest of `there`: ids and exact cosines. One of the nearest may be missed.

    Args:
      there: what `embeddings` gives.
      probes: into how many lists to look; 0: the usual number (inverted_lists.py).
    Raises UserError: a shard among them has been embedded again since.
    """
    if self._lists is None:
      files = [self._file(group) for group in self.done if self.note(group)["rows"]]
      self._lists = inverted_lists.Lists(self.folder / "quantiser.faiss", files)
    ids = self._lists.candidates(row, max(_FEWEST, _CANDIDATES * count), probes)
    rows = there.rows_of(self.kind, ids)
    cosine = (unit(rows[:, : self.width]) if self.width else rows) @ row
    best = np.lexsort((ids, -cosine))[:count]
    for shard in np.unique(ids[best] // SHARD).tolist():
      group, place = divmod(shard, self.manifest["records_a_shard"])
      if there.digest(shard) != self.note(group)["digests"][place]:
        raise UserError(
          f"{self.option}: shard {shard} of {there.folder} has been embedded again since; run mmcontrast index again"
        )
    return nearest.Neighbours(ids[best], cosine[best])

  def _file(self, group: int) -> folders.Folder:
    return self.folder / f"{group:05d}.faiss"


class Indexer:
  """Makes the files of an index, as a worker of `bulk.make_shards`; a context.

  Raises UserError: no embeddings, none of the modality, not all made; `out` holds something else; no faiss.
  """

  def __init__(self, embeddings: str | os.PathLike, out: str | os.PathLike, kind: str | None = None, width: int = 0):
    self._there = there = Embeddings(embeddings, "EMBEDDINGS")
    kinds = there.manifest["kinds"]
    self._kind = choose(kind or next((one for one in kinds if MODALITIES[one].pictured), kinds[0]), kinds, "--kind")
    if not inverted_lists.has_faiss():
      raise UserError("mmcontrast index: needs the package faiss; pip install 'mmcontrast[search]'")
    if missing := there.manifest["shards"] - len(there.done):
      raise UserError(
        f"{embeddings}: {missing} of {there.manifest['shards']} shards are not made yet; run mmcontrast embed again, "
        "and index them when all are there"
      )
    self._looked_at = self._sampled_shards()
    if not self._looked_at:
      raise UserError(f"{embeddings}: holds no {self._kind} embeddings, there is nothing to index")
    numbers = self._rows(self._looked_at[0]).shape[1]
    if width < 0 or width > numbers:
      raise UserError(f"--width {width}: {embeddings} holds vectors of {numbers} numbers; give 1 to {numbers}")
    if width and "space" in there.manifest:
      raise UserError(f"--width {width}: {embeddings} was mapped into another run's space; leave it out")
    self._width = 0 if width == numbers else width
    path = folders.local(out, "--out", "an index is mapped from a disk")
    self.shards = MadeShards(path, self._begun(path, embeddings))

  def __enter__(self) -> Indexer:
    path = self.shards.folder / "quantiser.faiss"
    with self.shards.held("quantiser", wait=True):
      if not path.is_file():
        sample, lists = self._sample()
        with folders.written(path) as scratch:
          inverted_lists.train(scratch, sample, lists)
    return self

  def __exit__(self, *error: object) -> None:
    pass

  def __call__(self, group: int, advance: Callable[[int], None]) -> Made:
    """Makes a file of the index, or sees that it is done."""
    of = self.shards.records(group)
    digests = [self._there.digest(shard) for shard in of]
    was_there = self.shards.is_done(group)
    if was_there and self.shards.note(group)["digests"] == digests:
      advance(len(of))
      return Made(group)
    self.shards.forget(group)

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
      for shard in of:
        if count := self._there.note(shard)["rows"][self._kind]:
          yield shard * SHARD + np.arange(count), self._rows(shard)
        advance(1)

    with folders.written(self.shards.folder / f"{group:05d}.faiss") as scratch:
      rows = inverted_lists.write(scratch, self.shards.folder / "quantiser.faiss", parts())
    self.shards.finish(group, {"rows": rows, "digests": digests})
    return Made(group, was_there)

  def counts(self) -> tuple[int, int]:
    """(rows in the index, its lists)."""
    done = [self.shards.note(group)["rows"] for group in self.shards.done]
    with inverted_lists.Lists(self.shards.folder / "quantiser.faiss", []) as lists:
      return sum(done), lists.lists

  @property
  def kind(self) -> str:
    """The modality of the rows."""
    return self._kind

  def _begun(self, path: folders.Folder, embeddings: str | os.PathLike) -> Mapping[str, Any]:
    there = self._there.manifest
    manifest = {
      "command": _COMMAND,
      "embeddings": os.fspath(embeddings) if folders.is_store(self._there.folder) else os.path.abspath(embeddings),
      "kind": self._kind,
      "width": self._width,
      "model": there["model"],
      "records": there["shards"],
      "records_a_shard": SHARDS_A_FILE,
      "shards": -(-there["shards"] // SHARDS_A_FILE),
    }
    begun = made_shards.begin(path, manifest, "--out")
    if begun.get("command") != _COMMAND:
      raise UserError(f"--out {path}: holds {begun.get('command', 'embeddings')}; give an empty folder")
    wrong = _other(begun, self._there)
    for key in ("kind", "width"):
      if wrong is None and begun[key] != manifest[key]:
        wrong = f"another {key} ({begun[key]}, now {manifest[key]})"
    if wrong is not None:
      raise UserError(f"--out {path}: holds an index of {wrong}; give an empty folder, or remove this one")
    return begun

  def _rows(self, shard: int) -> np.ndarray:
    rows = self._there.shard_rows(shard, self._kind)
    return unit(rows[:, : self._width]) if getattr(self, "_width", 0) else rows

  def _sampled_shards(self) -> list[int]:
    """Some that hold rows, all over the set; the first that do where none of those does."""
    total = self._there.manifest["shards"]
    some = sorted({number * total // min(_LOOKED_AT, total) for number in range(min(_LOOKED_AT, total))})
    holds = lambda shard: self._there.note(shard)["rows"][self._kind] > 0  # noqa: E731
    return [one for one in some if holds(one)] or [one for one in range(total) if holds(one)][:_LOOKED_AT]

  def _sample(self) -> tuple[np.ndarray, int]:
    """(rows to place the centres by, of how many lists the index is)."""
    counts = [self._there.note(shard)["rows"][self._kind] for shard in self._looked_at]
    total = self._there.manifest["shards"]
    every = total / min(_LOOKED_AT, total)  # shards for each that is looked at
    lists = inverted_lists.lists_of(round(sum(counts) * every))
    lists = min(lists, sum(counts))
    step = max(1, sum(counts) // (inverted_lists.SAMPLE * lists))
    return np.concatenate([self._rows(shard)[::step] for shard in self._looked_at]), lists


def nearest_rows(there: Embeddings, kind: str, row: np.ndarray, count: int, width: int = 0) -> nearest.Neighbours:
  """The rows of `there` nearest to a unit row [D], by their places: of a million and more by an index beside them,
  which is made at the first search; of fewer all are compared."""
  total, missing = sum(there.counts(kind)), there.manifest["shards"] - len(there.done)
  if not total:
    raise UserError(f"{there.folder}: no shard of {kind} embeddings is done; run mmcontrast embed again")
  if missing:
    print(
      f"{missing} of {there.manifest['shards']} shards are not made yet; run mmcontrast embed again", file=sys.stderr
    )
  if total < LARGE or missing or folders.is_store(there.folder):
    return nearest.exact(row, there.rows(kind, width), count)
  if not inverted_lists.has_faiss():
    print(f"all {total} rows are read; pip install 'mmcontrast[search]' makes an index of them", file=sys.stderr)
    return nearest.exact(row, there.rows(kind, width), count)
  index = there.folder / (f"{kind}-{width}.index" if width else f"{kind}.index")
  with Indexer(there.folder, index, kind, width) as indexer:
    for group in range(indexer.shards.manifest["shards"]):
      with indexer.shards.held(f"{group:05d}", wait=True):
        indexer(group, lambda count: None)
  found = EmbeddingIndex(index).nearest(there, row, count)
  return found._replace(index=there.places(kind, found.index))


def _other(manifest: Mapping[str, Any], there: Embeddings) -> str | None:
  """In what the embeddings `there` are others than those of an index; None where they are the same."""
  of, its = manifest["model"], there.manifest["model"]
  if any(of.get(key) != its.get(key) for key in ("digest", "width", "map")):
    return f"embeddings of another model (of {of['workdir']})"
  if manifest["records"] != there.manifest["shards"]:
    return f"embeddings in {manifest['records']} shards, and not {there.manifest['shards']}"
  return None
