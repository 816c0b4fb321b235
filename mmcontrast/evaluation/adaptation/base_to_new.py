"""Base to new: prompts tuned on some classes, tried on these and on classes that they have not seen (CoCoOp, MaPLe).

Protocol `base_to_new-v1`. The classes of a label that the training part shows, in their order, are halved: the first
ceil(n / 2) are base, the others new. Prompts are tuned on `shots` things of each base class of the training part;
things of base classes of each set are told apart among base classes, those of new ones among new classes, and
"harmonic" is the harmonic mean of the two. Each number is the mean of several seeds, which choose the things and what
is drawn. Beside them stands "zero_shot", the same model, split and candidates with the template alone. Ties count
against the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.things import taken_at
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation import class_names
from mmcontrast.evaluation.adaptation.labelled_things import all_names, shown
from mmcontrast.evaluation.embed import Tune, cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of
from mmcontrast.evaluation.retrieval import ROUNDING
from mmcontrast.evaluation.zero_shot import class_embeddings, classified
from mmcontrast.models.prompts import METHODS

USUAL_LABEL = "subgroup"  # the emoji's; without it every label of the data
PARTS = ("base", "new", "harmonic")
WHERE = "base_to_new"


class _Part(NamedTuple):
  """Labelled things of a set: what a model embeds, and the class of each, by number in a list of all classes."""

  values: Any
  labels: np.ndarray


def halves(count: int) -> tuple[np.ndarray, np.ndarray]:
  """The numbers of base and of new classes among `count`, as CoCoOp halves them."""
  middle = -(-count // 2)
  return np.arange(middle), np.arange(middle, count)


def few(labels: np.ndarray, classes: np.ndarray, shots: int, seed: int) -> np.ndarray:
  """int [S]: places of up to `shots` things of each of `classes`, drawn, in the order of the classes."""
  draw = np.random.default_rng(seed)
  return np.concatenate([draw.permutation(np.flatnonzero(labels == one))[:shots] for one in classes])


def accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
  """The share of rows [N, K] whose class, int [N], scores above every other; ties, within rounding, do not."""
  own = np.take_along_axis(scores, labels[:, None], axis=1)
  return float(np.mean(np.sum(scores >= own - ROUNDING, axis=1) == 1))


def harmonic(base: float, new: float) -> float:
  """The harmonic mean; 0 where either is."""
  return 2 * base * new / (base + new) if base and new else 0.0


def check(options: Mapping[str, Any]) -> None:
  """Raises UserError for no such method, and for no shots or seeds."""
  for name in _several(options.get("method", "coop")):
    choose(name, METHODS, f"evaluation.evaluators.{WHERE}.method")
  shots, seeds = options.get("shots", 16), options.get("seeds", (1,))
  if not isinstance(shots, int) or shots < 1:
    raise UserError(f"evaluation.evaluators.{WHERE}.shots: {shots!r}; give 1 or more")
  if not isinstance(seeds, list | tuple) or not seeds or not all(isinstance(one, int) for one in seeds):
    raise UserError(f"evaluation.evaluators.{WHERE}.seeds: {seeds!r}; give several numbers, such as (1, 2, 3)")


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] | None = None,
  method: str | Sequence[str] = "coop",
  shots: int = 16,
  seeds: Sequence[int] = (1, 2, 3),
  test_splits: Sequence[str] = ("validation", "test"),
  names: str | class_names.Names | None = None,
  template: str = "{}",
  recipe: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, float]]:
  """Accuracy on base and on new classes, and their harmonic mean: "base_to_new/subgroup_coop_base", ...

  Args:
    label: the classes; None: "subgroup" of emoji, else every label of the data.
    method: one of "coop", "maple", "ctp_tft", or several.
    shots: things of each base class, of the training part, or as many as there are.
    seeds: numbers that choose the things and what is drawn; results are means over them.
    names: the names of the classes, other than the data's (class_names.py).
    template: what both zero-shot and prompts put names into.
    recipe: further fields of inference/prompts.py's Recipe, such as dict(length=4, steps=400, learning_rate=0.02).
  Raises UserError for a run without two heads of single vectors, a label that is not there, and fewer than two classes.
  """
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for one in labels_of(label, USUAL_LABEL, bank[0].data.label_names):
    classes, train = _training(bank, one)
    if len(classes) < 3:
      raise UserError(f"{WHERE}.label: {one!r} has {len(classes)} classes; base and new need three or more")
    called = [several[0] for several in class_names.choose(names, classes, one)]
    groups = halves(len(classes))
    parts = {test.name: _part([test], one, classes, test_splits) for test in tests}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for test in tests:
      scores = lambda values, among, test=test: (  # noqa: E731
        unit(test.embed(_modality(test), values)) @ class_embeddings(test.embed, among, (template,)).T
      )
      found["zero_shot", test.name] = [_of_halves(scores, parts[test.name], groups, called, test.name)]
    for name in _several(method):
      for seed in seeds:
        places = few(train.labels, groups[0], shots, seed)
        tuned = _tune(bank[0])(
          taken_at(train.values, places), train.labels[places], [called[at] for at in groups[0]],
          modality=_modality(bank[0]), **{**(recipe or {}), "method": name, "template": template, "seed": seed},
        )  # fmt: skip
        for test in tests:
          pair = _of_halves(tuned.cosines, parts[test.name], groups, called, test.name)
          found.setdefault((name, test.name), []).append(pair)
    for (name, of), pairs in found.items():
      base, new = np.mean(pairs, axis=0)
      numbers = zip(PARTS, (base, new, harmonic(base, new)))
      out[of] |= {f"{WHERE}/{one}_{name}_{part}": float(value) for part, value in numbers}
  return out


def _of_halves(
  scores: Callable[[Any, Sequence[str]], np.ndarray],
  part: _Part,
  groups: Sequence[np.ndarray],
  called: Sequence[str],
  name: str,
) -> tuple[float, float]:
  """Accuracy on base and on new classes, each among its own."""
  out = []
  for which, group in zip(PARTS, groups):
    places = np.flatnonzero(np.isin(part.labels, group))
    if not len(places):
      raise UserError(f"{WHERE}: {name!r} has nothing of a {which} class to test; leave it out with `sets`")
    cosines_of = scores(taken_at(part.values, places), [called[at] for at in group])
    out.append(accuracy(np.asarray(cosines_of), part.labels[places] - group[0]))
  return out[0], out[1]


def _training(bank: Sequence[EmbeddedSet], label: str) -> tuple[list[str], _Part]:
  """The classes of which the bank shows things to train on, in their order, and these things."""
  every = all_names(bank, label, f"{WHERE}.label")
  part = _part(bank, label, every, ("train",))
  kept, numbers = np.unique(part.labels, return_inverse=True)
  return [every[at] for at in kept], part._replace(labels=numbers)


def _part(sets: Sequence[EmbeddedSet], label: str, classes: Sequence[str], splits: Sequence[str]) -> _Part:
  """The things of sets that are of `classes` and of some splits."""
  values, labels = [], []
  for one in sets:
    modality = _modality(one)
    places, of = shown(one, modality, label, classes, splits, f"{WHERE}.label")
    values.append(taken_at(one.data.things[modality].values, places))
    labels.append(of)
  joined = np.concatenate(values) if isinstance(values[0], np.ndarray) else [value for part in values for value in part]
  return _Part(joined, np.concatenate(labels))


def _modality(test: EmbeddedSet) -> str:
  if test.compare is not cosines or not (found := classified(test.space, list(test.data.things))):
    raise UserError(
      f"{WHERE}: needs a run with two heads of single vectors, of texts and of what is classified "
      "(config.evaluation.image, .text); leave it out of config.evaluation.evaluators"
    )
  return found


def _tune(test: EmbeddedSet) -> Tune:
  if test.tune is None:
    raise UserError(f"{WHERE}: no model to tune prompts beside; leave its baselines out, or the evaluator")
  return test.tune


def _several(names: str | Sequence[str]) -> list[str]:
  return [names] if isinstance(names, str) else list(names)
