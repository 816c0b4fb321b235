"""Retrieval both ways: recall at k and median rank.

An image may have any number of captions and a caption any number of images; a query is
a hit when any of its matches is found. A match is by concept id; captions of the same
wording share their concepts, since no model can tell them apart. Queries with nothing to
find (a name whose concept has no drawing in this style) are left out of the average,
but stay among the candidates.

Ties are counted against the model: the rank of a query is one more than the number of
wrong candidates that score at least as high as its best match, within float32 rounding.
A model that embeds everything alike therefore has recall 0, not 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import Compare, cosines, row_chunks, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet

ROUNDING = 1e-6  # cosines closer than this are equal in float32
RECALL_AT = (1, 5, 10)


def relevance(
  image_id: np.ndarray, caption_id: np.ndarray, captions: Sequence[str] | None = None
) -> sparse.csr_array:
  """Which caption matches which image.

  Args:
    image_id: int [M], the concept of each image.
    caption_id: int [C], the concept of each caption.
    captions: [C] strings; those of equal wording then share their concepts.

  Returns:
    bool [M, C], sparse.
  """
  image_id, caption_id = np.asarray(image_id), np.asarray(caption_id)
  ids = np.concatenate([image_id, caption_id])
  concept = np.unique(ids, return_inverse=True)[1]
  one_hot = _one_hot(concept)
  of_image, of_caption = one_hot[: len(image_id)], one_hot[len(image_id) :]
  if captions is not None:
    wording = _one_hot(np.unique(np.asarray(captions, dtype=str), return_inverse=True)[1])
    of_caption = wording @ (wording.T @ of_caption)
  return (of_image @ of_caption.T).astype(bool)


def ranks(
  queries: np.ndarray, gallery: np.ndarray, positives: sparse.csr_array, compare: Compare = cosines, kind: str = ""
) -> np.ndarray:
  """Rank of the best match of each query, 1 for found first.

  Args:
    queries: float [Q, D]; gallery: float [G, D]. Or tokens, [Q, L, D] and [G, L, D].
    positives: bool [Q, G], one match a row at least.
    compare, kind: how they are compared, and the queries' kind; by default by cosine.

  Returns:
    int [Q], in 1..G.
  """
  positives = sparse.csr_array(positives)
  if compare is cosines:
    queries, gallery = unit(queries), unit(gallery)
  out = np.empty(len(queries), np.int64)
  numbers = len(gallery) * max([1, *queries.shape[1:-1], *gallery.shape[1:-1]])  # of a query, see Score.cells
  for rows in row_chunks(len(queries), numbers):
    scores = compare(kind, queries[rows], gallery)
    match = positives[rows].toarray()
    best = np.where(match, scores, -np.inf).max(axis=1, keepdims=True)
    out[rows] = 1 + ((scores >= best - ROUNDING) & ~match).sum(axis=1)
  return out


def retrieval(
  queries: np.ndarray, gallery: np.ndarray, positives: sparse.csr_array, compare: Compare = cosines, kind: str = ""
) -> dict[str, float]:
  """Recall at 1, 5 and 10 (fractions), the median rank, and how many queries that is of.

  Args:
    queries, gallery, compare, kind: as in `ranks`.
    positives: bool [Q, G]; a query without a match is left out.

  Raises:
    UserError: when no query has a match.
  """
  positives = sparse.csr_array(positives)
  answerable = np.flatnonzero(positives.sum(axis=1))
  if not len(answerable):
    raise UserError(
      f"retrieval: none of the {len(queries)} queries has a match among the {len(gallery)} "
      "candidates; check that images and captions use the same ids"
    )
  rank = ranks(np.asarray(queries)[answerable], np.asarray(gallery), positives[answerable], compare, kind)
  return {f"recall@{k}": float(np.mean(rank <= k)) for k in RECALL_AT} | {
    "median_rank": float(np.median(rank)),
    "queries": float(len(rank)),
    "candidates": float(len(gallery)),
  }


def evaluate(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet]
) -> dict[str, dict[str, float]]:
  """Image to text and text to image over the whole of each set; `bank` is not used."""
  del bank
  out = {}
  for test in tests:
    images, texts = test.image, test.text
    matches = relevance(test.data.image_id, test.data.caption_id, test.data.captions)
    both = {
      "image_to_text": retrieval(images, texts, matches, test.compare, "image"),
      "text_to_image": retrieval(texts, images, matches.T.tocsr(), test.compare, "text"),
    }
    out[test.name] = {f"{way}/{k}": v for way, found in both.items() for k, v in found.items()}
  return out


def _one_hot(index: np.ndarray) -> sparse.csr_array:
  """int [N] -> int [N, K], sparse."""
  rows = np.arange(len(index))
  return sparse.csr_array((np.ones(len(index), np.int64), (rows, index)))
