"""Hooks that make clusters between epochs, for the terms that are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from mmcontrast.errors import UserError, nearest
from mmcontrast.stores.clusters import back_translated, concentration, kmeans, spherical_kmeans
from mmcontrast.stores.hook import Embed, Update


@dataclass(frozen=True)
class KMeans:
  """Spherical k-means of an embedding, for the term module `prototype_contrast`: for each of its clusterings the
  centroids, their concentrations, and the cluster of each example.

  Attributes:
    term: the entry of the objective whose state it writes, which says how many clusters there are.
    embedding: the path of what is clustered.
    iterations: rounds of k-means.
    temperature: mean of the concentrations.
    alpha: see stores/clusters.py.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)

  term: str
  embedding: str
  iterations: int = 20
  temperature: float = 0.2
  alpha: float = 10.0

  def __post_init__(self):
    for name, least in (("iterations", 0), ("temperature", 1e-6), ("alpha", 0)):
      if not getattr(self, name) >= least:
        raise UserError(f"{name}: {getattr(self, name)} is below {least:g}")

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.embedding,)

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    own = _arrays_of(self.term, state, "centroids_0", "prototype_contrast", "with centroids")
    _check_set(of_training)
    for name, centroids in own.items():
      if name.startswith("centroids_"):
        _check_count(self.term, len(centroids), examples)

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    rows, valid = _unit(found.nodes[self.embedding].pooled), found.present[self.embedding]
    arrays, columns, shown = {}, {}, {}
    count = sum(name.startswith("centroids_") for name in state.terms[self.term])
    for number in range(count):
      size = len(state.terms[self.term][f"centroids_{number}"])
      own = jax.random.fold_in(key, number)
      made = spherical_kmeans(own, rows, valid, count=size, iterations=self.iterations)
      arrays[f"centroids_{number}"] = made.centroids
      arrays[f"concentrations_{number}"] = concentration(rows, made, self.temperature, self.alpha)
      columns[f"cluster_{number}"] = made.assignments
      shown |= {f"clusters of {size}": int((made.sizes > 0).sum()), f"largest of {size}": int(made.sizes.max())}
    return Update({self.term: arrays}, {self.term: columns}, shown)


@dataclass(frozen=True)
class BackTranslation:
  """ProtoCLIP's episode, for the term module `prototype_alignment`: k-means of two embeddings of unit length, and of
  each its prototypes, the means of its vectors within the clusters of the other (Chen et al., arXiv:2206.10996).

  Attributes:
    term: the entry of the objective whose state it writes, which says how many clusters there are.
    embeddings: the two paths that are clustered, in the order of the term's.
    iterations: rounds of k-means.
    restarts: starts of which the best is kept.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)

  term: str
  embeddings: tuple[str, ...]
  iterations: int = 20
  restarts: int = 3

  def __post_init__(self):
    if len(self.embeddings) != 2:
      raise UserError(f"embeddings: {list(self.embeddings)} are {len(self.embeddings)}; name the two of the term")
    for name, least in (("iterations", 0), ("restarts", 1)):
      if not getattr(self, name) >= least:
        raise UserError(f"{name}: {getattr(self, name)} is below {least}")

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    own = _arrays_of(self.term, state, "means_0", "prototype_alignment")
    _check_set(of_training)
    _check_count(self.term, len(own["means_0"]), examples)

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    count = len(state.terms[self.term]["means_0"])
    rows = [_unit(found.nodes[path].pooled) for path in self.embeddings]
    made = [
      kmeans(
        jax.random.fold_in(key, number), rows[number], found.present[path], count=count,
        iterations=self.iterations, restarts=self.restarts,
      )
      for number, path in enumerate(self.embeddings)
    ]  # fmt: skip
    arrays, columns, shown = {}, {}, {}
    for number, one in enumerate(made):
      there = found.present[self.embeddings[number]]
      other = np.where(there, made[1 - number].assignments, -1)
      arrays |= {f"means_{number}": one.centroids, f"prototypes_{number}": back_translated(rows[number], other, count)}
      columns[f"cluster_{number}"] = one.assignments
      shown[f"clusters of {self.embeddings[number]}"] = int((one.sizes > 0).sum())
    return Update({self.term: arrays}, {self.term: columns}, shown)


def _arrays_of(term: str, state: Any, array: str, module: str, what: str = "") -> Any:
  """The arrays of a term; raises UserError, naming the nearest, where it has not the one that the hook writes."""
  own = state.terms.get(term, {})
  fitting = [name for name, arrays in state.terms.items() if array in arrays]
  if array not in own:
    raise UserError(
      f"term: {term!r} is no entry of the objective {what or f'of module {module!r}'}; "
      + (nearest(term, fitting) if fitting else f"add one with module=dict(name={module!r}, ...)")
    )
  return own


def _check_set(of_training: bool) -> None:
  if not of_training:
    raise UserError("set: clusters are those of the examples that are trained on; leave it out")


def _check_count(term: str, count: int, examples: int) -> None:
  if count > examples:
    raise UserError(f"term: {term!r} has {count} clusters, more than the set's {examples} examples")


def _unit(rows: np.ndarray) -> np.ndarray:
  rows = rows.astype(np.float32)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
