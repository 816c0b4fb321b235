"""How each query of an evaluation set came out: ranks, examples of hits and misses, classes taken for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.evaluation.bootstrap import Outcomes
from mmcontrast.evaluation.embed import cosines, way_of
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of, task_of
from mmcontrast.evaluation.retrieval import RECALL_AT, order, ranks
from mmcontrast.evaluation.zero_shot import PROMPTS, USUAL_LABEL, USUAL_TEMPLATES, classified, things_of_label

_FIRST = 5  # of what a query brings up
_CLASSES = 24  # of a table of confusions; the rest are one


class Found(NamedTuple):
  """One of the gallery that a query brought up: its place, how alike the two are, whether it is right, its rank."""

  place: int
  score: float
  right: bool
  rank: int


class Query(NamedTuple):
  """A query: its place, the rank of its best match, the first that it brought up; its match too where it came later."""

  place: int
  rank: int
  found: list[Found]


class Direction(NamedTuple):
  """Retrieval one way: the rank of each answerable query int [A], and which these are; some hits and misses."""

  query: str
  gallery: str
  which: np.ndarray
  rank: np.ndarray
  hits: list[Query]
  misses: list[Query]


class Confusion(NamedTuple):
  """counts int [K, K]: how many of each class (rows) were taken for each (columns); `names` of the classes, the last
  "others" where there were more."""

  task: str
  label: str
  names: list[str]
  counts: np.ndarray


def directions(test: EmbeddedSet, shown: int = 8, seed: int = 0) -> list[Direction]:
  """Retrieval of a set, every way that the run compares, with `shown` hits and misses drawn at random."""
  ways = [way for way in test.space.ways(test.modalities) if set(way) <= set(test.modalities)]
  return [made for way in ways if (made := _direction(test, *way, shown, seed))]


def _direction(test: EmbeddedSet, query: str, gallery: str, shown: int, seed: int) -> Direction | None:
  positives = test.matches(query, gallery)
  which = positives.answerable()
  if not len(which):
    return None
  rank = ranks(test.joint(query), test.joint(gallery), positives, test.compare, way_of(query, gallery), which)
  random = np.random.default_rng(seed)
  hits, misses = (random.permutation(which[at])[:shown] for at in (rank == 1, rank > 1))
  return Direction(query, gallery, which, rank, *(_queries(test, query, gallery, places) for places in (hits, misses)))


def _queries(test: EmbeddedSet, query: str, gallery: str, places: np.ndarray) -> list[Query]:
  """What queries bring up, ties in the order that makes ranks."""
  if not len(places):
    return []
  match = test.matches(query, gallery).dense(places)
  scores = np.asarray(test.compare(way_of(query, gallery), test.joint(query)[places], test.joint(gallery)), np.float32)
  made = []
  for place, row, right, nearest in zip(places.tolist(), scores, match, order(scores, match)):
    rank = 1 + int(right[nearest].argmax())
    wanted = [*range(min(_FIRST, len(nearest))), *([rank - 1] if rank > _FIRST else [])]
    at = [(number, int(nearest[number])) for number in wanted]
    made.append(Query(place, rank, [Found(one, float(row[one]), bool(right[one]), n + 1) for n, one in at]))
  return made


def of_retrieval(test: EmbeddedSet, found: Sequence[Direction]) -> dict[str, Outcomes]:
  """Whether each query was a hit, by the name of the metric in results: "emoji_noto/image_to_text/recall@1"."""
  return {
    f"{test.name}/{way_of(one.query, one.gallery)}/recall@{k}": Outcomes(
      (one.rank <= k).astype(np.float64), np.asarray(test.data.things[one.query].concept)[one.which]
    )
    for one in found
    for k in RECALL_AT
  }


def of_zero_shot(test: EmbeddedSet, options: Mapping[str, Any]) -> tuple[dict[str, Outcomes], list[Confusion]]:
  """Whether each thing was classified right, by the name of the metric, and what classes were taken for.

  Args:
    options: of the evaluator zero_shot, as in config.evaluation.evaluators.
  Raises UserError as the evaluator does.
  """
  usual = classified(test.space, list(test.data.things))
  if test.compare is not cosines or not usual or PROMPTS not in (test.space.joint or [PROMPTS]):
    return {}, []
  given = options.get("of") or ()
  outcomes, confusions = {}, []
  for modality in [given] if isinstance(given, str) else list(given) or [usual]:
    task = task_of("zero_shot", "" if modality == usual else modality)
    for label in labels_of(options.get("label"), USUAL_LABEL, test.data.label_names):
      asked = things_of_label(test, modality, label, options.get("templates", USUAL_TEMPLATES), options.get("names"))
      scores = asked.rows @ asked.classes.T
      right = np.eye(len(asked.classes), dtype=bool)[asked.labels]
      rank = ranks(asked.rows, asked.classes, right)
      concept = np.asarray(test.data.things[modality].concept)[asked.places]
      for k in (1, 5) if len(asked.classes) > 5 else (1,):
        outcomes[f"{test.name}/{task}/{label}_top{k}"] = Outcomes((rank <= k).astype(np.float64), concept)
      confusions.append(confusion(task, label, asked.labels, scores.argmax(axis=1), asked.names))
  return outcomes, confusions


def confusion(task: str, label: str, labels: np.ndarray, taken: np.ndarray, names: Sequence[str]) -> Confusion:
  """The table of classes int [N] and what they were taken for int [N]; of many classes those with most things."""
  size = np.bincount(labels, minlength=len(names))
  # Those without a thing stay where all fit; else the largest are kept, in the order of the data.
  kept = np.sort(np.argsort(-size, kind="stable")[:_CLASSES]) if len(names) > _CLASSES else np.arange(len(names))
  at = np.full(len(names), len(kept))
  at[kept] = np.arange(len(kept))
  side = len(kept) + (len(kept) < len(names))
  counts = np.zeros((side, side), np.int64)
  np.add.at(counts, (at[labels], at[taken]), 1)
  return Confusion(task, label, [names[one] for one in kept] + ["others"] * (side - len(kept)), counts)
