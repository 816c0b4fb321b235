"""How a run compares a query with what is searched: by the cosine, by the tokens of both, or by a joined score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.sources import BadRecord, Info, Record
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation import joined
from mmcontrast.evaluation.joined import JoinedTerm
from mmcontrast.evaluation.zero_shot import PROMPTS
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import Values, Wanted, columns_of, describe, wanted_of
from mmcontrast.modalities import MODALITIES, stacked
from mmcontrast.objectives.embedding_path import EmbeddingPath, parse_embedding
from mmcontrast.objectives.terms import comparisons, parse_terms


class Query(NamedTuple):
  """What is searched by: a thing of a modality, as the model's evaluation shows it."""

  modality: str
  value: Any


class Scorer(NamedTuple):
  """What has to be embedded of a record, and the scores [n] of n records by those rows: the higher the nearer."""

  wanted: Mapping[str, Wanted]
  scores: Callable[[Mapping[str, np.ndarray]], np.ndarray]


def scorer_of(model: Inference, query: Query, kind: str, info: Info, style: str | None = None) -> Scorer:
  """How `model` compares `query` with the things of the modality `kind` in a source.

  A run that trains a term of joined keys, and no pair of the two heads, is searched by that term's score: the query is
  in the place of the first view of its modality, the other views are the record's. Such a score, volume or product, is
  the same whichever of its vectors is called the query.

  Args:
    info: of the source.
    style: the only one of several drawings that is searched; None: all.
  """
  if term := joined_term(model, query.modality, kind):
    if not (lacks := _lacks(term, query.modality, info, model.data)):
      return _joined(model, term, query, kind, style)
    note(
      f"{info.name} has no {lacks}, which objective.{term.name} compares together ({term.words}): searched by the "
      "cosine, which this run does not train"
    )
  wanted, row = wanted_of([kind], model, style), None
  if model.compares_tokens:
    if query.modality == kind:
      other = next(iter(model.space.joint.get(kind, ())), PROMPTS)
      raise UserError(
        f"--kind {kind}: this run compares the tokens of {MODALITIES[kind].a} with those of {MODALITIES[other].a}; "
        f"search {MODALITIES[kind].nouns} by {MODALITIES[other].asked}"
      )
    row, way = model.embed(query.modality, stacked([query.value])), f"{query.modality}_to_{kind}"
    return Scorer(wanted, lambda rows: model.compare(way, row, rows[kind])[0])
  row = query_row(model, query)
  return Scorer(wanted, lambda rows: rows[kind] @ row)


def query_row(model: Inference, query: Query) -> np.ndarray:
  """float32 [D]: the unit row of a query."""
  row = model.embed(model.kind_of(query.modality), stacked([query.value]))[0]
  return (row / max(np.linalg.norm(row), 1e-12)).astype(np.float32)


def joined_term(model: Inference, modality: str, kind: str) -> JoinedTerm | None:
  """The term of joined keys by which a run finds things of `kind` by those of a modality; None where it trains the
  pair of their heads, or joins them in no term."""
  heads = {model.heads.get(one) for one in (modality, kind)}
  for one in comparisons(parse_terms(model.config["objective"])) if model.joined else ():
    sides = {parse_embedding(name).head for name in (one.query[0], *one.key)}
    if not one.score.joins and heads <= sides:
      return None
  for term in model.joined:
    if {modality, kind} <= {path.modality for path in (term.query, *term.keys)}:
      return term
  return None


def _joined(model: Inference, term: JoinedTerm, query: Query, kind: str, style: str | None) -> Scorer:
  others = [term.query, *term.keys]
  place = next(place for place, path in enumerate(others) if path.modality == query.modality)
  own = others.pop(place)
  row = model.embed(own.kind, stacked([query.value]))
  wanted = {
    f"{place}": Wanted(path.kind, path.modality, _reader(path, model.data, kind, style), columns_of(kind))
    for place, path in enumerate(others)
  }

  def scores(rows: Mapping[str, np.ndarray]) -> np.ndarray:
    columns = joined.columns(term.score, [rows[name] for name in wanted])
    return joined.scores(term.score, row, columns)[0]

  return Scorer(wanted, scores)


def _lacks(term: JoinedTerm, modality: str, info: Info, data: Mapping) -> str:
  """Which of the views that a record has to bring a source does not have; "" where it has all."""
  others = [term.query, *term.keys]
  places = [place for place, path in enumerate(others) if path.modality == modality]
  if not places:
    return f"{modality} view for the query"
  del others[places[0]]
  return next((lacks for path in others if (lacks := MODALITIES[path.modality].lacks(info, data, path.view))), "")


def _reader(path: EmbeddingPath, data: Mapping, kind: str, style: str | None) -> Callable[[Record, Mapping], Values]:
  """Reads the one value of a view of a record, or says that it has none; the row tells of the record's thing of
  `kind`."""
  modality, shown = MODALITIES[path.modality], MODALITIES[kind]

  def read(record: Record, what: Mapping) -> Values:
    view = modality.of_view(record, data, path.view, style)
    if view is None:
      raise BadRecord(f"no {path.modality}[{path.view}]" if modality.shows_all else f"no {path.modality}")
    key, raw = view if shown is modality else shown.of_view(record, data, 0, style) or ("", b"")
    return [(describe(shown, record, what, key, raw, data), modality.evaluation_view(view[1], data))]

  return read
