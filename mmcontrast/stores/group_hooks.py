"""Hooks that say which examples make a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.stores.cluster_hooks import check_set, unit
from mmcontrast.stores.clusters import kmeans
from mmcontrast.stores.hook import Embed, Update

_EXACT = 2**24
"""Numbers up to it are exact in a table of float32."""


@dataclass(frozen=True)
class ClusterBatches:
  """MCL's batches: before the first step k-means clusters each of the embeddings, those of earlier stages; a group is
  the examples that are in the same cluster of all of them, and every batch is of one group, so that what earlier stages
  tell apart helps no more (Zhang et al. 2024, "Learning the unlearned", arXiv:2402.11816).

  The group of example i is sum_s cluster_s(i) clusters^s. The released code opens the clusters of the last stage for
  every s, which its text does not mean.

  Attributes:
    embeddings: the paths that are clustered, of the first stage first.
    clusters: of each.
    iterations: rounds of k-means.
    restarts: starts of which the best is kept.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)
  ONCE: ClassVar[bool] = True

  embeddings: tuple[str, ...]
  clusters: int = 10
  iterations: int = 100
  restarts: int = 3

  def __post_init__(self):
    if not self.embeddings:
      raise UserError("embeddings: nothing to cluster; name the embeddings of earlier stages")
    for name, least in (("clusters", 2), ("iterations", 0), ("restarts", 1)):
      if not getattr(self, name) >= least:
        raise UserError(f"{name}: {getattr(self, name)} is below {least}")
    if self.clusters ** len(self.embeddings) > _EXACT:
      raise UserError(f"clusters: {self.clusters} of each of {len(self.embeddings)} embeddings are too many groups")

  @property
  def table(self) -> Mapping[str, float]:
    return {"group": -1.0}

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    check_set(of_training)
    if self.clusters > examples:
      raise UserError(f"clusters: {self.clusters} clusters of {examples} examples; give {examples} or fewer")

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    usable = np.logical_and.reduce([found.present[path] for path in self.embeddings])
    group = np.zeros(len(usable), np.int64)
    for number, path in enumerate(self.embeddings):
      made = kmeans(
        jax.random.fold_in(key, number), unit(found.nodes[path].pooled), usable, count=self.clusters,
        iterations=self.iterations, restarts=self.restarts,
      )  # fmt: skip
      group += np.asarray(made.assignments, np.int64) * self.clusters**number
    group = np.where(usable, group, -1)
    sizes = np.bincount(group[usable]) if usable.any() else np.zeros(1, int)
    shown = {"groups": int((sizes > 0).sum()), "largest": int(sizes.max()), "smallest": int(sizes[sizes > 0].min())}
    return Update(shown=shown, own={"group": group})
