"""`mmcontrast search QUERY [SOURCE] --workdir RUN`: what is nearest to words or to an image.

Searched is a source, an evaluation set of the run, or what `mmcontrast embed` made.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.called import call_as
from mmcontrast.data.evaluation_set import SETS, open_own_set
from mmcontrast.data.images import LIMITS, decode
from mmcontrast.data.sources import SOURCES, BadRecord, Source, open_source
from mmcontrast.data.sources.emoji import open_built
from mmcontrast.data.sources.folder import IMAGES
from mmcontrast.errors import MissingData, UserError, choose, note, one_line
from mmcontrast.evaluation import nearest
from mmcontrast.inference import Inference, load
from mmcontrast.inference.embed_records import Embedder, progress, some
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.inference.encoder_inputs import ImageLike, read_pixels
from mmcontrast.inference.scorers import joined_term, query_row, scorer_of
from mmcontrast.report.picture_path import png_path

LARGE = 1_000_000  # rows, from which on an index is worth its making
_MANY = 20_000  # records, from which on it is worth to keep what is embedded
_AT_A_TIME = 1024  # records, whose rows are in memory

DataDir = str | os.PathLike | None


class Result(NamedTuple):
  """One thing that was found."""

  score: float  # the cosine, or the score that the run trains
  name: str  # the path of the image, or what the record is called
  text: str  # its caption, or ""
  index: int  # of the record in its source
  id: int
  style: str  # of several drawings of a thing

  @property
  def line(self) -> str:
    """The result in one line."""
    return "  ".join([f"{self.score:.3f}", *(part for part in (self.name, " ".join(self.text.split())) if part)])


def search(
  workdir: str | os.PathLike,
  query: str | ImageLike,
  source: str | None = None,
  *,
  options: Mapping | None = None,
  split: str | None = None,
  dataset: str | None = None,
  embeddings: str | os.PathLike | None = None,
  kind: str | None = None,
  count: int = 10,
  out: str | os.PathLike | None = None,
  data_dir: DataDir = None,
) -> list[Result]:
  """The images or captions nearest to `query`, the nearest first.

  Args:
    workdir: the run.
    query: words, or the path of an image, or the image itself: a Pillow image, its bytes, or uint8 [H, W, 3].
    source, options, split: what is searched, as `data.dataset`, `data.source` and `data.split` ("train" where it is
      not given) of a config.
    dataset: instead, an evaluation set of the run; without any of the three the last of config.evaluation.sets.
    embeddings: instead, a folder that `mmcontrast embed` made with this run.
    kind: "image" or "text", of what is searched; None: images, if there are any.
    count: how many.
    out: the path of a picture to draw, a PNG; of images only.
  Raises UserError: no such run, source, set or embeddings; the query is empty, not an image, or of a kind
  that the run has no tower for.
  """
  if count < 1:
    raise UserError(f"--count {count}: give 1 or more")
  if given := [
    name
    for name, value in (("SOURCE", source), ("--dataset", dataset), ("--embeddings", embeddings))
    if value is not None
  ][1:]:
    raise UserError(
      f"{given[0]}: one thing is searched at a time; leave out all but one of SOURCE, --dataset and --embeddings"
    )
  if source is None and (options or split):
    raise UserError(
      f"{'--split' if split else '--source'} is an option of a source; name one: mmcontrast search QUERY SOURCE"
    )
  path = png_path(out, "--out") if out else None
  if path and kind == "text":
    raise UserError("--out draws images; leave it out, or search --kind image")
  asked = read_query(query)
  if embeddings is not None:
    found, opened, title = _in_embeddings(workdir, asked, embeddings, kind, count, data_dir)
  else:
    found, opened, title = _in_source(workdir, asked, source, options, split, dataset, kind, count, data_dir)
  if path:
    _draw(path, asked, found, opened(), title)
  return found


Searched = tuple[list[Result], Callable[[], Source], str]
"""What was found, what opens the source that it is of, and a title for a picture."""


class Query(NamedTuple):
  """Words, or an image, uint8 [H, W, 3]."""

  words: str
  pixels: np.ndarray | None = None

  @property
  def modality(self) -> str:
    return "text" if self.pixels is None else "image"


def read_query(query: str | ImageLike) -> Query:
  """What `query` asks for. Raises UserError where it is empty, or no image and no words."""
  if not isinstance(query, str):
    return Query("", pixels=read_pixels(query, LIMITS, "the query"))
  if not query.strip():
    raise UserError('the query is empty; say what to look for, e.g. "red heart"')
  path = folders.at(query, "the query") if folders.of_store(query) else pathlib.Path(query)
  try:
    is_file = path.is_file()
  except (OSError, ValueError):  # too long for a path: words
    is_file = False
  if is_file:
    try:
      return Query("", decode(path.read_bytes()))
    except BadRecord as error:
      raise UserError(f"{query}: {error}; give the path of an image, or words that are not a file") from None
    except OSError as error:
      raise UserError(f"{query}: {error.strerror or one_line(error)}; give the path of an image, or words") from None
  if path.suffix.lower() in IMAGES:
    raise UserError(f"{query}: no such image file; give the path of one, or words")
  return Query(query)


def _in_embeddings(
  workdir: str | os.PathLike, asked: Query, folder: str | os.PathLike, kind: str | None, count: int, data_dir: DataDir
) -> Searched:
  there = Embeddings(folder)
  kind = choose(kind or there.manifest["kinds"][0], there.manifest["kinds"], "--kind")
  model = load(workdir, there.manifest["model"]["step"], data_dir)
  if model.digest != there.manifest["model"]["digest"]:
    raise UserError(
      f"{folder}: made by another model (of {there.manifest['model']['workdir']}) than {workdir}; give "
      "that run, or embed again"
    )
  _check(model, asked, kind, workdir)
  if term := joined_term(model):
    note(
      f"{folder}: searched by the cosine, which this run does not train; objective.{term.name} compares "
      f"{term.words} together: search the source itself"
    )
  found = _nearest(there, kind, query_row(model, _seen(model, asked)), count)
  named = there.manifest["source"]

  def opened() -> Source:
    return open_source(
      {"dataset": named["dataset"], "source": named["options"]}, named["split"], data_dir or named["data_dir"]
    )

  found_rows = zip(there.describe(kind, found.index), found.cosine.tolist())
  return [_result(what, cosine) for what, cosine in found_rows], opened, f"{named['dataset']}, by {workdir}"


def _in_source(
  workdir: str | os.PathLike,
  asked: Query,
  source: str | None,
  options: Mapping | None,
  split: str | None,
  dataset: str | None,
  kind: str | None,
  count: int,
  data_dir: DataDir,
) -> Searched:
  opened, style, title = None, None, source
  if source is not None:
    try:
      opened = open_source({"dataset": source, "source": options or {}}, split or "train", data_dir)
    except UserError as error:
      if asked.words and source.isalpha() and source not in SOURCES:
        raise UserError(
          f'SOURCE {source!r}: no such source; a query of several words goes in quotes: "{asked.words} {source}"'
        ) from error
      raise
  model = load(workdir, None, data_dir)
  if opened is None:
    opened, style, title = _set(model.config, dataset, workdir, data_dir)
  has = {"image": bool(opened.info.styles), "text": bool(opened.info.caption_fields)}
  kind = kind or ("image" if has["image"] and model.image_kind in model.kinds else "text")
  if not has[kind]:
    raise UserError(f"--kind {kind}: {title} has no {'images' if kind == 'image' else 'captions'}")
  _check(model, asked, kind, workdir)
  scorer = scorer_of(model, _seen(model, asked), kind, opened.info, style)
  if len(opened) >= _MANY:
    print(
      f"{len(opened)} records are embedded for one query; for the next ones keep them: mmcontrast embed",
      file=sys.stderr,
    )
  kept, bad = [], {}
  with Embedder(model, opened, scorer.wanted) as embedder, progress(len(opened)) as advance:
    for start in range(0, len(opened), _AT_A_TIME):
      part = embedder.embed(range(start, min(start + _AT_A_TIME, len(opened))), advance)
      bad |= part.bad
      columns = next(iter(part.rows.values())).columns
      what = [dict(zip(columns, values)) for values in zip(*columns.values())]
      if what:
        scores = scorer.scores({name: one.rows for name, one in part.rows.items()}).tolist()
        kept = sorted([*kept, *zip(scores, what)], key=lambda one: -one[0])[:count]  # of equals the first is first
  if bad:
    print(f"{len(bad)} of {len(opened)} records are left out of the search: {some(bad)}", file=sys.stderr)
  if not kept:
    raise UserError(f"{title}: nothing in it can be searched")
  return [_result(what, score) for score, what in kept], lambda: opened, f"{title}, by {workdir}"


def _seen(model: Inference, asked: Query) -> str | np.ndarray:
  """The words, or what the model sees of the image."""
  return asked.words if asked.pixels is None else model.view(asked.pixels)


def _set(
  config: Mapping, name: str | None, workdir: str | os.PathLike, data_dir: DataDir
) -> tuple[Source, str | None, str]:
  """(source, style, name) of an evaluation set of a run: `name`, or the last that is there."""
  names, own = tuple(config["evaluation"]["sets"]), config["evaluation"].get("data", {})
  if name is not None:
    names = (choose(name, dict.fromkeys((*names, *own, *SETS)), "--dataset"),)
  if not names:
    raise UserError(
      f"{workdir}: config.evaluation.sets is empty, there is no set to search; name what to search, as "
      f"in mmcontrast search QUERY folder:/pictures --workdir {workdir}, or give --embeddings"
    )
  for one in reversed(names):
    dataset, _, style = one.partition(":")
    try:
      if one in own:
        return open_own_set(one, own[one], config["data"], data_dir), own[one].get("style"), one
      return open_built(choose(dataset, [*own, *SETS], "evaluation.sets"), "all", data_dir), style or None, one
    except MissingData:
      if one == names[0] or one not in config["evaluation"]["optional_sets"]:
        raise
  raise AssertionError("a set was opened, or none could be")


def _check(model: Inference, asked: Query, kind: str, workdir: str | os.PathLike) -> None:
  """Raises UserError where the run cannot compare `asked` with what is searched."""
  towers = set(model.model.modality_of_tower.values())
  joint = asked.modality != kind
  modalities = dict.fromkeys((asked.modality, kind))
  if lacks := [one for one in modalities if one not in towers]:
    instead = "search by the path of an image" if lacks[0] == "text" else "search by words, with --kind text"
    raise UserError(f"{workdir}: this run has no {lacks[0]} tower; {instead}")
  for modality in modalities:
    needed = modality if joint or modality == "text" else model.image_kind
    if needed not in model.kinds:
      raise UserError(
        f"{workdir}: this run compares no images with words: config.evaluation.{modality} names no head; "
        + ("search by the path of an image" if kind == "image" else "search --kind text by words")
      )


def _nearest(there: Embeddings, kind: str, row: np.ndarray, count: int) -> nearest.Found:
  total, missing = sum(there.counts(kind)), there.manifest["shards"] - len(there.done)
  if not total:
    raise UserError(f"{there.folder}: no shard of {kind} embeddings is done; run mmcontrast embed again")
  if missing:
    print(
      f"{missing} of {there.manifest['shards']} shards are not made yet; run mmcontrast embed again", file=sys.stderr
    )
  if total < LARGE or missing or folders.is_store(there.folder):  # an index would have to be fetched as a whole
    return nearest.exact(row, there.rows(kind), count)
  if not nearest.has_faiss():
    print(f"all {total} rows are read; pip install 'mmcontrast[search]' makes an index of them", file=sys.stderr)
    return nearest.exact(row, there.rows(kind), count)
  return nearest.by_index(row, there.folder / f"{kind}.faiss", lambda: there.rows(kind), total, count)


def _result(what: Mapping, score: float) -> Result:
  return Result(
    score, what.get("path") or what["name"], what.get("text", ""), what["index"], what["id"], what.get("style", "")
  )


def _draw(path: pathlib.Path, asked: Query, found: Sequence[Result], source: Source, title: str) -> None:
  from mmcontrast.report.found_picture import draw_found

  images = []
  for one in found:
    try:
      images.append(decode(source[one.index]["images"][one.style]))
    except (BadRecord, OSError, KeyError, IndexError) as error:
      raise UserError(
        f"--out: {one.name} cannot be drawn ({one_line(error)}): {title} is not what it was when it was "
        "embedded; embed it again, or leave --out out"
      ) from None
  draw_found(
    path,
    asked.words if asked.pixels is None else asked.pixels,
    images,
    [(one.text, one.name) for one in found],
    [one.score for one in found],
    title=title,
  )


call_as(__name__, search)
