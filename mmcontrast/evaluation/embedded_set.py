"""Evaluation sets with their embeddings, and what probes train and are tested on."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import Compare, Embed, cosines, unit

if TYPE_CHECKING:
  from mmcontrast.data.evaluation_set import EvaluationSet


class EmbeddedSet:
  """An evaluation set and its embeddings, each computed at first use and then shared.

  `name` is what the config calls it ("emoji_views:twemoji"), by default the data's own name.
  """

  def __init__(self, data: EvaluationSet, embed: Embed, name: str | None = None, compare: Compare = cosines):
    self.data = data
    self.embed = embed
    self.compare = compare
    self.name = name or data.name

  @property
  def seen(self) -> bool:
    return self.data.seen

  @functools.cached_property
  def image(self) -> np.ndarray:
    """float32 [M, D], unit rows in the joint space, or tokens [M, L, D] for `compare`."""
    return self._joint("image", self.data.images)

  @functools.cached_property
  def text(self) -> np.ndarray:
    """float32 [C, D], unit rows in the joint space, or tokens [C, L, D] for `compare`."""
    return self._joint("text", list(self.data.captions))

  @functools.cached_property
  def features(self) -> np.ndarray:
    """float32 [M, F], the pooled output of the image tower, not normalised."""
    return self._checked("image_features", self.data.images)

  def labels(self, label: str, where: str) -> np.ndarray:
    """int [M], -1 for no label. `label="concept"` is the identity of the image."""
    if label == "concept":
      return np.asarray(self.data.image_id)
    choose(label, ["concept", *self.data.labels], f"{where}: labels of {self.name!r}")
    return np.asarray(self.data.labels[label])

  def tags(self, where: str) -> np.ndarray:
    """uint8 [M, T], multi-hot."""
    if self.data.tags is None or not np.size(self.data.tags):
      raise UserError(f"{where}: {self.name!r} has no tags; leave it out with `sets`")
    return np.asarray(self.data.tags)

  def _joint(self, kind: str, values: Any) -> np.ndarray:
    found = self._checked(kind, values, ndims=(2,) if self.compare is cosines else (2, 3))
    return unit(found) if found.ndim == 2 else found

  def _checked(self, kind: str, values: Any, ndims: tuple[int, ...] = (2,)) -> np.ndarray:
    if not len(values):
      raise UserError(f"evaluation set {self.name!r} has no {kind.partition('_')[0]} to embed")
    out = np.asarray(self.embed(kind, values), np.float32)
    if out.ndim not in ndims or len(out) != len(values):
      raise UserError(
        f"embed({kind!r}) returned shape {out.shape} for {len(values)} examples of "
        f"{self.name!r}; it must be [{len(values)}, D]"
      )
    bad = int((~np.isfinite(out)).reshape(len(out), -1).any(axis=1).sum())
    if bad:
      raise UserError(
        f"embed({kind!r}) is NaN or infinite for {bad} of {len(out)} examples of "
        f"{self.name!r}; evaluate an earlier checkpoint"
      )
    return out


class Labelled(NamedTuple):
  """Examples of a probe: features float32 [N, F], target [N] or [N, T], concept int [N]."""

  features: np.ndarray
  target: np.ndarray
  concept: np.ndarray


def gather(
  sets: Sequence[EmbeddedSet],
  target: str,
  splits: Sequence[str] | None,
  where: str,
  like: EmbeddedSet | None = None,
) -> Labelled:
  """The labelled images of several sets that share a label space.

  Args:
    sets: one or more.
    target: a label name, "concept" or "tags".
    splits: of concepts; None for all.
    where: the config key that asked, for errors.
    like: a set whose label space they must share too.

  Raises:
    UserError: when a set lacks the target, numbers its classes otherwise, or nothing is left.
  """
  parts, like = [], like or sets[0]
  for one in sets:
    if _class_names(one, target) != _class_names(like, target):
      raise UserError(
        f"{where}: {one.name!r} and {like.name!r} do not name the classes of {target!r} "
        "alike; a probe needs sets of one label space, choose them with `sets`"
      )
    values = one.tags(where) if target == "tags" else one.labels(target, where)
    keep = np.ones(len(values), bool) if values.ndim == 2 else values >= 0
    if splits is not None:
      keep &= np.isin(np.asarray(one.data.split), list(splits))
    parts.append(Labelled(one.features[keep], values[keep], np.asarray(one.data.image_id)[keep]))
  out = Labelled(*map(np.concatenate, zip(*parts)))
  if not len(out.target):
    raise UserError(
      f"{where}: no image of {', '.join(one.name for one in sets)} has {target!r}"
      + (f" and is of split {', '.join(splits)}" if splits is not None else "")
    )
  return out


def held_out_concepts(concept: np.ndarray, fraction: float = 0.2, seed: int = 0) -> np.ndarray:
  """bool [N]: a held-out part, by whole concepts, so no drawing of one is on both sides."""
  names, of = np.unique(concept, return_inverse=True)
  if len(names) < 2:
    raise UserError(f"a probe needs two concepts or more to train on, there are {len(names)}")
  count = min(max(1, round(fraction * len(names))), len(names) - 1)
  chosen = np.random.default_rng(seed).permutation(len(names))[:count]
  return np.isin(of, chosen)


def _class_names(one: EmbeddedSet, target: str) -> list[str]:
  names = one.data.tag_names if target == "tags" else one.data.label_names.get(target)
  return [] if names is None else list(names)
