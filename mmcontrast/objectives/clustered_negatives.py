"""MEOW: InfoNCE whose negatives weigh less where clusters agree, and ProtoNCE on their centres (Yu et al. 2023,
"Heterogeneous graph contrastive learning with meta-path contexts and adaptively weighted negative samples",
arXiv:2212.13847)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.prototype_contrast import PrototypeContrast, prototype_nce
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.term import Run


class ClusteredNegatives(PrototypeContrast):
  """`embeddings`: the anchor, then the other view, both of unit length here.

      mean_i -log( e_ii / sum_j W_ij e_ij )  +  prototype_weight * mean over clusterings of ProtoNCE on the anchor
      e_ij = exp(a_i . b_j / temperature),  W_ij = M - how many of the M clusterings have i and j in one cluster

  As jianxiangyu/MEOW@6a072d7 (code_meow), whose ProtoNCE is that of `prototype_contrast` plus log(N / K), a constant:
  its denominator is the mean over K centres times N. The positive has weight 0 and so is not in its denominator, and an
  anchor all of whose negatives weigh 0 (they are in its clusters) has no loss. Without clusters, before the first
  epoch hook, all negatives weigh alike, and ProtoNCE is 0. The [N, N] matrix is made whole.

  State, table and hook: those of `prototype_contrast`; MEOW's `alpha` is 5.

  Attributes:
    clusters: how many in each clustering.
    temperature: products are divided by it; a number or a schedule.
    prototype_weight: of ProtoNCE.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  temperature: Any = 0.4
  prototype_weight: float = 1.0

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each, two of them."""
    anchor, other = (normalize(view.pooled) for view in views)
    found = self.clusterings(anchor.shape[-1], facts)
    each, weighed = clustered_info_nce(
      anchor, other, jnp.stack([own for _, _, own in found]), facts.scheduled["temperature"], facts.valid
    )
    pairs, prototypes = jnp.sum(each) / jnp.maximum(jnp.sum(weighed), 1), []
    for centroids, spread, own in found:
      taken = facts.valid & (own >= 0)
      count = jnp.maximum(jnp.sum(taken), 1)
      constant = jnp.where(jnp.any(taken), jnp.log(count / len(centroids)), 0.0)
      losses = jnp.where(taken, prototype_nce(anchor, centroids, spread, own)[0], 0.0)
      prototypes.append(jnp.sum(losses) / count + constant)
    prototypes = sum(prototypes) / len(prototypes)
    metrics = {"pairs": pairs, "prototypes": prototypes, "weighed": jnp.sum(weighed, dtype=jnp.float32)}
    return pairs + self.prototype_weight * prototypes, metrics

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name the anchor, then its other view")
    super().check_views(names, run)


def clustered_info_nce(
  anchor: jax.Array, other: jax.Array, clusters: jax.Array, temperature: Any, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """(-log(e_ii / sum_j W_ij e_ij) [N], bool [N]: who has a negative that weighs something); 0 of who has none.

  Args:
    anchor, other: [N, D].
    clusters: int32 [M, N], -1 of who is in none, and then shares none with others.
    valid: bool [N]; others are no anchors and no negatives.
  """
  logits = products(anchor, other) / temperature
  itself = jnp.eye(len(anchor), dtype=bool)
  together = (clusters[:, :, None] == clusters[:, None]) & (clusters[:, :, None] >= 0) | itself
  weight = jnp.where(valid[:, None] & valid, len(clusters) - jnp.sum(together, 0), 0)
  weighed = jnp.any(weight > 0, 1)
  inside = jnp.where(weighed[:, None], jnp.where(weight > 0, logits, -jnp.inf), 0.0)  # no row of -inf
  denominator = jax.nn.logsumexp(inside, -1, b=jnp.where(weighed[:, None], weight, 1))
  return jnp.where(weighed, denominator - jnp.diagonal(logits), 0.0), weighed
