"""The evaluators of what no query or class is needed for: how alike nodes are, and how far two modalities lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.things import taken_at
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
LAYERS = (*METRICS, "layer_of_one", "layer_of_other", "layers_of_one", "layers_of_other", "examples")
MOST = 1000  # examples whose layers are compared: the memory grows with their square
_FEWEST = 4  # things of which the unbiased estimate can be made


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  nodes: Sequence[Sequence[str]] = (),
  layers: Sequence[Sequence[str]] = (),
  k: int = alignment.K,
  pool: str = "mean",
  most: int = MOST,
) -> dict[str, dict[str, float]]:
  """Mutual k-NN and CKA between pairs of nodes of the model, over the examples that show what both are of; and over
  all layers of two towers those of the best pair, by mutual k-NN, and which layer of how many each is.

  Args:
    nodes: pairs such as (("image", "text"), ("image.tokens", "text_joint")), two towers or heads each, by name, alone
      or with what of it is wanted.
    layers: pairs of towers, such as (("image", "text"),), every layer of one with every one of the other;
      `mmcontrast layers` writes all of that table.
    k: of the nearest neighbours.
    pool: of layers: the "mean" of the real positions, or the "first", of towers with a learned token in front.
    most: of layers: so many examples, the first, are looked at.
  Raises UserError for no pair, another node, and a set of too few examples.
  """
  from mmcontrast.evaluation.retrieval import pairs_of

  del bank
  if not nodes and not layers:
    raise UserError("alignment.nodes: name pairs of nodes to compare, such as (('image', 'text'),), or of `layers`")
  out: dict[str, dict[str, float]] = {}
  for test in tests:
    out[test.name] = {}
    for pair in pairs_of(nodes):
      one, other = (_rows(test, node, of) for node, of in zip(pair, shared([test, test], pair, k, "alignment.nodes")))
      one, other = alignment.prepared(one), alignment.prepared(other)
      found = alignment.mutual_knn(one, other, k), alignment.cka(one, other), alignment.cka(one, other, unbiased=True)
      out[test.name] |= {f"{task_of_nodes(pair)}/{metric}": value for metric, value in zip(METRICS, found)}
    for pair in pairs_of(layers):
      compared = over_layers([test, test], pair, k, pool, most, "alignment.layers")
      best = compared.found.best()
      numbers = [*(of[best] for of in compared.found.scores.values()), *(place + 1 for place in best)]
      numbers += [len(compared.found.ones), len(compared.found.others), compared.examples]
      task = task_of_layers(pair)
      out[test.name] |= {f"{task}/{metric}": float(value) for metric, value in zip(LAYERS, numbers)}
  return out


class OverLayers(NamedTuple):
  """All layers of two towers, compared over so many examples."""

  found: alignment.Compared
  examples: int


def task_of_nodes(pair: Sequence[str]) -> str:
  """What two nodes are called in results."""
  return f"alignment_of_{pair[0]}_and_{pair[1]}"


def task_of_layers(pair: Sequence[str]) -> str:
  """What all layers of two towers are called in results."""
  return f"alignment_over_layers_of_{pair[0]}_and_{pair[1]}"


def over_layers(
  tests: Sequence[EmbeddedSet], pair: Sequence[str], k: int, pool: str, most: int, where: str
) -> OverLayers:
  """Every layer of one tower with every one of another, over the examples that show what both are of.

  Args:
    tests: a set, as the model of the first tower sees it, and as that of the second does.
    pair: the towers. k, pool, most: as of `evaluate`.
  Raises UserError, which begins with `where`: no such tower, too few examples, a model whose layers are not known.
  """
  if most <= k:
    raise UserError(f"{where}: {most} examples at most, and {k} nearest of them; give more than {max(k, _FEWEST - 1)}")
  rows = []
  for test, tower, places in zip(tests, pair, shared(tests, pair, k, where)):
    if test.layers is None:
      raise UserError(f"{where}: the layers of this model are not known; leave its baselines out, or the layers")
    values = test.things_of(tower, where).values
    rows.append(test.layers(tower, _taken(values, places[:most]), pool, where))
  return OverLayers(alignment.over_layers(*rows, k=k), min(most, len(places)))


def shared(tests: Sequence[EmbeddedSet], pair: Sequence[str], k: int, where: str) -> list[np.ndarray]:
  """int [N] places, for each of two nodes, of the things that belong together: the first of each concept that both are
  of. Raises UserError, which begins with `where`, for fewer than k + 1 (and four)."""
  first = []
  for test, node in zip(tests, pair):
    names, places = np.unique(np.asarray(test.things_of(node, where).concept), return_index=True)
    first.append(dict(zip(names.tolist(), places.tolist())))
  both = sorted(first[0].keys() & first[1].keys())
  if len(both) <= max(k, _FEWEST - 1):
    raise UserError(
      f"{where}: {len(both)} examples of {tests[0].name!r} show what {pair[0]!r} and {pair[1]!r} are of; give a set "
      f"of more than {max(k, _FEWEST - 1)}, or a smaller k"
    )
  return [np.array([of[name] for name in both], np.int64) for of in first]


def _rows(test: EmbeddedSet, node: str, places: np.ndarray) -> np.ndarray:
  return test.features(node, "alignment.nodes")[places]


def _taken(values: Any, places: np.ndarray) -> Any:
  """Things at some places; of a tower that reads others those of each of its modalities."""
  if isinstance(values, Mapping):
    return {name: taken_at(of, places) for name, of in values.items()}
  return taken_at(values, places)


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
