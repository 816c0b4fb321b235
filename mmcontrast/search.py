"""`mmcontrast search QUERY --embeddings DIR --workdir RUN`: a query among embeddings made by `mmcontrast embed`."""

from __future__ import annotations

import os
import pathlib
import sys

import numpy as np

from mmcontrast.data.images import decode
from mmcontrast.data.sources import open_source
from mmcontrast.embeddings import Embeddings
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluate import query_of
from mmcontrast.evaluation import nearest
from mmcontrast.inference import load

LARGE = 1_000_000  # rows, from which on an index is worth its making


def search_embeddings(workdir: str | os.PathLike, query: str, folder: str | os.PathLike, kind: str | None = None,
                      count: int = 10, out: str | os.PathLike | None = None, data_dir: str | None = None) -> None:
  """Prints the rows of `folder` nearest to `query`, and draws them into `out` if given.

  Args:
    workdir: the run that made the embeddings; the checkpoint that made them is used.
    query: words, or the path of an image.
    kind: "image" or "text", of what is searched; None: images, if there are any.
    count: how many.
    out: a picture, for which the source is opened once more; of images only.
  Raises UserError: no embeddings there, or another model's; the query is empty or a file that is no image.
  """
  there = Embeddings(folder)
  kind = choose(kind or there.manifest["kinds"][0], there.manifest["kinds"], "--kind")
  if count < 1:
    raise UserError(f"--count {count}: give 1 or more")
  if out and kind == "text":
    raise UserError("--out draws images; leave it out, or search --kind image")
  model = load(workdir, there.manifest["model"]["step"], data_dir)
  if model.digest != there.manifest["model"]["digest"]:
    raise UserError(f"{folder}: made by another model (of {there.manifest['model']['workdir']}) than {workdir}; give "
                    "that run, or embed again")
  given = query_of(model, query)
  if isinstance(given, str) and not given.strip():
    raise UserError('the query is empty; say what to look for, e.g. "red heart"')
  row = model.encode_text(given)[0] if isinstance(given, str) else model.embed(model.image_kind, given[None])[0]
  row = (row / max(np.linalg.norm(row), 1e-12)).astype(np.float32)
  found = _nearest(there, kind, row, count)
  rows = there.describe(kind, found.index)
  for what, cosine in zip(rows, found.cosine):
    print(f"{cosine:.3f}  {_name(what)}")
  if out:
    print(_draw(out, given, there, rows, found.cosine.tolist(), data_dir))


def _nearest(there: Embeddings, kind: str, row: np.ndarray, count: int) -> nearest.Found:
  total, missing = sum(there.counts(kind)), there.manifest["shards"] - len(there.done)
  if not total:
    raise UserError(f"{there.folder}: no shard of {kind} embeddings is done; run mmcontrast embed again")
  if missing:
    print(f"{missing} of {there.manifest['shards']} shards are not made yet; run mmcontrast embed again",
          file=sys.stderr)
  if total < LARGE or missing:
    return nearest.exact(row, there.rows(kind), count)
  if not nearest.has_faiss():
    print(f"all {total} rows are read; pip install 'mmcontrast[search]' makes an index of them", file=sys.stderr)
    return nearest.exact(row, there.rows(kind), count)
  return nearest.by_index(row, there.folder / f"{kind}.faiss", lambda: there.rows(kind), total, count)


def _name(what: dict) -> str:
  return " ".join(what.get("text", what["name"]).split())


def _draw(out: str | os.PathLike, given: str | np.ndarray, there: Embeddings, rows: list[dict], cosines: list[float],
          data_dir: str | None) -> pathlib.Path:
  from mmcontrast.report.found_picture import draw_found
  named = there.manifest["source"]
  source = open_source({"dataset": named["dataset"], "source": named["options"]}, named["split"],
                       data_dir or named["data_dir"])
  images = [decode(source[what["index"]]["images"][what["style"]]) for what in rows]
  return draw_found(out, given, images, [_name(what) for what in rows], cosines, title=named["dataset"])
