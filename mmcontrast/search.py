"""`mmcontrast search QUERY [SOURCE] --workdir RUN`: what is nearest to words, to an image, to a sound.

Searched is a source, an evaluation set of the run, or what `mmcontrast embed` made.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from mmcontrast import folders
from mmcontrast.called import call_as
from mmcontrast.data.evaluation_set import SETS, open_configured_set
from mmcontrast.data.sources import SOURCES, BadRecord, Source, open_source
from mmcontrast.data.sources.emoji import open_built
from mmcontrast.errors import MissingData, UserError, choose, note, one_line
from mmcontrast.evaluation.retrieval import log_odds
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.inference import Inference, load, space_map
from mmcontrast.inference.embed_records import Embedder, progress, some
from mmcontrast.inference.embedding_index import EmbeddingIndex, nearest_rows
from mmcontrast.inference.embeddings import Embeddings
from mmcontrast.inference.matching import match_log_probabilities, matching_head
from mmcontrast.inference.scorers import Query as Asked
from mmcontrast.inference.scorers import joined_term, query_row, scorer_of
from mmcontrast.modalities import MODALITIES, Modality
from mmcontrast.report.picture_path import keep_files, png_path

_MANY = 20_000  # records, from which on it is worth to keep what is embedded
_AT_A_TIME = 1024  # records, whose rows are in memory

DataDir = str | os.PathLike | None


class Result(NamedTuple):
  """One thing that was found."""

  score: float  # the cosine, the score that the run trains, or the probability of a match
  name: str  # the path of the file, or what the record is called
  text: str  # its caption, or ""
  index: int  # of the record in its source
  id: int
  style: str  # which of several drawings of a thing, or of its sounds

  @property
  def line(self) -> str:
    """The result in one line."""
    return "  ".join([f"{self.score:.3f}", *(part for part in (self.name, " ".join(self.text.split())) if part)])


def search(
  workdir: str | os.PathLike,
  query: Any,
  source: str | None = None,
  *,
  options: Mapping | None = None,
  split: str | None = None,
  dataset: str | None = None,
  embeddings: str | os.PathLike | None = None,
  index: str | os.PathLike | None = None,
  probes: int = 0,
  kind: str | None = None,
  query_kind: str | None = None,
  count: int = 10,
  width: int | None = None,
  rerank: int = 0,
  to_space: str | os.PathLike | None = None,
  out: str | os.PathLike | None = None,
  data_dir: DataDir = None,
) -> list[Result]:
  """The images, captions or sounds nearest to `query`, the nearest first.

  Args:
    workdir: the run.
    query: words, or the path of an image or a sound, or the thing itself: its bytes, an array, a Pillow image.
    source, options, split: what is searched, as `data.dataset`, `data.source` and `data.split` ("train" where it is
      not given) of a config.
    dataset: instead, an evaluation set of the run; without any of the three the last of config.evaluation.sets.
    embeddings: instead, a folder that `mmcontrast embed` made with this run.
    index: an index that `mmcontrast index` made of such embeddings; with `embeddings`, where those are now.
    probes: into how many lists of the index to look; 0: the usual number.
    kind: the modality of what is searched, such as "image" or "text"; None: images, if there are any, else the first
      that the run can compare with the query.
    query_kind: the modality of `query`, where its file or type does not say it.
    count: how many.
    width: how many of the first numbers of the joint space are compared, as of `load`; None: what the embeddings have.
    rerank: so many of the nearest are put in order by the run's matching head, and `count` of them returned; 0: none.
    to_space: a file of `mmcontrast align`, which maps the query into the space of the run that made `embeddings`.
    out: the path of a picture to draw, a PNG; of what can be seen, and of sounds, which are written beside it.
  Raises UserError: no such run, source, set or embeddings; the query is empty, not an image, or of a kind
  that the run has no tower for.
  """
  if count < 1:
    raise UserError(f"--count {count}: give 1 or more")
  if rerank and rerank < count:
    raise UserError(f"--rerank {rerank}: fewer than are shown; give {count} or more, or a smaller --count")
  if probes < 0 or (probes and index is None):
    wrong = "give 1 or more" if index is not None else "is of an index; give --index DIR, or leave it out"
    raise UserError(f"--probes {probes}: {wrong}")
  kept = "--embeddings" if index is None else "--index"
  if given := [
    name
    for name, value in (("SOURCE", source), ("--dataset", dataset), (kept, embeddings if index is None else index))
    if value is not None
  ][1:]:
    raise UserError(
      f"{given[0]}: one thing is searched at a time; leave out all but one of SOURCE, --dataset and {kept}"
    )
  if source is None and (options or split):
    raise UserError(
      f"{'--split' if split else '--source'} is an option of a source; name one: mmcontrast search QUERY SOURCE"
    )
  if to_space is not None and (embeddings is index is None or rerank or width is not None):
    wrong = "a query is mapped to search what another run embedded; give --embeddings DIR"
    if embeddings is not None or index is not None:
      wrong = f"--{'rerank' if rerank else 'width'} is of one run's space; leave it out"
    raise UserError(f"--map {to_space}: {wrong}")
  path = png_path(out, "--out") if out else None
  for name, given in (("--kind", kind), ("--query_kind", query_kind)):
    if given is not None:
      choose(given, MODALITIES, name)
  if path and kind and not MODALITIES[kind].pictured:
    drawn = _seen_or_heard()
    raise UserError(
      f"--out draws {' and '.join(one.nouns for one in drawn)}; leave it out, or search --kind "
      f"{' or '.join(one.name for one in drawn)}"
    )
  asked = read_query(query, query_kind)
  most = max(count, rerank)
  if embeddings is not None or index is not None:
    if index is None:
      there = _Rows(Embeddings(embeddings))
    else:
      there = _of_index(index, embeddings, kind, width, to_space, probes)
      kind, width = there.index.kind, there.index.width or None
    if to_space is not None or "space" in there.embeddings.manifest:
      mapped = None if to_space is None else space_map.read(to_space)
      searched = _across_spaces(workdir, asked, there, kind, most, width, rerank, mapped, data_dir)
    else:
      searched = _in_embeddings(workdir, asked, there, kind, most, width, rerank, data_dir)
  else:
    searched = _in_source(workdir, asked, source, options, split, dataset, kind, most, width, rerank, data_dir)
  found, opened, title, kind, model = searched
  if rerank:
    found = _reranked(model, asked, found, opened(), kind)[:count]
  if path:
    _draw(path, asked, found, opened(), title, kind)
  return found


Searched = tuple[list[Result], Callable[[], Source], str, str, Inference]
"""What was found, what opens the source that it is of, a title for a picture, the modality of what was found, and the
model."""


class _Rows(NamedTuple):
  """The embeddings that are searched, and the index that is looked into, if there is one."""

  embeddings: Embeddings
  index: EmbeddingIndex | None = None
  probes: int = 0


class Query(NamedTuple):
  """Words, or a thing of a modality as it opens it: of an image its pixels, uint8 [H, W, 3]."""

  words: str
  thing: Any = None
  modality: str = PROMPTS


def read_query(query: Any, kind: str | None = None) -> Query:
  """What `query` asks for; `kind`: its modality, where that is said.

  Raises UserError where it is empty, or no words and no thing of a modality that a file or a value can be of.
  """
  if not isinstance(query, str):
    modality = MODALITIES[kind] if kind else _modality_of(query)
    return Query("", modality.checked(query, "the query"), modality.name)
  if not query.strip():
    raise UserError('the query is empty; say what to look for, e.g. "red heart"')
  if kind == PROMPTS:
    return Query(query)
  words = "" if kind else ", or words"
  path = folders.at(query, "the query") if folders.of_store(query) else pathlib.Path(query)
  try:
    is_file = path.is_file()
  except (OSError, ValueError):  # too long for a path: words
    is_file = False
  modality = MODALITIES[kind] if kind else named_modality(path)
  if is_file:
    try:
      data = path.read_bytes()
      modality = modality or _by_content(data)
      return Query("", modality.opened(data), modality.name)
    except BadRecord as error:
      no_file = " that are not a file" if words else ""
      raise UserError(f"{query}: {error}; give {modality.asked}{words}{no_file}") from None
    except OSError as error:
      asked = modality.asked if modality else "the path of a file"
      raise UserError(f"{query}: {error.strerror or one_line(error)}; give {asked}{words}") from None
  if modality:
    raise UserError(f"{query}: no such {modality.name} file; give the path of one{words}")
  return Query(query)


def named_modality(path: folders.Folder) -> Modality | None:
  """The modality of files that are named so; None where the name says nothing."""
  suffix = pathlib.PurePath(path.name).suffix.lower()
  return next((modality for modality in MODALITIES.values() if suffix in modality.suffixes), None)


def _by_content(data: bytes) -> Modality:
  """The modality of the bytes of a file: the first that can open them, else the first of all, which says why not."""
  for modality in _seen_or_heard():
    try:
      modality.opened(data)
      return modality
    except (BadRecord, UserError):  # UserError: the package that reads it is missing
      continue
  return _seen_or_heard()[0]


def _modality_of(value: Any) -> Modality:
  """The modality that a value is of: the first that takes it, else the first of all, which says what it takes."""
  if isinstance(value, bytes | bytearray):
    return _by_content(bytes(value))
  if isinstance(value, os.PathLike) and (named := named_modality(pathlib.Path(value))):
    return named
  return next((modality for modality in _seen_or_heard() if modality.takes(value)), _seen_or_heard()[0])


def _seen_or_heard() -> list[Modality]:
  return [modality for modality in MODALITIES.values() if modality.pictured]


def _of_index(
  folder: str | os.PathLike,
  embeddings: str | os.PathLike | None,
  kind: str | None,
  width: int | None,
  to_space: str | os.PathLike | None,
  probes: int,
) -> _Rows:
  """An index and its embeddings. Raises UserError where it is of others, or another kind or width is asked for."""
  index = EmbeddingIndex(folder)
  if kind not in (None, index.kind):
    raise UserError(f"--kind {kind}: {folder} is an index of {MODALITIES[index.kind].nouns}; leave it out")
  if width is not None and width != index.width:
    numbers = f"the first {index.width} numbers" if index.width else "all numbers"
    raise UserError(f"--width {width}: {folder} is an index of {numbers}; leave it out, or index with --width {width}")
  if to_space is not None and index.width:
    raise UserError(f"--map {to_space}: {folder} is an index of the first {index.width} numbers; give one of all")
  return _Rows(index.embeddings(embeddings), index, probes)


def _in_embeddings(
  workdir: str | os.PathLike,
  asked: Query,
  rows: _Rows,
  kind: str | None,
  count: int,
  width: int | None,
  rerank: int,
  data_dir: DataDir,
) -> Searched:
  there = rows.embeddings
  folder, kinds = there.folder, there.manifest["kinds"]
  model = load(workdir, there.manifest["model"]["step"], data_dir)
  if model.digest != there.manifest["model"]["digest"]:
    raise UserError(
      f"{folder}: made by another model (of {there.manifest['model']['workdir']}) than {workdir}; give "
      "that run, or embed again"
    )
  kept = there.manifest["model"].get("width", 0)
  model = model.at_width(kept if width is None else width)
  asked = readable(model, asked)
  kind = choose(kind or usual_kind(model, asked, kinds), kinds, "--kind")
  check_comparable(model, asked, kind, workdir)
  if rerank:
    matching_head(model, (asked.modality, kind), "--rerank")
  if kept and (model.width > kept or not model.width):
    raise UserError(f"--width {width}: {folder} holds vectors of {kept} numbers; give {kept} or less, or leave it out")
  if term := joined_term(model, asked.modality, kind):
    note(
      f"{folder}: searched by the cosine, which this run does not train; objective.{term.name} compares "
      f"{term.words} together: search the source itself"
    )
  row = query_row(model, seen_query(model, asked))
  return _found(rows, kind, row, count, 0 if model.width == kept else model.width, workdir, model, data_dir)


def _across_spaces(
  workdir: str | os.PathLike,
  asked: Query,
  rows: _Rows,
  kind: str | None,
  count: int,
  width: int | None,
  rerank: int,
  mapped: space_map.SpaceMap | None,
  data_dir: DataDir,
) -> Searched:
  """In embeddings of another run's space: the query is mapped into it, or they were, when they were made."""
  there = rows.embeddings
  kinds, made_by = there.manifest["kinds"], there.manifest["model"]
  space = there.manifest.get("space") or {**made_by, "kind": kinds[0], "compared": kinds[1:]}
  if mapped is None and (rerank or width is not None):
    option = "rerank" if rerank else "width"
    raise UserError(f"--{option}: {there.folder} was mapped into the space of {space['workdir']}; leave it out")
  asks = mapped.notes["source"] if mapped else space
  model = load(workdir, asks["step"], data_dir)
  if mapped:
    mapped.check_model(model, asked.modality, f"--map, {workdir}")
    target = mapped.notes["target"]
    if target["digest"] != space["digest"]:
      raise UserError(
        f"{there.folder}: is of the space of {space['workdir']}, and the map leads to that of {target['workdir']}; "
        "give embeddings of that run, or align again"
      )
    near = (
      kinds if "space" in there.manifest else [one for one in kinds if one in (target["kind"], *target["compared"])]
    )
  else:
    near = kinds
    if model.digest != space["digest"]:
      raise UserError(
        f"{there.folder}: was mapped into the space of another model (of {space['workdir']}) than {workdir}; give that "
        "run, or the run that made it with --map"
      )
    if asked.modality not in (space["kind"], *space["compared"]):
      raise UserError(
        f"{workdir}: the embeddings were mapped to its {space['kind']} embeddings, which are not compared with "
        f"{_called(asked.modality)}; search by {MODALITIES[space['kind']].asked}"
      )
  if not near:
    raise UserError(
      f"{there.folder}: holds {' and '.join(kinds)} embeddings, and the map leads to those of {target['kind']}; align "
      "others"
    )
  kind = choose(kind or next((one for one in near if MODALITIES[one].pictured), near[0]), near, "--kind")
  row = query_row(model, seen_query(model, asked))
  row = mapped.rows(row[None])[0] if mapped else row
  return _found(rows, kind, row, count, 0, workdir, model, data_dir)


