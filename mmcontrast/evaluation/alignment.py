"""The evaluators of what no query or class is needed for: how alike nodes are, and how far two modalities lie apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import cosines, way_of
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.protocols import alignment

PROTOCOLS = {"alignment": "mutual_knn-v1", "modality_gap": "modality_gap-v1"}
METRICS = ("mutual_knn", "cka", "unbiased_cka")
GAP = (
  "gap",
  "linear_separability",
  "alignment",
  "uniformity_one",
  "uniformity_other",
  "cosine_of_pairs",
  "cosine_of_others",
)
_FEWEST = 4  # things of which the unbiased estimate can be made


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  nodes: Sequence[Sequence[str]] = (),
  k: int = alignment.K,
) -> dict[str, dict[str, float]]:
  """Mutual k-NN and CKA between pairs of nodes of the model, over the examples that show what both are of.

  Args:
    nodes: pairs such as (("image", "text"), ("image.tokens", "text_joint")), two towers or heads each, by name, alone
      or with what of it is wanted.
    k: of the nearest neighbours.
  Raises UserError for no pair, another node, and a set of too few examples.
  """
  from mmcontrast.evaluation.retrieval import pairs_of

  del bank
  if not nodes:
    raise UserError("alignment.nodes: name pairs of nodes to compare, such as (('image', 'text'),)")
  out: dict[str, dict[str, float]] = {}
  for test in tests:
    out[test.name] = {}
    for pair in pairs_of(nodes):
      one, other = _of_examples(test, pair, "alignment.nodes")
      if len(one) <= max(k, _FEWEST - 1):
        raise UserError(
          f"alignment: {len(one)} examples of {test.name!r} show what {pair[0]!r} and {pair[1]!r} are of; give a set "
          f"of more than {max(k, _FEWEST - 1)}, or a smaller k"
        )
      one, other = alignment.prepared(one), alignment.prepared(other)
      found = alignment.mutual_knn(one, other, k), alignment.cka(one, other), alignment.cka(one, other, unbiased=True)
      task = f"alignment_of_{pair[0]}_and_{pair[1]}"
      out[test.name] |= {f"{task}/{metric}": value for metric, value in zip(METRICS, found)}
  return out


def modality_gap(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet], *, most: int = 2000
) -> dict[str, dict[str, float]]:
  """How far every two modalities of the joint space lie apart: see protocols/alignment.py.

  Args:
    most: so many pairs, the first of the set, are looked at: the memory grows with their square.
  Raises UserError where a set has fewer than two pairs, or the run compares tokens.
  """
  del bank
  out: dict[str, dict[str, float]] = {}
  for test in tests:
    if test.compare is not cosines:
      raise UserError("modality_gap: this run compares tokens and has no single vectors; leave it out")
    ways = [way for way in test.space.ways(list(test.data.things))[::2] if set(way) <= set(test.modalities)]
    if not ways:
      raise UserError(f"modality_gap: {test.name!r} has no two modalities that this run compares; leave it out")
    out[test.name] = {}
    for way in ways:
      places = _pairs(test, *way)[:most]
      if len(places) < 2:
        raise UserError(f"modality_gap: {test.name!r} has {len(places)} pairs of {' and '.join(way)}; give two or more")
      rows = (test.joint(modality)[of] for modality, of in zip(way, places.T))
      found = alignment.modality_gap(*rows)
      out[test.name] |= {f"modality_gap_of_{way_of(*way)}/{metric}": found[metric] for metric in GAP}
  return out


def _pairs(test: EmbeddedSet, one: str, other: str) -> np.ndarray:
  """int [P, 2]: the places of things of two modalities that belong together, the first of each concept."""
  first = []
  for modality in (one, other):
    concept = np.asarray(test.data.things[modality].concept)
    names, places = np.unique(concept, return_index=True)
    first.append(dict(zip(names.tolist(), places.tolist())))
  shared = sorted(first[0].keys() & first[1].keys(), key=first[0].__getitem__)
  return np.array([[of[name] for of in first] for name in shared], np.int64).reshape(-1, 2)


def _of_examples(test: EmbeddedSet, pair: Sequence[str], where: str) -> list[np.ndarray]:
  """Rows of two nodes of the same concepts: the first thing of each."""
  things = [test.things_of(node, where) for node in pair]
  first = []
  for of in things:
    names, places = np.unique(np.asarray(of.concept), return_index=True)
    first.append(dict(zip(names.tolist(), places.tolist())))
  shared = sorted(first[0].keys() & first[1].keys())
  return [test.features(node, where)[[of[name] for name in shared]] for node, of in zip(pair, first)]
