"""A folder of embeddings: shards that appear only when they are complete, and a manifest of what they are.

    manifest.json         the model (run, step, digest), the source, the kinds, the format
    00000.image.npy       float32 [n, D], unit rows, one an image; a kind is a modality
    00000.text.npy        float32 [m, D], unit rows, one a caption
    00000.json            what each row is, the bad records, a digest of all records; written last: the shard is done

Of the format "parquet", 00000.image.parquet holds the rows as a column `embedding`, and what each row is.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data import made_shards
from mmcontrast.data.made_shards import MANIFEST, MadeShards
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.evaluation.embed import unit
from mmcontrast.folders import Folder, at, fetched, written

FORMATS = ("npy", "parquet")
SHARD = 2**32  # the id of a row: the number of its shard times this, and its place there


class Rows(NamedTuple):
  """Embeddings float32 [n, D] and, by column, what each row is: `n` values each.

  index: of the record in its source; id: of what it shows; name: for messages; path: of the file, "" where it is none;
  which of the record's things it is, in a column that the modality names (an image's style, a caption's field); text:
  the caption, or the record's first one.
  """

  rows: np.ndarray
  columns: Mapping[str, list]


class Embeddings(MadeShards):
  """The embeddings in a folder, as far as they are done. Raises UserError when it holds none."""

  def __init__(self, folder: str | os.PathLike, option: str = "--embeddings"):
    path = at(folder, option)
    file = path / MANIFEST
    if not file.is_file():
      raise UserError(f"{folder}: no embeddings there; make them: mmcontrast embed SOURCE --workdir RUN --out {folder}")
    try:
      manifest = dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
      raise UserError(
        f"{file}: is no table of JSON ({one_line(error)}); make the embeddings again, in an empty folder"
      ) from None
    if "kinds" not in manifest:
      raise UserError(f"{folder}: holds {manifest.get('command', 'something else')}, no embeddings; give the folder "
                      "that mmcontrast embed wrote")  # fmt: skip
    super().__init__(path, manifest)

  def short(self, note: dict[str, Any]) -> dict[str, Any]:
    return {"rows": note["rows"], "bad": note["bad"], "digest": note.get("digest", "")}

  def counts(self, kind: str) -> list[int]:
    """Rows of `kind` in each shard that is done."""
    return [self.note(shard)["rows"][kind] for shard in self.done]

  def rows(self, kind: str, width: int = 0) -> Iterator[np.ndarray]:
    """float32 [n, D] of each shard that is done; an npy file is read as far as it is looked at. `width`: the first so
    many numbers of each row instead, brought to unit length."""
    for shard in self.done:
      if self.note(shard)["rows"][kind]:
        rows = self.shard_rows(shard, kind)
        yield unit(rows[:, :width]) if width else rows

  def shard_rows(self, shard: int, kind: str) -> np.ndarray:
    """float32 [n, D] of a shard that is done; an npy file on a disk is mapped, and read as far as it is looked at."""
    with self._read(shard, kind), fetched(self._path(shard, kind)) as file:
      if self.manifest["format"] == "npy":
        return np.load(file, mmap_mode="r")
      import pyarrow.parquet

      column = pyarrow.parquet.read_table(file, columns=["embedding"])["embedding"].combine_chunks()
      return column.flatten().to_numpy().reshape(len(column), -1)

  @contextlib.contextmanager
  def _read(self, shard: int, kind: str) -> Iterator[None]:
    """In this block, a file of a shard that cannot be read is a UserError that says how it is made anew."""
    try:
      yield
    except (OSError, ValueError, EOFError, KeyError, IndexError) as error:
      raise UserError(
        f"{self._path(shard, kind)}: cannot be read, it is cut off or damaged ({one_line(error)}); remove "
        f"{self.marker(shard).name} beside it and run mmcontrast embed again, which makes that shard anew"
      ) from error

  def ids(self, kind: str, places: np.ndarray) -> np.ndarray:
    """int64 [n]: the ids of the rows at `places`, counted over all shards that are done."""
    ends = np.concatenate([[0], np.cumsum(self.counts(kind))])
    number = np.searchsorted(ends[1:], places, side="right")
    return np.array(self.done, np.int64)[number] * SHARD + (places - ends[number])

  def places(self, kind: str, ids: np.ndarray) -> np.ndarray:
    """int64 [n]: where the rows of `ids` are, counted over all shards that are done."""
    ends = np.concatenate([[0], np.cumsum(self.counts(kind))])
    return ends[np.searchsorted(self.done, ids // SHARD)] + ids % SHARD

  def rows_at(self, kind: str, places: np.ndarray) -> np.ndarray:
    """float32 [n, D]: the rows at `places`, counted over all shards that are done. Only their shards are read."""
    return self.rows_of(kind, self.ids(kind, places))

  def rows_of(self, kind: str, ids: np.ndarray) -> np.ndarray:
    """float32 [n, D]: the rows of `ids`. Nothing but the rows of their shards is read."""
    found: np.ndarray | None = None
    for shard in np.unique(ids // SHARD):
      its = np.flatnonzero(ids // SHARD == shard)
      rows = self.shard_rows(int(shard), kind)
      found = np.empty((len(ids), rows.shape[1]), np.float32) if found is None else found
      found[its] = rows[ids[its] % SHARD]
    return np.zeros((0, 0), np.float32) if found is None else found

  def column(self, shard: int, kind: str, name: str) -> np.ndarray:
    """What each row of a shard is, by one column."""
    return np.array(self._columns(shard, kind)[name])

  def describe(self, kind: str, places: np.ndarray) -> list[dict]:
    """What the rows at `places`, counted over all shards that are done, are: column -> value."""
    return self.describe_ids(kind, self.ids(kind, places))

  def describe_ids(self, kind: str, ids: np.ndarray) -> list[dict]:
    """What the rows of `ids` are. Only the tables of their shards are read."""
    tables: dict[int, Mapping[str, list]] = {}
    found = []
    for shard, place in zip((ids // SHARD).tolist(), (ids % SHARD).tolist()):
      if shard not in tables:
        tables[shard] = self._columns(shard, kind)
      found.append({name: values[place] for name, values in tables[shard].items()})
    return found

  def write(self, shard: int, found: Mapping[str, Rows], bad: Mapping[int, str], digest: str) -> None:
    """Writes a shard: what is there under its name is whole. `digest`: of its records, as `digest` gives it."""
    self.forget(shard)
    notes: dict[str, Any] = {
      "rows": {kind: len(one.rows) for kind, one in found.items()},
      "bad": dict(bad),
      "digest": digest,
    }
    for kind, (rows, columns) in found.items():
      with written(self._path(shard, kind)) as scratch:
        if self.manifest["format"] == "npy":
          notes[kind] = columns
          _save(scratch, rows)
        else:
          _save_parquet(scratch, rows, columns)
    self.finish(shard, notes)

  def _columns(self, shard: int, kind: str) -> Mapping[str, list]:
    if self.manifest["format"] == "npy":
      with self._read(shard, kind):
        return json.loads(self.marker(shard).read_text())[kind]
    import pyarrow.parquet

    with self._read(shard, kind), fetched(self._path(shard, kind)) as path:
      file = pyarrow.parquet.ParquetFile(path)
      return file.read([name for name in file.schema_arrow.names if name != "embedding"]).to_pydict()

  def _path(self, shard: int, kind: str) -> Folder:
    return self.folder / f"{shard:05d}.{kind}.{self.manifest['format']}"


def begin(folder: str | os.PathLike, manifest: Mapping[str, Any]) -> Embeddings:
  """The embeddings in `folder`, new or to be gone on with.

  Args:
    manifest: model, source, records, records_a_shard, kinds and format.
  Raises UserError when it holds others, or something else.
  """
  path = at(folder, "--out")
  choose(manifest["format"], FORMATS, "--format")
  whole = {**manifest, "shards": -(-manifest["records"] // manifest["records_a_shard"])}
  made_shards.begin(path, whole, "--out")
  there = Embeddings(folder, "--out")
  given = json.loads(json.dumps(manifest))
  for key in ("model", "source", "records", "kinds", "format"):
    old, new = (
      {name: value for name, value in one[key].items() if name not in ("workdir", "data_dir")}
      if isinstance(one[key], Mapping)
      else one[key]
      for one in (there.manifest, given)
    )
    if key == "records" and old != new:
      raise UserError(
        f"--out {folder}: holds embeddings of {old} records, and the source has {new} now; give an empty "
        "folder, or remove this one"
      )
    if old != new:
      raise UserError(
        f"--out {folder}: holds embeddings of another {key} ({_short(there.manifest[key])}, now "
        f"{_short(given[key])}); give an empty folder, or remove this one"
      )
  return there


def _save(path: pathlib.Path, rows: np.ndarray) -> None:
  with path.open("wb") as file:  # given a path, numpy would add .npy to it
    np.save(file, rows)


def _save_parquet(path: pathlib.Path, rows: np.ndarray, columns: Mapping[str, list]) -> None:
  import pyarrow
  import pyarrow.parquet

  embedding = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(rows.reshape(-1)), max(1, rows.shape[1]))
  pyarrow.parquet.write_table(pyarrow.table({**columns, "embedding": embedding}), path)


def _short(value: Any) -> str:
  return ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, Mapping) else str(value)