def _found(
  rows: _Rows,
  kind: str,
  row: np.ndarray,
  count: int,
  width: int,
  workdir: str | os.PathLike,
  model: Inference,
  data_dir: DataDir,
) -> Searched:
  there, named = rows.embeddings, rows.embeddings.manifest["source"]
  if rows.index is None:
    found = nearest_rows(there, kind, row, count, width)
    ids = there.ids(kind, found.index)
  else:
    found = rows.index.nearest(there, row, count, rows.probes)
    ids = found.index

  def opened() -> Source:
    its = {"dataset": named["dataset"], "source": named["options"], "kept": named.get("kept", "")}
    return open_source(its, named["split"], data_dir or named["data_dir"])

  found_rows = zip(there.describe_ids(kind, ids), found.cosine.tolist())
  results = [_result(what, cosine, kind) for what, cosine in found_rows]
  return results, opened, f"{named['dataset']}, by {workdir}", kind, model


def _in_source(
  workdir: str | os.PathLike,
  asked: Query,
  source: str | None,
  options: Mapping | None,
  split: str | None,
  dataset: str | None,
  kind: str | None,
  count: int,
  width: int | None,
  rerank: int,
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
  model = load(workdir, None, data_dir).at_width(width)
  if opened is None:
    opened, style, title = opened_set(model.config, dataset, workdir, data_dir)
  has = [name for name, modality in MODALITIES.items() if modality.columns(opened.info)]
  asked = readable(model, asked)
  kind = kind or usual_kind(model, asked, has)
  if kind not in has:
    raise UserError(
      f"--kind {kind}: {title} has no {MODALITIES[kind].nouns}"
      + (f"; it has {' and '.join(one for one in has if not MODALITIES[one].derived)}" if has else "")
    )
  check_comparable(model, asked, kind, workdir)
  if rerank:
    matching_head(model, (asked.modality, kind), "--rerank")
  scorer = scorer_of(model, seen_query(model, asked), kind, opened.info, style)
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
  results = [_result(what, score, kind) for score, what in kept]
  return results, lambda: opened, f"{title}, by {workdir}", kind, model


def _reranked(model: Inference, asked: Query, found: Sequence[Result], source: Source, kind: str) -> list[Result]:
  """What was found, put in order by how probable it is that it belongs with the query: by the head alone, or as the run
  is evaluated (`retrieval.match_order`); the scores are then probabilities among what was found."""
  modality, values = MODALITIES[kind], []
  for one in found:
    try:
      raw = one.text if modality.words else dict(modality.values(source[one.index]))[one.style]
      values.append(modality.evaluation_view(raw, model.data))
    except (BadRecord, OSError, KeyError, IndexError) as error:
      raise UserError(
        f"--rerank: {one.name} cannot be read ({one_line(error)}); it is not what it was when it was embedded"
      ) from None
  query = seen_query(model, readable(model, asked))
  head = matching_head(model, (query.modality, kind), "--rerank")
  log_p = match_log_probabilities(model, head, (query.modality, query.value), (kind, values))
  scores = np.exp(log_p)
  usual = model.config["evaluation"]["evaluators"].get("retrieval") or {}
  if usual.get("match_order", "head") != "head" and (scale := model.cosine_scale(query.modality, kind)):
    scores = softmax(log_odds(log_p) + scale * np.array([one.score for one in found]))
  scores = scores.tolist()
  order = sorted(range(len(found)), key=lambda place: -scores[place])  # of equals the nearest is first
  return [found[place]._replace(score=scores[place]) for place in order]


def _ways(model: Inference) -> list[tuple[str, str]]:
  """(modality of a query, of what is searched) that the run compares."""
  return [*((one, one) for one in MODALITIES if model.kind_of(one) in model.kinds), *model.space.ways()]


def usual_kind(model: Inference, asked: Query, has: Sequence[str]) -> str:
  """The modality that is searched where nobody says which: the first of those that there are and that the run compares
  with the query, one that can be seen before one of words; else the first that the run embeds."""
  seen = [one for one in has if MODALITIES[one].pictured]
  near = [one for one in (*seen, *has) if (asked.modality, one) in _ways(model)]
  return next(iter([*near, *(one for one in seen if model.kind_of(one) in model.kinds), PROMPTS]))


def readable(model: Inference, asked: Query) -> Query:
  """Words as the run reads them: written, where it has a tower for pictures of texts and none for tokens."""
  towers = set(model.model.modality_of_tower.values())
  if asked.modality in towers or not MODALITIES[asked.modality].words:
    return asked
  return asked._replace(modality=next((one for one in MODALITIES if one in towers and MODALITIES[one].words), PROMPTS))


def seen_query(model: Inference, asked: Query) -> Asked:
  """What the model sees of the query."""
  thing = asked.words if asked.thing is None else asked.thing
  return Asked(asked.modality, model.view(thing, asked.modality))


def opened_set(
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
        return open_configured_set(one, own[one], config["data"], data_dir), own[one].get("style"), one
      return open_built(choose(dataset, [*own, *SETS], "evaluation.sets"), "all", data_dir), style or None, one
    except MissingData:
      if one == names[0] or one not in config["evaluation"]["optional_sets"]:
        raise
  raise AssertionError("a set was opened, or none could be")


def check_comparable(model: Inference, asked: Query, kind: str, workdir: str | os.PathLike) -> None:
  """Raises UserError where the run cannot compare `asked` with what is searched."""
  query, towers, ways = asked.modality, set(model.model.modality_of_tower.values()), _ways(model)
  ways = [(one, other) for one, other in ways if {one, other} <= towers]
  by = [MODALITIES[one].asked for one, other in ways if other == kind]
  if by:
    instead = f"search by {' or by '.join(by)}"
  else:
    kinds = dict.fromkeys(other for _, other in ways)
    instead = "; ".join(
      f"search --kind {one} by {' or by '.join(MODALITIES[by].asked for by, other in ways if other == one)}"
      for one in kinds
    )
  if lacks := [one for one in (query, kind) if one not in towers]:
    raise UserError(f"{workdir}: this run has no {lacks[0]} tower; {instead}")
  if (query, kind) in ways:
    return
  compared = f"this run compares no {MODALITIES[kind].nouns} with {_called(query)}"
  if MODALITIES[query].pictured and not MODALITIES[kind].pictured:
    compared = f"this run compares no {MODALITIES[query].nouns} with {_called(kind)}"
  for modality in (query, kind):
    if (modality if query != kind else model.kind_of(modality)) not in model.kinds:
      raise UserError(f"{workdir}: {compared}: config.evaluation.{modality} names no head; {instead}")
  heads = " and ".join(repr(model.heads[one]) for one in (query, kind))
  raise UserError(f"{workdir}: {compared}: the heads {heads} are of different spaces; {instead}")


def _called(modality: str) -> str:
  return "words" if modality == PROMPTS else MODALITIES[modality].nouns


def _result(what: Mapping, score: float, kind: str) -> Result:
  shown = what.get(MODALITIES[kind].key, "") if MODALITIES[kind].pictured else what.get("style", "")
  return Result(score, what.get("path") or what["name"], what.get("text", ""), what["index"], what["id"], shown)


def called_query(query: Any) -> str:
  """What a query is called in messages and results: the words or the path, or its type."""
  return str(query) if isinstance(query, str | os.PathLike) else f"a {type(query).__name__}"


def _draw(path: folders.Folder, asked: Query, found: Sequence[Result], source: Source, title: str, kind: str) -> None:
  from mmcontrast.report.search_picture import draw_results

  modality, shown = MODALITIES[kind], []
  for one in found:
    try:
      raw = dict(modality.values(source[one.index]))[one.style]
      shown.append(modality.show(raw))
    except (BadRecord, OSError, KeyError, IndexError) as error:
      raise UserError(
        f"--out: {one.name} cannot be drawn ({one_line(error)}): {title} is not what it was when it was "
        "embedded; embed it again, or leave --out out"
      ) from None
  draw_results(
    path,
    asked.words if asked.thing is None else MODALITIES[asked.modality].show(asked.thing).picture,
    [one.picture for one in shown],
    [(one.text, one.name) for one in found],
    [one.score for one in found],
    title=title,
    called=MODALITIES[asked.modality].a.partition(" ")[2],
  )
  if files := keep_files(path, [one.file for one in shown]):
    note(f"{path}: what is shown can be heard in {files[0].name} to {files[-1].name}, beside it")


call_as(__name__, search)
