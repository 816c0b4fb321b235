"""Paths of which a part is of another example, drawn: hard negatives for what reads two things together.

    fusion(text[0]~image_to_text, image[0])/match      an image with the text of another example, drawn by the scores
                                                       of the term `image_to_text`, one over its temperature times
    fusion(text[0], image[0]~image_to_text)/match      a text with the image of another example
    fusion(text[0]~uniform, image[0])/match            all others are equally probable

ALBEF's hard negatives (arXiv:2107.07651, section 3.2), over the global batch. The text of a term's key is drawn for
the queries, the image of its query for the keys. Never drawn are the example itself, examples of the same id, padding,
and those that lack the modality; the draw has no gradient, and what is drawn has one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, nearest, note
from mmcontrast.objectives.embedding_path import EmbeddingPath, Source, online, parse_embedding
from mmcontrast.objectives.other_examples import draw_others, take_others
from mmcontrast.objectives.presence import ids_of, taking_part
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.term import Parameters, Run, Term

UNIFORM = "uniform"


class Draw(NamedTuple):
  """By what one view of another example is drawn.

  Attributes:
    anchors: the embeddings of the example that draws; () where all are equally probable.
    candidates: those of the examples that may be drawn.
    of_keys: whether keys are drawn for queries, so that the candidates are columns of the score.
  """

  anchors: tuple[str, ...]
  candidates: tuple[str, ...]
  of_keys: bool = True


def draw_of(source: Source, terms: Mapping[str, Term]) -> Draw:
  """By what the view `source` is drawn (of terms that `check_drawn` has passed)."""
  if source.drawn == UNIFORM:
    return Draw((), ())
  compared = terms[source.drawn].compares
  query, key = compared.query, compared.key if compared.score.joins else _nearest_view(compared.key, source)
  of_keys = any(parse_embedding(name).modality == source.modality for name in key)
  query = _nearest_view(query, source)
  return Draw(query, key, True) if of_keys else Draw(key, query, False)


def _nearest_view(names: tuple[str, ...], source: Source) -> tuple[str, ...]:
  """The one of several embeddings that is of the view `source`, else the first."""
  of_view = tuple(name for name in names if parse_embedding(name).source == source.undrawn)
  return (of_view or names)[:1]


class Drawer:
  """Puts, in one step, drawn examples in the place of the examples themselves; each draw is made once."""

  def __init__(
    self,
    terms: Mapping[str, Term],
    facts: Mapping[str, Any],
    parameters: Parameters,
    scheduled: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, Encoded],
    mesh: jax.sharding.Mesh | None,
  ):
    """
    Args:
      facts: of the batch (terms.evaluate), with "seed".
      parameters: what all terms have learned.
      scheduled: term -> the values now of its `schedules`.
      keys: the embeddings of the momentum branch.
    """
    self._terms, self._facts, self._parameters = terms, facts, parameters
    self._scheduled, self._keys, self._mesh = scheduled, keys, mesh
    self._drawn: dict[tuple[str, Draw], jax.Array] = {}

  def __call__(self, source: Source, encoded: Encoded, embeddings: Mapping[str, Encoded]) -> Encoded:
    """What a tower made of the view `source` of each example -> what it made of those that they draw.

    Args:
      embeddings: the online ones so far; of all that the term of `source` compares.
    """
    draw = draw_of(source, self._terms)
    of = source.drawn, draw
    if of not in self._drawn:
      self._drawn[of] = self._draw(source, draw, {**self._keys, **embeddings})
    return take_others(encoded.replace(losses={}), self._drawn[of], self._mesh)

  def _draw(self, source: Source, draw: Draw, embeddings: Mapping[str, Encoded]) -> jax.Array:
    seeds, facts = self._facts["seed"], self._facts
    there = taking_part(facts, draw.candidates) if draw.candidates else taking_part(facts, (f"{_view(source)}/any",))
    rows = columns = logits = None
    if draw.anchors:
      score, scale = self._terms[source.drawn].compares.score, self._scale(source.drawn)
      rows, columns = (_prepared(score, names, embeddings) for names in (draw.anchors, draw.candidates))
      rows = (rows, jnp.broadcast_to(jnp.asarray(scale), seeds.shape))

      def logits(rows, columns):
        rows, scale = rows
        tile = score.tile(rows, columns) if draw.of_keys else score.tile(columns, rows).T
        return scale[:, None] * tile

    return draw_others(
      logits,
      rows,
      columns,
      seeds,
      ids_of(facts, len(seeds)),
      jnp.ones(seeds.shape, bool) if there is None else there,
      stream=zlib.crc32(f"{source.drawn}/{draw.of_keys}".encode()),
      mesh=self._mesh,
    )

  def _scale(self, name: str) -> Any:
    return self._terms[name].scale(self._parameters, self._scheduled.get(name, {}))


def itself(source: Source, encoded: Encoded, embeddings: Mapping[str, Encoded]) -> Encoded:
  """In the place of a Drawer where only shapes count."""
  return encoded


def _prepared(score: Score, names: tuple[str, ...], embeddings: Mapping[str, Encoded]) -> Any:
  made = [score.prepare(score.read(embeddings[name])) for name in names]
  return score.join(made) if len(made) > 1 else made[0]


def _view(source: Source) -> str:
  return f"{source.views}[{source.view}]"


def drawn_paths(names: Iterable[str]) -> tuple[str, ...]:
  """Those of the embeddings that are of another example in part."""
  return tuple(name for name in names if parse_embedding(name).drawn)


def check_drawn(terms: Mapping[str, Term], run: Run) -> None:
  """Raises UserError where an embedding of a term is drawn by what does not draw it."""
  for term in terms.values():
    for name in drawn_paths(term.embeddings):
      path, where = parse_embedding(name), f"objective.{term.name}: embedding {name!r}"
      if path.momentum:
        raise UserError(f"{where}: only the online branch has drawn examples; write {online(name)!r}")
      for leaf in path.drawn:
        _check_leaf(leaf, path, terms, where)
      if run.batch_size == 1:
        note(f"objective.{term.name}: config.batch.size=1 has no other example to draw, so it is 0 in every step")


def _check_leaf(leaf: Source, path: EmbeddingPath, terms: Mapping[str, Term], where: str) -> None:
  if leaf.drawn == UNIFORM:
    return
  by, kind = f"objective.{leaf.drawn}", leaf.modality
  comparing = [name for name, term in terms.items() if term.compares]
  if leaf.drawn not in comparing:
    lacks = f"{by} compares nothing" if leaf.drawn in terms else f"there is no term {leaf.drawn!r}"
    raise UserError(f"{where}: {_view(leaf)} is drawn, and {lacks}; {nearest(leaf.drawn, [*comparing, UNIFORM])}")
  compared = terms[leaf.drawn].compares
  if terms[leaf.drawn].scales_by_batch:
    raise UserError(
      f"{where}: the temperature of {by} follows the similarities of each batch, which are not known when "
      f"{_view(leaf)} is drawn; name a term with another temperature, or {UNIFORM!r}"
    )
  if any(parse_embedding(name).is_fused for name in (*compared.query, *compared.key)):
    raise UserError(f"{where}: {by} compares fusions, which come after what is drawn; name a term of views")
  sides = [{parse_embedding(name).modality for name in names} for names in (compared.query, compared.key)]
  of_query, of_key = (kind in side for side in sides)
  if of_query == of_key:
    where_it_is = "on both sides" if of_query else "on neither side"
    raise UserError(f"{where}: {by} has {kind} {where_it_is}; name a term that compares {kind} with something else")
  mine, others = sides if of_query else sides[::-1]
  if lacking := sorted(others - set(path.modalities)):
    raise UserError(
      f"{where}: by {by} the {lacking[0]} of an example draws {_view(leaf)}, and the path reads no {lacking[0]} of the "
      f"example itself; name another term, or {UNIFORM!r}"
    )
  drawn = {one.modality for one in path.drawn if one.drawn == leaf.drawn}
  if compared.score.joins and (lacking := sorted(mine - drawn)):
    raise UserError(f"{where}: {by} joins {kind} and {lacking[0]}; draw both, as in {lacking[0]}[0]~{leaf.drawn}")
