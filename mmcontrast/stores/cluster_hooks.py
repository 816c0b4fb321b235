"""Hooks that make clusters between epochs, for the terms that are told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from mmcontrast.errors import UserError, nearest
from mmcontrast.stores.clusters import (
  Clusters,
  back_translated,
  concentration,
  kmeans,
  nearest_centroid,
  spherical_kmeans,
)
from mmcontrast.stores.gaussian_mixture import principal_axes, split_and_merge
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

  @property
  def vectors(self) -> dict[str, str]:
    return {"centroids_": self.embedding}

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    own = _arrays_of(self.term, state, "centroids_0", "prototype_contrast", "with centroids")
    check_set(of_training)
    for name, centroids in own.items():
      if name.startswith("centroids_"):
        _check_count(self.term, len(centroids), examples)

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    rows, valid = unit(found.nodes[self.embedding].pooled), found.present[self.embedding]
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
    embeddings: the two paths that are clustered, in the order of the term's; of a term with `outer` a third, of the
      outer teacher, within whose clusters means of both are taken too.
    iterations: rounds of k-means.
    restarts: starts of which the best is kept.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)

  term: str
  embeddings: tuple[str, ...]
  iterations: int = 20
  restarts: int = 3

  def __post_init__(self):
    if len(self.embeddings) not in (2, 3):
      raise UserError(f"embeddings: {list(self.embeddings)} are {len(self.embeddings)}; name the two of the term")
    for name, least in (("iterations", 0), ("restarts", 1)):
      if not getattr(self, name) >= least:
        raise UserError(f"{name}: {getattr(self, name)} is below {least}")

  @property
  def vectors(self) -> dict[str, str]:
    kinds = ("means", "prototypes")
    return {f"{kind}_{number}": path for number, path in enumerate(self.embeddings[:2]) for kind in kinds}

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    own = _arrays_of(self.term, state, "means_0", "prototype_alignment")
    if ("outer_0" in own) != (len(self.embeddings) == 3):
      lacks = "no third, and" if "outer_0" in own else "a third, an outer teacher, and"
      raise UserError(
        f"embeddings: {list(self.embeddings)} name {lacks} config.objective.{self.term}.module.outer is "
        + ("its weight; name one, such as a head of a frozen tower" if "outer_0" in own else "0; give it a weight")
      )
    check_set(of_training)
    _check_count(self.term, len(own["means_0"]), examples)

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    count = len(state.terms[self.term]["means_0"])
    rows = [unit(found.nodes[path].pooled) for path in self.embeddings]
    made = [
      kmeans(
        jax.random.fold_in(key, number), rows[number], found.present[path], count=count,
        iterations=self.iterations, restarts=self.restarts,
      )
      for number, path in enumerate(self.embeddings)
    ]  # fmt: skip
    arrays, columns, shown = {}, {}, {}
    for number, one in enumerate(made):
      columns[f"cluster_{number}"] = one.assignments
      shown[f"clusters of {self.embeddings[number]}"] = int((one.sizes > 0).sum())
    for number, one in enumerate(made[:2]):
      there = found.present[self.embeddings[number]]
      other = np.where(there, made[1 - number].assignments, -1)
      arrays |= {f"means_{number}": one.centroids, f"prototypes_{number}": back_translated(rows[number], other, count)}
      if len(made) == 3:
        outer = np.where(there, made[2].assignments, -1)
        arrays[f"outer_{number}"] = back_translated(rows[number], outer, count)
    return Update({self.term: arrays}, {self.term: columns}, shown)


@dataclass(frozen=True)
class GaussianMixture:
  """GPC's semi-supervised clusters, for the term module `prototype_contrast` with one clustering of as many clusters as
  there may be: k-means in which labelled examples stay in the cluster of their class, then a round of splits and merges
  of the clusters of no known class (gaussian_mixture.py), then every example to the nearest centroid (Zhao et al.,
  arXiv:2305.06144). Concentrations of clusters that do not exist are 0.

  Attributes:
    term: the entry of the objective whose state it writes.
    embedding: the path of what is clustered, of unit length.
    label: of the dataset; -1 is not known (config.data.known_labels).
    clusters: of k-means, those of the known classes among them.
    iterations: rounds of k-means.
    components: splits and merges look at so many principal components; 0: at the vectors as they are.
    chance: of a split or a merge that is not likelier than none.
    temperature: mean of the concentrations.
    alpha: see stores/clusters.py.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)

  term: str
  embedding: str
  label: str
  clusters: int = 100
  iterations: int = 20
  components: int = 0
  chance: float = 0.1
  temperature: float = 1.0
  alpha: float = 10.0

  def __post_init__(self):
    least = {"clusters": 2, "iterations": 0, "components": 0, "chance": 0, "temperature": 1e-6, "alpha": 0}
    for name, low in least.items():
      if not getattr(self, name) >= low:
        raise UserError(f"{name}: {getattr(self, name)} is below {low:g}")

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.embedding,)

  @property
  def vectors(self) -> dict[str, str]:
    return {"centroids_": self.embedding}

  @property
  def labels(self) -> tuple[str, ...]:
    return (self.label,)

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    own = _arrays_of(self.term, state, "centroids_0", "prototype_contrast", "with centroids")
    check_set(of_training)
    if "centroids_1" in own:
      raise UserError(f"term: {self.term!r} has more than one clustering; give it one number of clusters")
    if self.clusters > len(own["centroids_0"]):
      raise UserError(
        f"clusters: {self.clusters} are more than the {len(own['centroids_0'])} that {self.term!r} has room for; raise "
        f"config.objective.{self.term}.module.clusters"
      )
    if self.clusters > examples:
      raise UserError(f"clusters: {self.clusters} clusters of {examples} examples; give {examples} or fewer")

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    rows, valid = unit(found.nodes[self.embedding].pooled), found.present[self.embedding]
    label = np.where(valid, found.facts["labels"][self.label], -1)
    classes, known = np.unique(label, return_inverse=True)
    if classes[0] < 0:
      classes, known = classes[1:], known - 1
    if len(classes) > self.clusters:
      raise UserError(f"clusters: {self.clusters} are fewer than the {len(classes)} known classes of {self.label!r}")
    first, second = jax.random.split(key)
    made = kmeans(first, rows, valid, known, count=self.clusters, iterations=self.iterations)
    wide, assignments = rows.astype(np.float64), np.asarray(made.assignments)
    centroids = np.asarray(made.centroids, np.float64)
    mean, axes = principal_axes(wide[valid], self.components) if self.components else (0.0, np.eye(rows.shape[1]))
    most = len(state.terms[self.term]["centroids_0"])
    changed = split_and_merge(
      (wide - mean) @ axes, assignments, (centroids - mean) @ axes, range(len(classes)), most, chance=self.chance,
      draws=np.random.default_rng(np.asarray(jax.random.key_data(second)).tolist()),
    )  # fmt: skip
    new = [wide[part].mean(0) if len(part) else centroids[old] for part, old in zip(changed.members, changed.old)]
    new = np.stack(new).astype(np.float32)
    assigned = np.where(valid, np.where(known >= 0, known, nearest_centroid(rows, new)), -1)
    sizes = np.bincount(assigned[assigned >= 0], minlength=len(new))
    spread = concentration(rows, Clusters(new, assigned, sizes), self.temperature, self.alpha)
    room = most - len(new)
    arrays = {
      "centroids_0": np.pad(unit(new), ((0, room), (0, 0))), "concentrations_0": np.pad(np.asarray(spread), (0, room)),
    }  # fmt: skip
    shown = {"clusters": len(new), "splits": changed.splits, "merges": changed.merges, "largest": int(sizes.max())}
    return Update({self.term: arrays}, {self.term: {"cluster_0": assigned}}, shown)


