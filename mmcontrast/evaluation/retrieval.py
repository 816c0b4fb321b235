"""Retrieval between any two modalities, both ways: recall at k and median rank.

An image may have any number of captions and a caption any number of images or sounds; a query is a hit when any of its
matches is found. A match is by concept id; things that are equal to the model (captions of the same token ids, after
lower-casing and cutting at data.text_length; images whose pixels are equal when prepared) share their concepts, since
no model can tell them apart. Queries with nothing to find (a name whose concept has no drawing in this style) are left
out of the average, but stay among the candidates.

Ties are counted against the model: the rank of a query is one more than the number of
wrong candidates that score at least as high as its best match, within float32 rounding.
A model that embeds everything alike therefore has recall 0, not 1.

A term that joins the keys of an example (gram_volume, multilinear) trains no cosine: beside the
cosine of a pair, its queries are searched by its own score among the joined keys, and the other
way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from mmcontrast.errors import UserError, choose, note
from mmcontrast.evaluation import joined
from mmcontrast.evaluation.embed import Compare, cosines, row_chunks, unit, way_of
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.matches import Matches, as_matches, groups, matches_of
from mmcontrast.evaluation.protocols import CLIP_BENCHMARK, OURS, clip_benchmark, names_of
from mmcontrast.modalities import MODALITIES
from mmcontrast.objectives.tokens import Tokens

ROUNDING = 1e-6  # cosines closer than this are equal in float32
RECALL_AT = (1, 5, 10)
PROTOCOLS = (OURS, CLIP_BENCHMARK)
MATCH_ORDERS = ("head", "head_and_cosine")
Positives = Matches | np.ndarray | sparse.csr_array
"""Which of Q queries matches which of G candidates: Matches, or bool [Q, G]."""


def relevance(
  image_id: np.ndarray,
  caption_id: np.ndarray,
  captions: Sequence[str] | np.ndarray | None = None,
  images: np.ndarray | None = None,
) -> Matches:
  """Which caption matches which image.

  Args:
    image_id: int [M], the concept of each image.
    caption_id: int [C], the concept of each caption.
    captions: what the model sees of captions: token ids [C, L], or C strings; equal ones then share their concepts.
    images: [M, ...], what it sees of images; equal ones then share theirs.
  """
  of_images = None if images is None else groups(images)
  of_captions = None if captions is None else groups(captions)
  return matches_of(image_id, caption_id, of_images, of_captions)


def ranks(
  queries: np.ndarray | Tokens,
  gallery: np.ndarray | Tokens,
  positives: Positives,
  compare: Compare = cosines,
  way: str = "",
  which: np.ndarray | None = None,
) -> np.ndarray:
  """Rank of the best match of each query, 1 for found first.

  Args:
    queries: float [Q, D]; gallery: float [G, D]. Or what else `compare` takes, such as the tokens of both.
    positives: bool [Q, G], one match a row at least.
    compare, way: how they are compared, and the way ("image_to_text"); by default by cosine.
    which: int [A], only these queries; None: all.

  Returns:
    int [Q] (or [A]), in 1..G.
  """
  positives = as_matches(positives)
  which = np.arange(len(queries)) if which is None else which
  if compare is cosines:
    queries, gallery = np.asarray(queries), unit(gallery)
  out = np.empty(len(which), np.int64)
  numbers = len(gallery) * max([1, *queries.shape[1:-1], *gallery.shape[1:-1]])  # of a query, see Score.cells
  for rows in row_chunks(len(which), numbers):
    scores = _scores(queries[which[rows]], gallery, compare, way)
    match = positives.dense(which[rows])
    best = np.where(match, scores, -np.inf).max(axis=1, keepdims=True)
    out[rows] = 1 + ((scores >= best - ROUNDING) & ~match).sum(axis=1)
  return out


def order(scores: np.ndarray, match: np.ndarray) -> np.ndarray:
  """The candidates of each query, best first, ties as in `ranks`: the first match comes in the place of its rank.

  Args:
    scores: float32 [Q, G]; match: bool [Q, G].

  Returns:
    int [Q, G].
  """
  lowered = np.where(match, scores - ROUNDING, scores)
  return np.lexsort((match, -lowered), axis=1)


def best_candidates(queries: np.ndarray, gallery: np.ndarray, positives: Positives, which: np.ndarray) -> tuple:
  """(int [A, G] candidates in `order`, bool [A, G] whether each is right, int [A] rank) of the queries `which`."""
  match = as_matches(positives).dense(which)
  nearest = order(_scores(np.asarray(queries)[which], unit(gallery), cosines, ""), match)
  right = np.take_along_axis(match, nearest, axis=1)
  return nearest, right, 1 + right.argmax(axis=1)


def retrieval(
  queries: np.ndarray | Tokens,
  gallery: np.ndarray | Tokens,
  positives: Positives,
  compare: Compare = cosines,
  way: str = "",
) -> dict[str, float]:
  """Recall at 1, 5 and 10 (fractions), the median rank, and how many queries that is of.

  Args:
    queries, gallery, compare, way: as in `ranks`.
    positives: bool [Q, G]; a query without a match is left out.

  Raises:
    UserError: when no query has a match.
  """
  positives = as_matches(positives)
  answerable = positives.answerable()
  if not len(answerable):
    raise UserError(
      f"retrieval: none of the {len(queries)} queries has a match among the {len(gallery)} "
      "candidates; check that images and captions use the same ids"
    )
  return _summary(ranks(queries, gallery, positives, compare, way, answerable), len(gallery))


def _summary(rank: np.ndarray, candidates: int) -> dict[str, float]:
  return {f"recall@{k}": float(np.mean(rank <= k)) for k in RECALL_AT} | {
    "median_rank": float(np.median(rank)),
    "queries": float(len(rank)),
    "candidates": float(candidates),
  }


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  directions: str | Sequence[str] = (),
  nodes: Sequence[Sequence[str]] = (),
  match: str = "",
  match_order: str = "head",
  candidates: int = 16,
  protocol: str | Sequence[str] = OURS,
) -> dict[str, dict[str, float]]:
  """Retrieval of each modality by each other, over the whole of each set; `bank` is not used.

  Args:
    directions: such as ("text_to_audio", "audio_to_text"), those that are looked at; by default all that the run can
      compare. A set that has nothing of a modality is left out of its directions, with a line, where it has others.
    nodes: pairs of nodes, such as (("image_ssl", "fusion.pooled"),), that are compared by the cosine besides, each by
      the other: the tasks "image_ssl_to_fusion.pooled" and back. Things of a fusion are examples.
    match: a head, of a tower that reads two modalities, by whose logits the nearest are put in order once more, as
      ALBEF does (arXiv:2107.07651): the tasks "image_to_text_by_HEAD". "": none.
    match_order: "head": by the head alone; "head_and_cosine": by its log-odds plus the scaled cosine. A head
      that learned from mismatched pairs which the scaled cosines drew has learned the odds of a pair beside a pair so
      drawn, and the sum are the log-odds of the pair itself, but for a constant of each query: a head that has learned
      nothing then changes no order (residual energies, as Deng et al., arXiv:2004.11714; ours for retrieval).
    candidates: how many of the nearest, a query.
    protocol: of PROTOCOLS, one or several: recall at k of the pairs by another's rules is a task of its own,
      "image_to_text_by_clip_benchmark-1.6". What is said above of `nodes`, `match` and joined keys is by ours.

  Raises:
    UserError: no such direction or head, or a set with nothing to be searched for or by.
  """
  del bank
  choose(match_order, MATCH_ORDERS, "retrieval.match_order")
  if candidates < 1:
    raise UserError(f"retrieval.candidates: {candidates}; give 1 or more")
  out = {}
  for test in tests:
    both = {}
    for way in _ways(test, directions):
      for name in names_of(protocol):
        both[_task_of(way, name)] = (_of_pair if name == OURS else _by_clip_benchmark)(test, *way)
      if match and set(way) == set(_matched_by(test, match)) and test.match:
        both[f"{way_of(*way)}_by_{match}"] = _matched(test, *way, match, match_order, candidates)
    for one, other in pairs_of(nodes):
      both |= {way_of(*way): of_nodes(test, *way) for way in ((one, other), (other, one))}
    for term in test.joined:
      both |= _of_joined(test, term)
    out[test.name] = {f"{way}/{k}": v for way, found in both.items() for k, v in found.items()}
  return out


def _matched(
  test: EmbeddedSet, query: str, gallery: str, head: str, order_by: str, candidates: int
) -> dict[str, float]:
  """As `retrieval`, the nearest of each query in the order of a matching head's scores; ties count against the model.

  A query whose matches are not among the nearest keeps its rank.
  """
  positives, order_of = test.matches(query, gallery), _matched_by(test, head)
  scale = 0.0 if order_by == "head" else _scale_of(test, query, gallery)
  which = positives.answerable()
  queries, among = test.joint(query), test.joint(gallery)
  rank = ranks(queries, among, positives, test.compare, way_of(query, gallery), which)
  count = min(candidates, len(among))
  reached = np.flatnonzero(rank <= count)
  for rows in row_chunks(len(reached), len(among)):
    asked = which[reached[rows]]
    right = positives.dense(asked)
    scores = _scores(
      queries[asked], unit(among) if test.compare is cosines else among, test.compare, way_of(query, gallery)
    )
    nearest = order(scores, right)[:, :count]
    right, scores = (np.take_along_axis(one, nearest, axis=1) for one in (right, scores))
    pairs = np.stack([np.repeat(asked, count), nearest.reshape(-1)], axis=1)
    pairs = pairs if order_of == (query, gallery) else pairs[:, ::-1]
    values = {one: test.data.things[one].values for one in order_of}
    matched = test.match(head, values, pairs).reshape(right.shape)
    matched = log_odds(matched) + scale * scores if scale else matched
    best = np.where(right, matched, -np.inf).max(axis=1, keepdims=True)
    rank[reached[rows]] = 1 + ((matched >= best - ROUNDING) & ~right).sum(axis=1)
  return _summary(rank, len(among))


def log_odds(log_p: np.ndarray) -> np.ndarray:
  """log p / (1 - p) of log p, which is at most 0: finite for p = 1 as well."""
  log_p = np.minimum(np.asarray(log_p, np.float64), -1e-12)
  return log_p - np.log(-np.expm1(log_p))


def _scale_of(test: EmbeddedSet, query: str, gallery: str) -> float:
  scale = test.scale and test.scale(query, gallery)
  if not scale:
    raise UserError(
      f"retrieval.match_order='head_and_cosine': this run has learned no scale of the cosine of {query} and {gallery}; "
      "give 'head'"
    )
  return scale


def _matched_by(test: EmbeddedSet, head: str) -> tuple[str, ...]:
  where = "retrieval.match: heads that give logits, of a tower that reads two modalities"
  return test.space.matches[choose(head, test.space.matches, where)]


def _ways(test: EmbeddedSet, directions: str | Sequence[str]) -> list[tuple[str, str]]:
  """The (query, gallery) of a set that are looked at."""
  known = {way_of(*way): way for way in test.space.ways(list(test.data.things))}
  wanted = [directions] if isinstance(directions, str) else list(directions)
  if wanted:
    found = [known[choose(name, known, "retrieval.directions")] for name in wanted]
    lacking = found
  else:
    found = [way for way in known.values() if set(way) <= set(test.modalities)]
    lacking = [] if found or test.joined else list(known.values())
    if left := sorted({one for way in known.values() for one in way} - set(test.modalities)) if found else []:
      note(f"{test.name}: retrieval of {' and '.join(left)} is left out: it has none")
  for modality in dict.fromkeys(one for way in lacking for one in way):
    test.check(modality, "" if not wanted else "retrieval.directions")
  if not found and not test.joined:
    raise UserError(
      "retrieval compares two modalities, and this run has no two heads for that (config.evaluation.image, .text, "
      "...); leave it out of config.evaluation.evaluators"
    )
  return found


def _of_pair(test: EmbeddedSet, query: str, gallery: str) -> dict[str, float]:
  for modality in (query, gallery):
    _say_equal(test, modality)
  return retrieval(
    test.joint(query), test.joint(gallery), test.matches(query, gallery), test.compare, way_of(query, gallery)
  )


def _task_of(way: tuple[str, str], protocol: str) -> str:
  return way_of(*way) if protocol == OURS else f"{way_of(*way)}_by_{protocol}"


def _by_clip_benchmark(test: EmbeddedSet, query: str, gallery: str) -> dict[str, float]:
  """Recall at k as that package has it: a text (else the second of the pair) belongs to one thing of the other
  modality, that of its example; where examples are not known, the first of its concept."""
  if test.compare is not cosines:
    raise UserError(
      f"retrieval.protocol: {CLIP_BENCHMARK!r} compares single vectors, and this run compares tokens; leave it out"
    )
  words, shown = (gallery, query) if gallery == "text" else (query, gallery)
  belongs = _owner_of(test, words, shown)
  hits = clip_benchmark.recalls(test.joint(words)[belongs >= 0], test.joint(shown), belongs[belongs >= 0])
  found = hits["image" if query == words else "text"]
  return {f"recall@{k}": float(hit.mean()) for k, hit in found.items()}


def _owner_of(test: EmbeddedSet, words: str, shown: str) -> np.ndarray:
  """int [T]: the place among the things of `shown` that each of `words` belongs to; -1: to none."""
  many, one = test.data.things[words], test.data.things[shown]
  by_example = (many.example >= 0).all() and (one.example >= 0).all()
  keys, asked = (one.example, many.example) if by_example else (one.concept, many.concept)
  first: dict[int, int] = {}
  for place, key in enumerate(np.asarray(keys).tolist()):
    first.setdefault(key, place)
  out = np.array([first.get(key, -1) for key in np.asarray(asked).tolist()], np.int64)
  if not (out >= 0).any():
    raise UserError(f"retrieval.protocol: no {words} of {test.name!r} belongs to {MODALITIES[shown].a} of it")
  return out


def pairs_of(nodes: Sequence[Any]) -> list[tuple[str, str]]:
  """The pairs of nodes that a config names: one, or several."""
  return [tuple(nodes)] if len(nodes) == 2 and all(isinstance(one, str) for one in nodes) else [*map(tuple, nodes)]


def of_nodes(test: EmbeddedSet, query: str, gallery: str, where: str = "retrieval.nodes") -> dict[str, float]:
  """Retrieval of the things that one node is of by those of another, by the cosine."""
  (one, other), (rows, columns) = (
    [make(node, where) for node in (query, gallery)] for make in (test.things_of, test.features)
  )
  matches = matches_of(one.concept, other.concept, *(test.groups_of(node, where) for node in (query, gallery)))
  return retrieval(rows, columns, matches, way=way_of(query, gallery))


def _say_equal(test: EmbeddedSet, modality: str) -> None:
  """Says in a line which texts the model cannot tell apart."""
  values = test.data.things[modality].values
  if test.seen_of is None or not isinstance(values, list) or not all(isinstance(one, str) for one in values[:1]):
    return
  written, seen = len(set(values)), len(np.unique(test.groups(modality)))
  if seen < written:
    note(
      f"{test.name}: {written:,} captions that are written differently are {seen:,} to the model (data.lower, "
      "data.tokenizer, data.text_length); captions that are equal to it count as one"
    )


def _of_joined(test: EmbeddedSet, term: joined.JoinedTerm) -> dict[str, dict[str, float]]:
  """Retrieval by a term's own score: from one of its views to the examples' other views together, and back; nothing,
  with a line that says so, where the set lacks one of the views."""
  views = test.views_of((term.query, *term.keys))
  if isinstance(views, str):
    note(f"{test.name}: retrieval by objective.{term.name} is left out: {views}")
    return {}
  out = {}
  for way, (place, back) in term.ways.items():
    query, of_query = views.rows[place], views.groups[place]
    keys, of_keys = ([*part[:place], *part[place + 1 :]] for part in (views.rows, views.groups))
    columns = joined.columns(term.score, keys)
    of_columns = np.unique(np.stack(of_keys, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    matches = matches_of(views.concept, views.concept, of_query, of_columns)
    if back:
      out[way] = retrieval(
        columns, query, matches.T, lambda _, rows, gallery: joined.scores(term.score, gallery, rows).T, way
      )
    else:
      out[way] = retrieval(
        query, columns, matches, lambda _, rows, gallery: joined.scores(term.score, rows, gallery), way
      )
  return out


def _scores(queries: np.ndarray | Tokens, gallery: np.ndarray | Tokens, compare: Compare, way: str) -> np.ndarray:
  """[r, G]; the gallery's rows are unit ones already where cosines are compared."""
  return compare(way, unit(queries) if compare is cosines else queries, gallery)
