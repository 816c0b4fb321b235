"""The hooks of `config.epoch_hooks` by name: what is computed between epochs (training/epoch_hooks.py calls them).

A hook is a frozen dataclass in HOOKS whose fields are its options, and a pure function of the set's embeddings, the
state and a key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import numpy as np

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, nearest
from mmcontrast.stores.clusters import concentration, spherical_kmeans


class Examples(NamedTuple):
  """E examples of a set, in the order of their indices; NumPy arrays, the same in every process.

  Attributes:
    nodes: path -> Encoded of arrays [E, ...], raw: not normalised.
    present: path -> bool [E]: the examples whose record could be used and that have all that the path reads.
    facts: "id" int32 [E], and "labels" {name: int32 [E]}, "tags" uint8 [E, T] where the set has them.
  """

  nodes: Mapping[str, Encoded]
  present: Mapping[str, np.ndarray]
  facts: Mapping[str, Any]


Embed = Callable[[Sequence[str]], Examples]


class Update(NamedTuple):
  """What a hook writes: term -> array of its state -> new value; term -> column of its table -> value of each example
  [E]; and numbers to be shown in a line."""

  terms: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
  tables: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
  shown: Mapping[str, float] = MappingProxyType({})


class Hook(Protocol):
  """What HOOKS holds: dataclasses whose fields are options.

  TAKES: the fields of `Encoded` that what it embeds must have.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)

  @property
  def embeddings(self) -> tuple[str, ...]:
    """The paths that it embeds."""

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    """Raises UserError, beginning with an option, where the run has not what it needs.

    Args:
      state: shapes.
      examples: of the set.
      of_training: whether the set is that which is trained on.
    """

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    """See the module."""


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
    own = state.terms.get(self.term, {})
    fitting = [name for name, arrays in state.terms.items() if "centroids_0" in arrays]
    if "centroids_0" not in own:
      raise UserError(
        f"term: {self.term!r} is no entry of the objective with centroids; "
        + (nearest(self.term, fitting) if fitting else "add one with module=dict(name='prototype_contrast', ...)")
      )
    if not of_training:
      raise UserError("set: clusters are those of the examples that are trained on; leave it out")
    for name, centroids in own.items():
      if name.startswith("centroids_") and len(centroids) > examples:
        raise UserError(f"term: {self.term!r} has {len(centroids)} clusters, more than the set's {examples} examples")

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


def _unit(rows: np.ndarray) -> np.ndarray:
  rows = rows.astype(np.float32)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


HOOKS: dict[str, type[Hook]] = {"kmeans": KMeans}

SHARED: dict[str, Any] = {"every_epochs": 1, "first_epoch": 0, "set": ""}
"""Options that all hooks have: how often, from which epoch on, and of which set ("": that which is trained on, or a
name of config.evaluation.data)."""
