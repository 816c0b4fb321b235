"""ProtoCLIP: each modality predicts the other's clusters, through prototypes of its own (Chen et al. 2022,
"Prototypical contrastive language image pretraining", arXiv:2206.10996)."""

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


class PrototypeAlignment(ModuleLoss):
  """`embeddings`: two spaces, such as an image's and a text's; each is student and teacher of the other.

      1/2 [ CE(s x P_x^T, T_y) + the same with x and y exchanged ],   T_y = softmax(c_y C_y^T / target_temperature)

  x of unit length, y the other embedding, c_y the centroid of y's cluster among its centroids C_y, and P_x the mean of
  the x whose y is in each cluster (prototypical back translation), zero where there is none. Centroids, prototypes and
  clusters are what the epoch hook `prototype_back_translation` writes; until then, and for examples without a cluster,
  the loss is 0. As megvii-research/protoclip@fde19338 (ProtoLoss, PBT). The logit scale s is learned.

  With `outer` clusters of a third embedding, of a teacher outside of what is trained, such as a frozen text tower, are
  targets of both: outer times 1/2 [CE(s x O_x^T, cluster) + the same of y], O_x the mean of the x in each of them.

  State, of embedding 0 and 1: prototypes_0, means_0 [K, D]; with `outer` outer_0. Table: cluster_0, cluster_1 and, with
  `outer`, cluster_2, -1 where it is not known.

  Attributes:
    clusters: K, of each embedding.
    target_temperature: of targets; 0: the target is the cluster itself.
    temperature: 1 / s at the start; s stays in [1, 100].
    outer: weight of the outer teacher, which the hook names as its third embedding; 0: there is none.
  """

  clusters: int = 100
  target_temperature: float = 0.01
  temperature: float = 0.07
  outer: float = 0.0

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.clusters, bool) or not isinstance(self.clusters, int) or self.clusters < 2:
      raise UserError(f"clusters: {self.clusters!r} is not a number of 2 or more clusters")
    if not self.target_temperature >= 0:
      raise UserError(f"target_temperature: {self.target_temperature} is below 0; 0 makes targets hard, released: 0.01")
    if not 0.01 <= self.temperature <= 1:
      raise UserError(f"temperature: {self.temperature} is not in [0.01, 1], where the logit scale is kept")
    if not self.outer >= 0:
      raise UserError(f"outer: {self.outer} is below 0; give a weight, or 0 for no outer teacher")

  @property
  def table(self) -> Mapping[str, float]:
    return {f"cluster_{n}": -1.0 for n in range(3 if self.outer else 2)}

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] and [N, E]."""
    scale = jnp.exp(self.param("log_scale", lambda _: jnp.log(1 / jnp.float32(self.temperature))))
    x = [normalize(view.pooled) for view in views]
    shapes = [(self.clusters, one.shape[-1]) for one in x]
    prototypes = [self.variable("state", f"prototypes_{n}", jnp.zeros, shapes[n], jnp.float32).value for n in (0, 1)]
    means = [self.variable("state", f"means_{n}", jnp.zeros, shapes[n], jnp.float32).value for n in (0, 1)]
    losses, hits, known = [], [], []
    for student, teacher in ((0, 1), (1, 0)):
      own = facts.rows[f"cluster_{teacher}"].astype(jnp.int32)
      taken = facts.valid & (own >= 0)
      logits = scale * products(x[student], prototypes[student])
      each = prototype_loss(logits, means[teacher], own, self.target_temperature)
      known.append(jnp.sum(taken))
      losses.append(jnp.sum(jnp.where(taken, each, 0.0)) / jnp.maximum(known[-1], 1))
      hits.append(jnp.sum(taken & (jnp.argmax(logits, -1) == own)) / jnp.maximum(known[-1], 1))
    loss = sum(losses) / 2
    if self.outer:
      loss += self.outer * self._outer(x, scale, facts)
    return loss, {"top1": sum(hits) / 2, "clustered": known[0], "logit_scale": scale}

  def _outer(self, x: Sequence[jax.Array], scale: jax.Array, facts: Facts) -> jax.Array:
    """Half of both cross entropies with the clusters of the outer teacher."""
    own = facts.rows["cluster_2"].astype(jnp.int32)
    taken, losses = facts.valid & (own >= 0), []
    for n, one in enumerate(x):
      prototypes = self.variable("state", f"outer_{n}", jnp.zeros, (self.clusters, one.shape[-1]), jnp.float32).value
      each = prototype_loss(scale * products(one, prototypes), prototypes, own, 0)
      losses.append(jnp.sum(jnp.where(taken, each, 0.0)) / jnp.maximum(jnp.sum(taken), 1))
    return sum(losses) / 2

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name two, such as an image's and a text's")
    if run.examples and self.clusters > run.examples:
      raise UserError(
        f"module.clusters: {self.clusters} clusters of {run.examples} examples; give {run.examples} or fewer"
      )

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The logit scale within [1, 100]."""
    return {**parameters, "log_scale": jnp.clip(parameters["log_scale"], 0.0, jnp.log(100.0))}


def prototype_loss(logits: jax.Array, means: jax.Array, own: jax.Array, temperature: float) -> jax.Array:
  """[N]: the cross entropy of logits [N, K] with the teacher's clusters.

  Args:
    means: [K, E], the teacher's centroids.
    own: int32 [N], the teacher's cluster of each example; what is said of those below 0 means nothing.
    temperature: of the softmax over the products of centroids that is the target; 0: one-hot.
  """
  own = jnp.maximum(own, 0)
  logs = jax.nn.log_softmax(logits, -1)
  if not temperature:
    return -jnp.take_along_axis(logs, own[:, None], 1)[:, 0]
  target = jax.nn.softmax(products(means[own], means) / temperature, -1)
  return -jnp.sum(target * logs, -1)
