"""Evaluation sets with their embeddings, and which of their things belong together."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmcontrast.data.things import Things, taken_at
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import (
  ANYTHING,
  Compare,
  Embed,
  Guess,
  Layers,
  Match,
  Scale,
  Seen,
  Space,
  Tune,
  Words,
  cosines,
  features_of,
  unit,
)
from mmcontrast.evaluation.matches import Matches, groups, matches_of
from mmcontrast.objectives.tokens import Tokens

if TYPE_CHECKING:
  from mmcontrast.data.evaluation_set import EvaluationSet
  from mmcontrast.evaluation.joined import JoinedTerm
  from mmcontrast.objectives.embedding_path import EmbeddingPath


class Views(NamedTuple):
  """Views of E examples, in the order of the paths asked for: rows float32 [E, D] each; groups int [E] each, equal
  where the model sees the same; concept int [E]."""

  rows: list[np.ndarray]
  groups: list[np.ndarray]
  concept: np.ndarray


class EmbeddedSet:
  """An evaluation set and its embeddings, each computed at first use and then shared.

  `name` is what the config calls it ("emoji_views:twemoji"), by default the data's own name. `seen`: what the model
  sees of things; without it they are compared as they are. `joined`: the terms whose keys are joined. `space`: what
  the model can be asked for. `match`: how it says whether two things belong together; `scale`: what their cosine is
  multiplied by. `words`: how it describes them. `guess`: how it guesses words. `tune`: how prompts are tuned beside
  it. `layers`: what the layers of its towers make.
  """

  def __init__(
    self,
    data: EvaluationSet,
    embed: Embed,
    name: str | None = None,
    compare: Compare = cosines,
    *,
    seen: Seen | None = None,
    joined: Sequence[JoinedTerm] = (),
    space: Space = ANYTHING,
    match: Match | None = None,
    scale: Scale | None = None,
    words: Words | None = None,
    guess: Guess | None = None,
    tune: Tune | None = None,
    layers: Layers | None = None,
  ):
    self.data = data
    self.embed = embed
    self.compare = compare
    self.name = name or data.name
    self.seen_of = seen
    self.joined = tuple(joined)
    self.space = space
    self.match = match
    self.scale = scale
    self.words = words
    self.guess = guess
    self.tune = tune
    self.layers = layers
    self._kept: dict[Any, Any] = {}

  def with_embed(self, embed: Embed) -> EmbeddedSet:
    """The same set as another model sees it, which is not asked whether two things belong together, nor to describe
    them."""
    return EmbeddedSet(
      self.data, embed, self.name, self.compare, seen=self.seen_of, joined=self.joined, space=self.space
    )

  def for_splits(self, splits: Sequence[str]) -> EmbeddedSet:
    """The same set; all of it is of the first of `splits` where none of it is of any: it was named for that."""
    if np.isin(self.data.split, list(splits)).any():
      return self
    out = copy.copy(self)
    out.data = dataclasses.replace(self.data, split=np.full(len(self.data.split), splits[0]))
    return out

  @property
  def seen(self) -> bool:
    """Whether it is of what the run trains on."""
    return self.data.seen

  @property
  def modalities(self) -> tuple[str, ...]:
    """Those of which it has things."""
    return tuple(modality for modality, things in self.data.things.items() if len(things.values))

  def modalities_of(self, node: str = "", where: str = "evaluation") -> tuple[str, ...]:
    """The modality of the tower that probes look at, or those of a node of the model: several of a fusion.

    Raises UserError where the run has none of that name, or the set has nothing of such a modality.
    """
    if node:
      self.space.kind_of(node, where)
      found = self.space.nodes[node.partition(".")[0]]
    elif self.space.probed is None:
      found = (next(iter(self.modalities or self.data.things)),)
    elif not self.space.probed:
      raise UserError(f"{where}: this run has no tower for it: config.evaluation.features names none of it")
    else:
      found = (self.space.probed,)
    for modality in found:
      self.check(modality, where)
    return found

  def things_of(self, node: str = "", where: str = "evaluation") -> Things:
    """The things that a node is of; those of a fusion are the examples which show something of each of its
    modalities, by the first view of each."""
    modalities = self.modalities_of(node, where)
    if len(modalities) == 1:
      return self.data.things[modalities[0]]
    return self._once(("examples", modalities), lambda: self._examples(modalities, where))

  def _examples(self, modalities: tuple[str, ...], where: str) -> Things:
    views = {modality: self.data.views.get(modality) for modality in modalities}
    if lacking := [modality for modality, of in views.items() if of is None or not len(of.index)]:
      raise UserError(f"{where}: the examples of {self.name!r} show no {lacking[0]}; leave the set out with `sets`")
    shown = np.flatnonzero(np.all([of.index[0] >= 0 for of in views.values()], axis=0))
    if not len(shown):
      raise UserError(
        f"{where}: no example of {self.name!r} shows {' and '.join(modalities)}; leave the set out with `sets`"
      )
    values = {modality: taken_at(of.values, of.index[0][shown]) for modality, of in views.items()}
    return Things(values, self.data.example_id[shown], shown)

  def check(self, modality: str, where: str = "") -> None:
    """Raises UserError where the set has nothing of a modality."""
    if modality not in self.modalities:
      has = f"; it has {' and '.join(self.modalities)}" if self.modalities else ""
      raise UserError(
        f"{f'{where}: ' if where else ''}evaluation set {self.name!r} has no {modality} to embed{has}; leave the set "
        "out with `sets`, or give it such data"
      )

  def joint(self, modality: str) -> np.ndarray | Tokens:
    """float32 [N, D], unit rows in the joint space, or tokens of N things for `compare`."""
    return self._once(("joint", modality), lambda: self._joint(modality))

  def features(self, node: str = "", where: str = "evaluation") -> np.ndarray:
    """float32 [N, F], not normalised: the pooled output of the tower that probes look at, or of another node."""
    things = self.things_of(node, where)
    kind = self.space.kind_of(node, where) if node else features_of(*self.modalities_of(node, where))
    return self._once(("features", kind), lambda: self._checked(kind, things.values, len(things.concept)))

  def groups(self, modality: str) -> np.ndarray:
    """int [N], equal for things that the model cannot tell apart, of other sets too."""
    return self._once(("groups", modality), lambda: self._groups(modality, self.data.things[modality].values))

  def groups_of(self, node: str = "", where: str = "evaluation") -> np.ndarray:
    """int [N] of the things that a node is of; see `groups`."""
    modalities = self.modalities_of(node, where)
    if len(modalities) == 1:
      return self.groups(modalities[0])
    values = self.things_of(node, where).values
    return groups(np.stack([self._groups(modality, of) for modality, of in values.items()], axis=1))

  def matches(self, rows: str, columns: str) -> Matches:
    """Which of one modality is right for which of another: see retrieval.py."""
    if ("matches", columns, rows) in self._kept:
      return self._kept["matches", columns, rows].T
    one, other = (self.data.things[modality].concept for modality in (rows, columns))
    return self._once(
      ("matches", rows, columns), lambda: matches_of(one, other, self.groups(rows), self.groups(columns))
    )

  def views_of(self, paths: Sequence[EmbeddingPath]) -> Views | str:
    """The embeddings of several views of each example that has them all, or why there are none."""
    data, keep, index = self.data, np.ones(len(self.data.example_id), bool), []
    for path in paths:
      views = data.views.get(path.modality)
      if views is None or path.view >= len(views.index):
        return f"its examples have no {path.modality}[{path.view}]"
      index.append(views.index[path.view])
      keep &= index[-1] >= 0
    if not (places := np.flatnonzero(keep)).size:
      return "none of its examples has all of the views"
    several = {(path.modality, path.view) for path in paths}
    for modality in dict(several):
      at = [data.views[modality].index[view] for one, view in sorted(several) if one == modality]
      if any(np.array_equal(one, other) for place, one in enumerate(at) for other in at[place + 1 :]):
        return f"it reads several {modality} views, and a set shows one {modality} an example"
    rows, found = [], []
    for path, of_examples in zip(paths, index):
      values = taken_at(data.views[path.modality].values, of_examples[places])
      rows.append(self._checked(path.kind, values, len(values)))
      found.append(self._groups(path.modality, values))
    return Views(rows, found, data.example_id[places])

  def labels(self, label: str, where: str, things: Things | None = None) -> np.ndarray:
    """int [N] of things (default: those that probes look at), -1 for no label. `label="concept"` is the identity of the
    thing."""
    things = self.things_of(where=where) if things is None else things
    if label == "concept":
      return np.asarray(things.concept)
    choose(label, ["concept", *self.data.labels], f"{where}: labels of {self.name!r}")
    return things.of_examples(np.asarray(self.data.labels[label]), -1)

  def tags(self, where: str, things: Things | None = None) -> np.ndarray:
    """uint8 [N, T], multi-hot, of things (default: those that probes look at)."""
    if self.data.tags is None or not np.size(self.data.tags):
      raise UserError(f"{where}: {self.name!r} has no tags; leave it out with `sets`")
    things = self.things_of(where=where) if things is None else things
    return things.of_examples(np.asarray(self.data.tags), 0)

  def _once(self, key: Any, make: Callable[[], Any]) -> Any:
    if key not in self._kept:
      self._kept[key] = make()
    return self._kept[key]

  def _groups(self, modality: str, values: Any) -> np.ndarray:
    return groups(self.seen_of(modality, values) if self.seen_of and len(values) else values)

  def _joint(self, modality: str) -> np.ndarray | Tokens:
    self.check(modality)
    values = self.data.things[modality].values
    found = self._checked(modality, values, len(values), tokens=self.compare is not cosines)
    return found if isinstance(found, Tokens) else unit(found)

  def _checked(self, kind: str, values: Any, count: int, tokens: bool = False) -> np.ndarray | Tokens:
    """What `embed` gives of so many things: rows, or where they are compared `tokens`."""
    out = self.embed(kind, values)
    if not (tokens and isinstance(out, Tokens)):
      out = np.asarray(out, np.float32)
      if out.ndim != 2 or len(out) != count:
        raise UserError(
          f"embed({kind!r}) returned shape {out.shape} for {count} examples of {self.name!r}; it must be [{count}, D]"
        )
    numbers = out.vectors if isinstance(out, Tokens) else out
    bad = int((~np.isfinite(numbers)).reshape(len(out), -1).any(axis=1).sum())
    if bad:
      raise UserError(
        f"embed({kind!r}) is NaN or infinite for {bad} of {len(out)} examples of "
        f"{self.name!r}; evaluate an earlier checkpoint"
      )
    return out


def labels_of(given: str | Sequence[str] | None, usual: str, there: Collection[str]) -> list[str]:
  """The labels that an evaluator looks at: those given, else `usual` where a set has it, else all that are there."""
  if given is None:
    return [usual] if usual in there or not there else list(there)
  return [given] if isinstance(given, str) else list(given)


def nodes_of(given: str | Sequence[str]) -> list[str]:
  """The nodes that a probe looks at: those given, else the tower of config.evaluation.features, named ""."""
  return [given] if isinstance(given, str) else list(given) or [""]


def task_of(task: str, node: str) -> str:
  """What a task is called in results: "knn", or of a node that the config names "knn_of_audio"."""
  return f"{task}_of_{node}" if node else task
