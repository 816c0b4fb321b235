"""PixPro: places of one view follow the same places of another (Xie et al. 2021, arXiv:2011.10043)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.modalities.boxes import places
from mmcontrast.objectives.means import mean_of_valid, of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import matmul_precision, normalize
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.view_pairs import across_views, check_across_views


class PixPro(ModuleLoss):
  """`embeddings` of "@momentum" are the teacher's maps; each of the others is a student's, of any view.

      sum over students y and teachers k of another view of
        - 2 mean over examples of  sum_ij A_ij cos(y_i, k_j) / (sum_ij A_ij + 1e-6)
      A_ij = 1 where the centres of cells i and j are less than `distance` apart in the image, in diagonals of a cell
      (the larger one's), and 0 elsewhere

  As zdaxie/PixPro@e390d6b, where students come through the propagation module (head `pixel_propagation`). Two views
  without a place in common have loss 0.

  Attributes:
    distance: the threshold (released: 0.7).
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "grid")
  VIEW_FACTS: ClassVar[tuple[str, ...]] = ("box",)

  distance: float = 0.7

  def __post_init__(self):
    super().__post_init__()
    if not self.distance > 0:
      raise UserError(f"distance: {self.distance!r} is not above 0; PixPro uses 0.7 diagonals of a cell")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, D] each, which are a map."""
    if self.is_initializing():
      return jnp.float32(0), {}
    at = [places(facts.of_view(name, "box"), view.grid) for name, view in zip(facts.names, views)]
    loss, near = jnp.float32(0), []
    for student, teacher in across_views(facts.names):
      positive = same_place(*at[student], *at[teacher], self.distance)
      queries = normalize(of_valid(views[student].tokens, facts.valid))
      keys = normalize(lax.stop_gradient(of_valid(views[teacher].tokens, facts.valid)))
      loss += mean_of_valid(regression(queries, keys, positive), facts.valid)
      near.append(mean_of_valid(jnp.mean(jnp.any(positive, 2), 1), facts.valid))
    return loss, {"places_in_common": sum(near) / len(near)}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    check_across_views(names)


def same_place(a: jax.Array, a_cell: jax.Array, b: jax.Array, b_cell: jax.Array, distance: float) -> jax.Array:
  """Centres [N, L, 2] and diagonals of a cell [N] of two views (boxes.places) -> bool [N, L, M]."""
  apart = jnp.sqrt(jnp.sum((a[:, :, None] - b[:, None]) ** 2, -1))
  return apart < distance * jnp.maximum(a_cell, b_cell)[:, None, None]


def regression(queries: jax.Array, keys: jax.Array, positive: jax.Array) -> jax.Array:
  """[N, L, D], [N, M, D], bool [N, L, M] -> [N]: minus twice the mean product of positive pairs; 0 without any."""
  products = jnp.einsum("nid,njd->nij", queries, keys, precision=matmul_precision())
  count = jnp.sum(positive, (1, 2)).astype(products.dtype)
  return -2 * jnp.sum(jnp.where(positive, products, 0.0), (1, 2)) / (count + 1e-6)
