"""Pairs weighed by how far their texts are along a graph of neighbours (after G2L, Li et al., arXiv:2307.14277)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Run

_AXES = ("row", "column")


class GeodesicContrast(ModuleLoss):
  """`embeddings`: images, then texts. With g_ij the geodesic distance of texts i and j and P_ij = exp(-g_ij^2 / (2
  near^2)), 1 for i itself:

      mean_i  sum_j P_ij / sum_j P_ij (log(e^s_ii + sum_m (1 - P_im) e^s_im) - s_ij)

  over images and over texts as anchors: near texts are positives, and far ones the negatives. Distances are those of
  coordinates that the epoch hook `geodesic_map` writes; until then P is 1 for i alone, which is CLIP's loss. G2L-style:
  the paper weighs by geodesic distance, its formulas could not be read, and these are ours. s are cosines over a
  temperature that is learned.

  Table: x_0 ... of an example, and placed, 1 where they are known.

  Attributes:
    near: distance at which a text counts about 0.6 of a positive; the mean distance of landmarks is 1.
    dim: coordinates.
    temperature: at the start.
  """

  near: float = 0.1
  dim: int = 8
  temperature: float = 0.07

  def __post_init__(self):
    super().__post_init__()
    if not self.near > 0:
      raise UserError(f"near: {self.near} is not above 0, in units of the mean distance of landmarks")
    if self.dim < 1:
      raise UserError(f"dim: {self.dim} is not a number of coordinates")
    if not self.temperature > 0:
      raise UserError(f"temperature: {self.temperature} is not above 0; such as 0.07")

  @property
  def table(self) -> Mapping[str, float]:
    return {"placed": 0.0} | {f"x_{number}": 0.0 for number in range(self.dim)}

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    images, texts = (normalize(view.pooled) for view in views)
    log_scale = self.param("log_scale", lambda _: -jnp.log(jnp.float32(self.temperature)))
    scale, valid = jnp.exp(log_scale), facts.valid
    at = jnp.stack([facts.rows[f"x_{number}"] for number in range(self.dim)], 1) / self.near
    side = {"at": at.astype(images.dtype), "placed": facts.rows["placed"] > 0, "place": jnp.arange(len(valid))}
    rows, columns = {"x": scale * images, **side}, {"x": texts, **side}
    kinds = {f"{axis}:{name}": Reduction(name, axis, "logsumexp" if name == "denominator" else "sum")
             for axis in _AXES for name in ("denominator", "target", "mass")}  # fmt: skip
    found = partial(facts.reduce, row_mask=valid, column_mask=valid)(_weighted, kinds, rows, columns)
    loss, count = jnp.zeros(()), jnp.maximum(jnp.sum(valid), 1)
    for axis in _AXES:
      whole, target, mass = (
        jnp.where(valid, found[f"{axis}:{name}"], 0.0) for name in ("denominator", "target", "mass")
      )
      each = whole - target / jnp.where(mass > 0, mass, 1.0)
      loss += jnp.sum(jnp.where(valid, each, 0.0)) / count / 2
    positives = jnp.sum(jnp.where(valid, found["row:mass"], 0.0)) / count
    return loss, {"positives": positives, "temperature": 1 / scale}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name images, then texts")


def _weighted(rows: Mapping, columns: Mapping, shared: Any) -> tuple[Values, None]:
  logits, itself = products(rows["x"], columns["x"]), same(rows["place"], columns["place"])
  squares = [jnp.sum(side["at"] ** 2, -1) for side in (rows, columns)]
  distance = jnp.maximum(squares[0][:, None] + squares[1] - 2 * products(rows["at"], columns["at"]), 0.0)
  known = rows["placed"][:, None] & columns["placed"]
  near = jnp.where(itself, 1.0, jnp.where(known, jnp.exp(-distance / 2), 0.0))
  far = jnp.where(itself, 1.0, 1 - near)
  log_far = jnp.where(far > 0, jnp.log(jnp.where(far > 0, far, 1.0)), -jnp.inf)
  return {"denominator": logits + log_far, "target": near * logits, "mass": near}, None
