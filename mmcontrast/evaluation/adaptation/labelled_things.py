"""Labelled things of sets, by one list of classes: which there are, and of which class each is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import choose
from mmcontrast.evaluation.embedded_set import EmbeddedSet


def names_of(one: EmbeddedSet, label: str, where: str) -> list[str]:
  """The names of the classes of a label of a set; UserError where it has no such label."""
  choose(label, one.data.label_names, f"{where}: labels of {one.name!r}")
  return list(one.data.label_names[label])


def all_names(sets: Sequence[EmbeddedSet], label: str, where: str) -> list[str]:
  """The names of the classes of all sets, each once, in order of appearance."""
  return list(dict.fromkeys(name for one in sets for name in names_of(one, label, where)))


def shown(
  one: EmbeddedSet, modality: str, label: str, classes: Sequence[str], splits: Sequence[str], where: str
) -> tuple[np.ndarray, np.ndarray]:
  """(int [N] places of the things of a set that are of `classes` and of some splits, int [N] the class of each).

  A thing of no example, such as a name of a concept, is of the class and split of the first example of its concept.
  """
  place = {name: number for number, name in enumerate(classes)}
  things, examples = one.data.things[modality], np.asarray(one.data.example_id)
  first = {int(concept): number for number, concept in reversed(list(enumerate(examples)))}
  of_concept = np.array([first.get(int(concept), -1) for concept in things.concept], np.int64)
  things = things._replace(example=np.where(things.example < 0, of_concept, things.example))
  numbers = np.array([*(place.get(name, -1) for name in names_of(one, label, where)), -1])  # the last: of no class
  of = numbers[one.labels(label, where, things)]
  split = things.of_examples(np.asarray(one.data.split), "")
  places = np.flatnonzero((of >= 0) & np.isin(split, list(splits)))
  return places, of[places]
