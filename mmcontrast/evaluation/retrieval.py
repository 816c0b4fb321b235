"""Retrieval both ways: recall at k and median rank.

An image may have any number of captions and a caption any number of images; a query is
a hit when any of its matches is found. A match is by concept id; captions that are equal to
the model (the same token ids, after lower-casing and cutting at data.text_length) share their
concepts, since no model can tell them apart, and so do images whose pixels are equal when
prepared. Queries with nothing to find (a name whose concept has no drawing in this style) are
left out of the average, but stay among the candidates.

Ties are counted against the model: the rank of a query is one more than the number of
wrong candidates that score at least as high as its best match, within float32 rounding.
A model that embeds everything alike therefore has recall 0, not 1.

A term that joins the keys of an example (gram_volume, multilinear) trains no cosine: beside the
cosine of a pair, its queries are searched by its own score among the joined keys, and the other
way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from mmcontrast.errors import UserError, note
from mmcontrast.evaluation import joined
from mmcontrast.evaluation.embed import Compare, cosines, row_chunks, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.matches import Matches, as_matches, groups, matches_of

ROUNDING = 1e-6  # cosines closer than this are equal in float32
RECALL_AT = (1, 5, 10)
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
  queries: np.ndarray,
  gallery: np.ndarray,
  positives: Positives,
  compare: Compare = cosines,
  kind: str = "",
  which: np.ndarray | None = None,
) -> np.ndarray:
  """Rank of the best match of each query, 1 for found first.

  Args:
    queries: float [Q, D]; gallery: float [G, D]. Or tokens, [Q, L, D] and [G, L, D].
    positives: bool [Q, G], one match a row at least.
    compare, kind: how they are compared, and the queries' kind; by default by cosine.
    which: int [A], only these queries; None: all.

  Returns:
    int [Q] (or [A]), in 1..G.
  """
  queries, gallery, positives = np.asarray(queries), np.asarray(gallery), as_matches(positives)
  which = np.arange(len(queries)) if which is None else which
  if compare is cosines:
    gallery = unit(gallery)
  out = np.empty(len(which), np.int64)
  numbers = len(gallery) * max([1, *queries.shape[1:-1], *gallery.shape[1:-1]])  # of a query, see Score.cells
  for rows in row_chunks(len(which), numbers):
    scores = _scores(queries[which[rows]], gallery, compare, kind)
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


def found(queries: np.ndarray, gallery: np.ndarray, positives: Positives, which: np.ndarray) -> tuple:
  """(int [A, G] candidates in `order`, bool [A, G] whether each is right, int [A] rank) of the queries `which`."""
  match = as_matches(positives).dense(which)
  nearest = order(_scores(np.asarray(queries)[which], unit(gallery), cosines, ""), match)
  right = np.take_along_axis(match, nearest, axis=1)
  return nearest, right, 1 + right.argmax(axis=1)


def retrieval(
  queries: np.ndarray, gallery: np.ndarray, positives: Positives, compare: Compare = cosines, kind: str = ""
) -> dict[str, float]:
  """Recall at 1, 5 and 10 (fractions), the median rank, and how many queries that is of.

  Args:
    queries, gallery, compare, kind: as in `ranks`.
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
  rank = ranks(queries, gallery, positives, compare, kind, answerable)
  return {f"recall@{k}": float(np.mean(rank <= k)) for k in RECALL_AT} | {
    "median_rank": float(np.median(rank)),
    "queries": float(len(rank)),
    "candidates": float(len(gallery)),
  }


def evaluate(tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet]) -> dict[str, dict[str, float]]:
  """Image to text and text to image over the whole of each set; `bank` is not used."""
  del bank
  out = {}
  for test in tests:
    images, texts, matches = test.image, test.text, test.matches
    written, seen = len(set(test.data.captions)), len(np.unique(test.caption_groups))
    if seen < written:
      note(f"{test.name}: {written:,} captions that are written differently are {seen:,} to the model (data.lower, "
           "data.tokenizer, data.text_length); captions that are equal to it count as one")  # fmt: skip
    both = {
      "image_to_text": retrieval(images, texts, matches, test.compare, "image"),
      "text_to_image": retrieval(texts, images, matches.T, test.compare, "text"),
    }
    for term in test.joined:
      both |= _of_joined(test, term)
    out[test.name] = {f"{way}/{k}": v for way, found in both.items() for k, v in found.items()}
  return out


def _of_joined(test: EmbeddedSet, term: joined.JoinedTerm) -> dict[str, dict[str, float]]:
  """Retrieval by a term's own score: from a query to an example's joined keys, and back; nothing, with a line that
  says so, where the set lacks one of the views."""
  views = test.views_of((term.query, *term.keys))
  if isinstance(views, str):
    note(f"{test.name}: retrieval by objective.{term.name} is left out: {views}")
    return {}
  query, *keys = views.rows
  of_query, *of_keys = views.groups
  columns = joined.columns(term.score, keys)
  of_columns = np.unique(np.stack(of_keys, axis=1), axis=0, return_inverse=True)[1].reshape(-1)
  matches = matches_of(views.concept, views.concept, of_query, of_columns)

  def compare(kind: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    if kind == "keys":
      return joined.scores(term.score, gallery, queries).T
    return joined.scores(term.score, queries, gallery)

  return {
    f"{term.name}_query_to_keys": retrieval(query, columns, matches, compare, "query"),
    f"{term.name}_keys_to_query": retrieval(columns, query, matches.T, compare, "keys"),
  }


def _scores(queries: np.ndarray, gallery: np.ndarray, compare: Compare, kind: str) -> np.ndarray:
  """[r, G]; the gallery's rows are unit ones already where cosines are compared."""
  return compare(kind, unit(queries) if compare is cosines else queries, gallery)
