"""How a run compares a query with what is searched: by the cosine, by the tokens of both, or by a joined score."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mmcontrast.data.evaluation_set import text_views
from mmcontrast.data.images import decode
from mmcontrast.data.sources import BadRecord, Info, Record
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation import joined
from mmcontrast.evaluation.joined import JoinedTerm
from mmcontrast.inference import Inference
from mmcontrast.inference.embed_records import Values, Wanted, caption_of, wanted_of
from mmcontrast.inference.embeddings import COLUMNS
from mmcontrast.objectives.embedding_path import EmbeddingPath, parse_embedding
from mmcontrast.objectives.terms import comparisons, parse_terms

Query = str | np.ndarray
"""Words, or what the model sees of an image: uint8 [S, S, 3]."""


class Scorer(NamedTuple):
  """What has to be embedded of a record, and the scores [n] of n records by those rows: the higher the nearer."""

  wanted: Mapping[str, Wanted]
  scores: Callable[[Mapping[str, np.ndarray]], np.ndarray]


def scorer_of(model: Inference, query: Query, kind: str, info: Info, style: str | None = None) -> Scorer:
  """How `model` compares `query` with the images or captions (`kind`) of a source.

  A run that trains a term of joined keys, and no pair of its two heads, is searched by that term's score: the query is
  in the place of the first view of its modality, the other views are the record's. Such a score, volume or product, is
  the same whichever of its vectors is called the query.

  Args:
    info: of the source.
    style: the only one of several drawings that is searched; None: all.
  """
  modality = "text" if isinstance(query, str) else "image"
  if term := joined_term(model):
    if not (lacks := _lacks(term, modality, info, model.data)):
      return _joined(model, term, query, modality, info, style)
    note(
      f"{info.name} has no {lacks}, which objective.{term.name} compares together ({term.words}): searched by the "
      "cosine, which this run does not train"
    )
  wanted, values = wanted_of([kind], model, style), [query] if modality == "text" else query[None]
  if model.compares_tokens:
    if modality == kind:
      raise UserError(
        f"--kind {kind}: this run compares the tokens of an image with those of a text; search "
        f"{'images by words' if kind == 'image' else 'captions by an image'}"
      )
    tokens = model.embed(modality, values)
    return Scorer(wanted, lambda rows: model.compare(modality, tokens, rows[kind])[0])
  row = query_row(model, query)
  return Scorer(wanted, lambda rows: rows[kind] @ row)


def query_row(model: Inference, query: Query) -> np.ndarray:
  """float32 [D]: the unit row of a query."""
  row = model.embed("text", [query])[0] if isinstance(query, str) else model.embed(model.image_kind, query[None])[0]
  return (row / max(np.linalg.norm(row), 1e-12)).astype(np.float32)


def joined_term(model: Inference) -> JoinedTerm | None:
  """The term of joined keys that a run is searched by; None where it trains the pair of its heads, or has none."""
  heads = {model.config["evaluation"][kind] for kind in ("image", "text")}
  for one in comparisons(parse_terms(model.config["objective"])) if model.joined else ():
    sides = {parse_embedding(name).head for name in (one.query[0], *one.key)}
    if not one.score.joins and heads <= sides:
      return None
  return model.joined[0] if model.joined else None


def _joined(model: Inference, term: JoinedTerm, query: Query, modality: str, info: Info, style: str | None) -> Scorer:
  others = [term.query, *term.keys]
  place = next(place for place, path in enumerate(others) if path.modality == modality)
  own = others.pop(place)
  row = model.embed(own.kind, [query] if modality == "text" else query[None])
  styles = (style,) if style else info.styles
  wanted = {
    f"{place}": Wanted(path.kind, _reader(path, model.data, styles), COLUMNS["image"])
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
  for path in others:
    if path.modality == "image" and not info.styles:
      return "images"
    if path.modality == "text" and data["languages"] and data["languages"][path.view] not in info.languages:
      return f"names in {data['languages'][path.view]!r}"
    if path.modality == "text" and not data["languages"] and not info.caption_fields:
      return "captions"
  return ""


def _reader(path: EmbeddingPath, data: Mapping, styles: tuple[str, ...]) -> Callable[[Record, Mapping], Values]:
  """Reads the one value of a view of a record, or says that it has none."""

  def read(record: Record, what: Mapping) -> Values:
    there = [style for style in styles if style in record["images"]]
    shown = there[path.view % len(there)] if path.modality == "image" and there else there[0] if there else ""
    row = {**what, "style": shown, "path": record.get("paths", {}).get(shown, ""), "text": caption_of(record, data)}
    if path.modality == "image":
      if not there:
        raise BadRecord("no image")
      return [(row, evaluation_view(decode(record["images"][shown], data["limits"]), data))]
    if not (text := text_views(record, data)[path.view]):
      raise BadRecord(f"no text[{path.view}]")
    return [(row, text)]

  return read