@dataclass(frozen=True)
class ClassMeans:
  """The mean vector of each class, of unit length, as the first prototypes of the term module `capro`, which move from
  then on, or as the prompts of `entity_prompts`; zeros of a class that no example has. It runs once.

  Attributes:
    term: the entry of the objective whose state it writes.
    embedding: the path whose vectors, of unit length, are averaged.
    label: of the dataset.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)
  ONCE: ClassVar[bool] = True

  term: str
  embedding: str
  label: str

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.embedding,)

  @property
  def vectors(self) -> dict[str, str]:
    return {"prototypes": self.embedding}

  @property
  def labels(self) -> tuple[str, ...]:
    return (self.label,)

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    _arrays_of(self.term, state, "prototypes", "capro", "with prototypes of classes")

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    old = state.terms[self.term]["prototypes"]
    found = embed(self.embeddings)
    label = np.where(found.present[self.embedding], found.facts["labels"][self.label], -1)
    means = unit(np.asarray(back_translated(unit(found.nodes[self.embedding].pooled), label, len(old))))
    return Update({self.term: {"prototypes": means}}, shown={"classes": int(np.any(means, 1).sum())})


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


def check_set(of_training: bool) -> None:
  """Raises UserError unless the set is that which is trained on."""
  if not of_training:
    raise UserError("set: clusters are those of the examples that are trained on; leave it out")


def _check_count(term: str, count: int, examples: int) -> None:
  if count > examples:
    raise UserError(f"term: {term!r} has {count} clusters, more than the set's {examples} examples")


def unit(rows: np.ndarray) -> np.ndarray:
  """Rows [N, D] of unit length, float32."""
  rows = rows.astype(np.float32)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
