"""Evaluation sets with their embeddings, and which of their images and captions belong together."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import Compare, Embed, cosines, unit
from mmcontrast.evaluation.matches import Matches, groups, matches_of

if TYPE_CHECKING:
  from mmcontrast.data.evaluation_set import EvaluationSet
  from mmcontrast.evaluation.joined import JoinedTerm
  from mmcontrast.objectives.embedding_path import EmbeddingPath

TokenIds = Callable[[Sequence[str]], np.ndarray]
"""N texts -> int [N, L], what the model sees of them."""


class Views(NamedTuple):
  """Views of E examples, in the order of the paths asked for: rows float32 [E, D] each; groups int [E] each, equal
  where the model sees the same; concept int [E]."""

  rows: list[np.ndarray]
  groups: list[np.ndarray]
  concept: np.ndarray


class EmbeddedSet:
  """An evaluation set and its embeddings, each computed at first use and then shared.

  `name` is what the config calls it ("emoji_views:twemoji"), by default the data's own name. `token_ids`: what the
  model sees of texts; without it they are compared as they are written. `joined`: the terms whose keys are joined.
  """

  def __init__(
    self,
    data: EvaluationSet,
    embed: Embed,
    name: str | None = None,
    compare: Compare = cosines,
    *,
    token_ids: TokenIds | None = None,
    joined: Sequence[JoinedTerm] = (),
  ):
    self.data = data
    self.embed = embed
    self.compare = compare
    self.name = name or data.name
    self.token_ids = token_ids
    self.joined = tuple(joined)

  def with_embed(self, embed: Embed) -> EmbeddedSet:
    """The same set as another model sees it."""
    return EmbeddedSet(self.data, embed, self.name, self.compare, token_ids=self.token_ids, joined=self.joined)

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

  @functools.cached_property
  def image_groups(self) -> np.ndarray:
    """int [M], equal for images whose pixels are equal, in other sets too."""
    return groups(self.data.images)

  @functools.cached_property
  def caption_groups(self) -> np.ndarray:
    """int [C], equal for captions that the model cannot tell apart."""
    return self._text_groups(self.data.captions)

  @functools.cached_property
  def matches(self) -> Matches:
    """Which caption is right for which image: see retrieval.py."""
    return matches_of(self.data.image_id, self.data.caption_id, self.image_groups, self.caption_groups)

  def views_of(self, paths: Sequence[EmbeddingPath]) -> Views | str:
    """The embeddings of several views of each example that has them all, or why there are none.

    A set shows one image an example: any one image view is it.
    """
    data, keep = self.data, np.ones(len(self.data.example_id), bool)
    if len({path.view for path in paths if path.modality == "image"}) > 1:
      return "it reads several image views, and a set shows one image an example"
    for path in paths:
      if path.modality == "image":
        keep &= data.example_image >= 0
      elif path.view >= len(data.text_views):
        return f"its examples have no text[{path.view}]"
      else:
        keep &= np.array([bool(text) for text in data.text_views[path.view]], bool)
    if not (places := np.flatnonzero(keep)).size:
      return "none of its examples has all of the views"
    rows, found = [], []
    for path in paths:
      if path.modality == "image":
        at = data.example_image[places]
        rows.append(self._checked(path.kind, data.images[at]))
        found.append(self.image_groups[at])
      else:
        texts = [data.text_views[path.view][place] for place in places]
        rows.append(self._checked(path.kind, texts))
        found.append(self._text_groups(texts))
    return Views(rows, found, data.example_id[places])

  def _text_groups(self, texts: Sequence[str]) -> np.ndarray:
    return groups(self.token_ids(list(texts)) if self.token_ids and len(texts) else texts)

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


def labels_of(given: str | Sequence[str] | None, usual: str, there: Collection[str]) -> list[str]:
  """The labels that an evaluator looks at: those given, else `usual` where a set has it, else all that are there."""
  if given is None:
    return [usual] if usual in there or not there else list(there)
  return [given] if isinstance(given, str) else list(given)
