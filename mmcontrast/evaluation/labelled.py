"""What probes train on and are tested on: labelled things of one modality, of one list of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.data.things import Things
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.modalities import MODALITIES

_NAMED = 5  # classes that a line names
_UNKNOWN = -2  # a class that is in no list; -1 is no class at all


class Labelled(NamedTuple):
  """Examples of a probe: features float32 [N, F], target [N] or [N, T], concept int [N], group int [N].

  `concept` is equal for examples that show the same thing, `group` for those that a model cannot tell apart, such as
  images whose pixels are equal.
  """

  features: np.ndarray
  target: np.ndarray
  concept: np.ndarray
  group: np.ndarray

  def only(self, keep: np.ndarray) -> Labelled:
    """Those that `keep`, bool [N], says."""
    return Labelled(*(part[keep] for part in self))


def gather(
  sets: Sequence[EmbeddedSet],
  target: str,
  splits: Sequence[str] | None,
  where: str,
  like: Sequence[EmbeddedSet] = (),
  node: str = "",
) -> Labelled:
  """The labelled things of several sets; classes are numbered by name, as in `classes_of(like)`.

  Args:
    sets: one or more.
    target: a label name, "concept" or "tags".
    splits: of concepts; None for all.
    where: the config key that asked, for errors.
    like: the sets whose classes count, those that a probe trains on; by default `sets`.
    node: of the model, whose outputs are the features; "": the tower of config.evaluation.features.

  Raises:
    UserError: when a set lacks the target or has a class that is not in `like`, or nothing is left.
  """
  like = like or sets
  parts, classes = [], classes_of(like, target)
  task = where.partition(".")[0]
  for one in sets:
    things = one.things_of(node, f"{task}.node" if node else task)
    values = _numbered(one, target, classes, where, things)
    keep = values >= 0 if target not in ("tags", "concept") else np.ones(len(values), bool)
    split = things.of_examples(np.asarray(one.data.split), "")
    in_split = np.ones(len(values), bool) if splits is None else np.isin(split, list(splits))
    if target not in ("tags", "concept") and (unknown := (values == _UNKNOWN) & in_split).any():
      names = _names(one, target)
      labels = one.labels(target, where, things)[unknown]
      more = sorted({names[label] for label in labels} if names else {"without names"})
      raise UserError(
        f"{where}: {one.name!r} and {like[0].name!r} do not name the classes of {target!r} alike: {_some(more)} "
        f"of {one.name!r} is no class that the probe trains on; choose sets of one list of classes with `sets`"
      )
    keep &= in_split
    features = one.features(node, f"{task}.node")
    parts.append(Labelled(features[keep], values[keep], concepts(one, things)[keep], one.groups_of(node)[keep]))
  out = Labelled(*map(np.concatenate, zip(*parts)))
  if not len(out.target):
    raise UserError(
      f"{where}: no {' with '.join(one.modalities_of(node))} of {', '.join(one.name for one in sets)} has {target!r}"
      + (f" and is of split {', '.join(splits)}" if splits is not None else "")
    )
  return out


def tested(
  test: EmbeddedSet,
  target: str,
  splits: Sequence[str] | None,
  where: str,
  bank: Sequence[EmbeddedSet],
  near: Labelled,
  node: str = "",
) -> Labelled:
  """What a probe that trains on `near`, of the sets `bank`, is tested on: never an image that it trains on.

  Says in a line how many are left out for that, and which classes have no image to test. Raises UserError as
  `gather`, and when nothing is left.
  """
  query = gather([test], target, splits, where, like=bank, node=node)
  query = leave_out(query, near, test, where, node)
  if lacking := [name for name in classes_of(bank, target) if name not in _names(test, target)]:
    what = "is left out of the mean" if target == "tags" else "the mean per class is over the others"
    note(f"{where}: {test.name!r} has no {_some(lacking)} among its {target!r}; {what}")
  return query


def leave_out(query: Labelled, near: Labelled, test: EmbeddedSet, where: str, node: str = "") -> Labelled:
  """`query`, of the set `test`, without the things that are among those of `near`; with a line that counts them."""
  known, modalities = np.isin(query.group, near.group), test.modalities_of(node)
  nouns = MODALITIES[modalities[0]].nouns if len(modalities) == 1 else "examples"
  if known.all():
    raise UserError(
      f"{where}: every {' with '.join(modalities)} of {test.name!r} to be tested is also one that the probe trains on; "
      "give evaluation.train_sets another split than evaluation.sets, such as train and validation"
    )
  if known.any():
    note(
      f"{test.name}: {known.sum():,} of {len(known):,} {nouns} to be tested are also among those "
      "that probes train on; they are left out of the test"
    )
  return query.only(~known)


def accuracies(guess: np.ndarray, target: np.ndarray) -> dict[str, float]:
  """Share of rows [N] that are right, the mean of that over the classes which have any, and how many these are."""
  right = guess == target
  each = [right[target == label].mean() for label in np.unique(target)]
  return {"accuracy": float(right.mean()), "mean_per_class": float(np.mean(each)), "classes": float(len(each))}


def classes_of(sets: Sequence[EmbeddedSet], target: str) -> list[str]:
  """The names of all classes of the sets, each once, in order of appearance."""
  return list(dict.fromkeys(name for one in sets for name in _names(one, target)))


def concepts(one: EmbeddedSet, things: Things) -> np.ndarray:
  """int64 [N]: equal for what shows the same thing; ids of sets that number things differently are never equal."""
  spaces = one.data.id_space
  space = 0 if spaces is None else things.of_examples(np.asarray(spaces, np.int64), 0)
  return space * 2**32 + np.asarray(things.concept, np.int64) + 2**31


def held_out_concepts(concept: np.ndarray, fraction: float = 0.2, seed: int = 0) -> np.ndarray:
  """bool [N]: a held-out part, by whole concepts, so no drawing of one is on both sides."""
  names, of = np.unique(concept, return_inverse=True)
  if len(names) < 2:
    raise UserError(f"a probe needs two concepts or more to train on, there are {len(names)}")
  count = min(max(1, round(fraction * len(names))), len(names) - 1)
  chosen = np.random.default_rng(seed).permutation(len(names))[:count]
  return np.isin(of, chosen)


def _numbered(one: EmbeddedSet, target: str, classes: Sequence[str], where: str, things: Things) -> np.ndarray:
  """The target of each thing [N], or tags [N, T], numbered by `classes`; _UNKNOWN for a class that is not in it."""
  if target == "concept":
    return concepts(one, things)
  place = {name: number for number, name in enumerate(classes)}
  names = _names(one, target)
  if target == "tags":
    tags = one.tags(where, things)
    out = np.zeros((len(tags), len(classes)), tags.dtype)
    shared = [number for number, name in enumerate(names) if name in place]
    out[:, [place[names[number]] for number in shared]] = tags[:, shared]
    if len(shared) < len(names):
      unknown = [name for name in names if name not in place]
      note(f"{where}: tags of {one.name!r} that the probe does not train on are left out: {_some(unknown)}")
    return out
  labels = one.labels(target, where, things)
  if not classes:  # numbers without names, on both sides
    return labels if not names else np.where(labels < 0, -1, _UNKNOWN)
  numbers = np.array([*(place.get(name, _UNKNOWN) for name in names), -1])  # the last is that of -1
  return numbers[labels] if names else np.where(labels < 0, -1, _UNKNOWN)


def _names(one: EmbeddedSet, target: str) -> list[str]:
  names = one.data.tag_names if target == "tags" else one.data.label_names.get(target)
  return [] if names is None else list(names)


def _some(names: Sequence[str]) -> str:
  return ", ".join(map(repr, names[:_NAMED])) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
