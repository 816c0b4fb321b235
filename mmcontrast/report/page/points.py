"""The things of an evaluation set as points of a map: where each lies, what it shows, what it belongs with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.data.things import taken_at
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.zero_shot import USUAL_LABEL
from mmcontrast.modalities import MODALITIES
from mmcontrast.report.page.projection import Gap, gap

UNLABELLED = -1


class Points(NamedTuple):
  """P points.

  modality: of each, str [P]. place: among the set's things of that modality, int [P]. concept: int [P].
  words: its text, or the first text of its concept, else what is said of a thing that has none, such as how many nodes
  a graph has; "" for none. label: int [P] into `names`, -1 for none.
  rows: float32 [P, D] unit rows. label_name: what the labels are called, "" where the set has none.
  """

  modality: list[str]
  place: np.ndarray
  concept: np.ndarray
  words: list[str]
  label: np.ndarray
  names: list[str]
  label_name: str
  rows: np.ndarray


def points_of(test: EmbeddedSet, most: int, seed: int = 0) -> Points:
  """The things of a set in the joint space, of each modality at most `most`, those of the same concepts of each."""
  rows = mapped(test)
  chosen = _chosen(test, list(rows), most, seed)
  captions = captions_of(test)
  name = next((one for one in (USUAL_LABEL, *test.data.label_names) if one in test.data.label_names), "")
  of: dict[str, list] = {key: [] for key in ("modality", "place", "concept", "words", "label", "rows")}
  for modality, places in chosen.items():
    things = test.data.things[modality]
    concept = np.asarray(things.concept)[places]
    label = test.labels(name, "label", things)[places] if name else np.full(len(places), UNLABELLED)
    of["modality"] += [modality] * len(places)
    of["words"] += words_of(test, modality, places, captions)
    for key, value in (("place", places), ("concept", concept), ("label", label), ("rows", rows[modality][places])):
      of[key].append(value)
  joined = {key: np.concatenate(of[key]) for key in ("place", "concept", "label", "rows") if rows}
  if not rows:
    return Points([], *np.zeros((2, 0), np.int64), [], np.zeros(0, np.int64), [], "", np.zeros((0, 2), np.float32))
  names = list(test.data.label_names[name]) if name else []
  return Points(modality=of["modality"], words=of["words"], names=names, label_name=name, **_labelled(joined))


def _labelled(joined: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """With the label of a concept for what is of it and has none, such as a caption that is of no example."""
  known = joined["label"] >= 0
  of_concept = dict(zip(joined["concept"][known].tolist(), joined["label"][known].tolist()))
  label = [of_concept.get(one, UNLABELLED) for one in joined["concept"].tolist()]
  return joined | {"label": np.where(known, joined["label"], label)}


def gaps(test: EmbeddedSet) -> dict[tuple[str, str], Gap]:
  """The gap between every two modalities of a set that the run compares, over all of its things."""
  pairs = [way for way in test.space.ways(test.modalities)[::2] if set(way) <= set(test.modalities)]
  concept = {one: np.asarray(test.data.things[one].concept) for pair in pairs for one in pair}
  return {(one, other): gap(_rows(test, one), _rows(test, other), concept[one], concept[other]) for one, other in pairs}


def mapped(test: EmbeddedSet) -> dict[str, np.ndarray]:
  """Modality -> unit rows float32 [N, D] of one space: the joint one, else the features that probes look at; {} where
  the run has neither for what the set has."""
  joint = [one for one in test.modalities if one in (test.modalities if test.space.joint is None else test.space.joint)]
  if joint:
    near = joint if test.space.joint is None else (joint[0], *test.space.joint[joint[0]])
    return {one: _rows(test, one) for one in joint if one in near}
  probed = test.space.probed
  return {probed: unit(test.features())} if probed in test.modalities else {}


def _rows(test: EmbeddedSet, modality: str) -> np.ndarray:
  """Unit rows; where tokens are compared, the mean of the real ones."""
  found = test.joint(modality)
  if isinstance(found, np.ndarray):
    return found
  mask = np.asarray(found.mask)[..., None]
  return unit(np.where(mask, np.asarray(found.vectors, np.float32), 0).sum(axis=1) / np.maximum(mask.sum(axis=1), 1))


def _chosen(test: EmbeddedSet, modalities: Sequence[str], most: int, seed: int) -> dict[str, np.ndarray]:
  """Modality -> places. Concepts are drawn in one order for all, those first of which every modality has something."""
  concept = {one: np.asarray(test.data.things[one].concept) for one in modalities}
  every = np.unique(np.concatenate(list(concept.values()))) if concept else np.zeros(0, np.int64)
  shared = np.sum([np.isin(every, one) for one in concept.values()], axis=0) if concept else every
  drawn = np.random.default_rng(seed).permutation(len(every))
  turn = np.empty(len(every), np.int64)
  turn[drawn[np.argsort(-shared[drawn], kind="stable")]] = np.arange(len(every))
  return {
    one: np.sort(np.argsort(turn[np.searchsorted(every, of)], kind="stable")[:most]) for one, of in concept.items()
  }


def words_of(test: EmbeddedSet, modality: str, places: np.ndarray, captions: Mapping[int, str]) -> list[str]:
  """What is said of things: their text, that of their concept, or what their modality says of them, "" for nothing.

  Args:
    places: int [P], among the set's things of the modality. captions: as `captions_of` gives them.
  """
  things, of = test.data.things[modality], MODALITIES[modality]
  if of.words:
    return list(taken_at(things.values, places))
  says = len(places) > 0 and bool(of.show(things.values[places[0]]).words)
  concept = np.asarray(things.concept)[places].tolist()
  return [
    captions.get(one) or (of.show(things.values[place]).words if says else "") for one, place in zip(concept, places)
  ]


def captions_of(test: EmbeddedSet) -> dict[int, str]:
  """Concept -> its first text."""
  found: dict[int, str] = {}
  for modality in test.modalities:
    if MODALITIES[modality].words:
      things = test.data.things[modality]
      for one, text in zip(np.asarray(things.concept).tolist(), things.values):
        found.setdefault(one, text)
  return found


def picture_of(test: EmbeddedSet, modality: str, place: int) -> Callable[[], np.ndarray]:
  """What makes the picture of a thing: uint8 [H, W, 3]."""
  return lambda: MODALITIES[modality].show(test.data.things[modality].values[place]).picture
