"""Contrast with the centres of clusters that are made between epochs (ProtoNCE, Li et al., arXiv:2005.04966)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.term import Run


class PrototypeContrast(ModuleLoss):
  """An example is drawn to the centre of its cluster, and away from the other centres: the prototypes' part of eq. 11.

      mean over clusterings m of  -log softmax_j(v . c_j / phi_j)[cluster of the example]

  v of unit length, c_j the centroids and phi_j their concentrations, which an epoch hook such as `kmeans` writes into
  the term's state, and the clusters of each example, which it writes into its table. Until then, and for examples
  without a cluster, the loss is 0. All of a clustering's centroids are its negatives (the released code draws some);
  one whose concentration is 0 stands for none.

  State: centroids_M [K, D] and concentrations_M [K] of clustering M. Table: cluster_M, -1 where it is not known.

  Attributes:
    clusters: how many in each clustering, such as (250, 500).
  """

  clusters: tuple[int, ...] = (100,)

  def __post_init__(self):
    super().__post_init__()
    if not self.clusters or any(isinstance(k, bool) or not isinstance(k, int) or k < 2 for k in self.clusters):
      raise UserError(f"clusters: {tuple(self.clusters)} are not numbers of 2 or more clusters, such as (100, 200)")

  @property
  def table(self) -> Mapping[str, float]:
    return {f"cluster_{number}": -1.0 for number in range(len(self.clusters))}

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each; the losses of several are averaged."""
    x = [normalize(view.pooled) for view in views]
    losses, hits, known = [], [], jnp.zeros(())
    for centroids, spread, own in self.clusterings(x[0].shape[-1], facts):
      taken = facts.valid & (own >= 0)
      known = jnp.sum(taken)
      for one in x:
        each, nearest = prototype_nce(one, centroids, spread, own)
        losses.append(jnp.sum(jnp.where(taken, each, 0.0)) / jnp.maximum(known, 1))
        hits.append(jnp.sum(taken & (nearest == own)) / jnp.maximum(known, 1))
    return sum(losses) / len(losses), {"top1": sum(hits) / len(hits), "clustered": known}

  def clusterings(self, width: int, facts: Facts) -> list[tuple[jax.Array, jax.Array, jax.Array]]:
    """(centroids [K, width], concentrations [K], clusters int32 [N] of the batch) of each clustering."""
    found = []
    for number, count in enumerate(self.clusters):
      centroids = self.variable("state", f"centroids_{number}", jnp.zeros, (count, width), jnp.float32).value
      spread = self.variable("state", f"concentrations_{number}", jnp.ones, (count,), jnp.float32).value
      found.append((centroids, spread, facts.rows[f"cluster_{number}"].astype(jnp.int32)))
    return found

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if run.examples and max(self.clusters) > run.examples:
      raise UserError(
        f"module.clusters: {max(self.clusters)} clusters of {run.examples} examples; give {run.examples} or fewer"
      )

  def after_cut(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Centroids of unit length."""
    return {name: normalize(x) if name.startswith("centroids_") else x for name, x in state.items()}


def prototype_nce(x: jax.Array, centroids: jax.Array, spread: jax.Array, own: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(-log softmax_j(x . c_j / phi_j) [N] at the prototype `own`, the prototype of the largest logit [N]).

  Args:
    x: [N, D]. centroids: [K, D].
    spread: phi [K]; a prototype whose phi is 0 does not exist.
    own: int32 [N]; what is said of those that are in no cluster, below 0, means nothing.
  """
  there = spread > 0
  logits = jnp.where(there, products(x, centroids) / jnp.where(there, spread, 1.0), -jnp.inf)
  each = jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, jnp.maximum(own, 0)[:, None], 1)[:, 0]
  return each, jnp.argmax(logits, -1)
