"""SepCLR: what all examples share, and what sets some apart, in two spaces (Louiset et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values, reduce_values
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Run


class SepClr(ModuleLoss):
  """`embeddings`: the common head of two views, then the salient head of the same two.

  Targets are the examples whose label is not `background`; with |x|^2 = |x|^2 / (2 temperature) throughout:

      common      mean |u - v|^2 + sum over both views of log mean_{i<j} exp(-|u_i - u_j|^2), of unit length
      salient     the same; the first over targets, in the second background vectors are zeros
      background  mean |s|^2 of the background
      joint       mean_i log mean_j exp(-|u_i - u_j|^2) exp(-|s_i - s_j|^2), mean over both views

  As neurospin-projects/2024_rlouiset_sep_clr@0e40bff (k-JEM), with its weights.

  Attributes:
    label: the label that says who is background.
    background: its class number.
    temperature: of all kernels.
    salient, alone, joint: weights of the salient, background and joint terms beside the common one's 1.
  """

  ONE_SPACE = False

  label: str = "kind"
  background: int = 0
  temperature: float = 0.5
  salient: float = 1000.0
  alone: float = 1000.0
  joint: float = 10.0

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D], [N, D], [N, S], [N, S]."""
    u, v = (normalize(view.pooled) for view in views[:2])
    s, t = (widen(view.pooled) for view in views[2:])
    label = facts.batch.get("labels", {}).get(self.label)
    valid = facts.valid
    target = valid & (label != self.background if label is not None else True)
    background = valid & ~target
    s_kept, t_kept = (jnp.where(target[:, None], x, 0.0) for x in (s, t))
    common = self._align(u, v, valid) + uniformity(u, facts, self.temperature) + uniformity(v, facts, self.temperature)
    salient = self._align(s, t, target) + sum(uniformity(x, facts, self.temperature) for x in (s_kept, t_kept))
    zero = jnp.zeros_like(s)
    alone = (self._align(zero, s, background) + self._align(zero, t, background)) / 2
    pairs = ((u, s_kept), (v, t_kept))
    joint = sum(joint_entropy(*spaces, facts, self.temperature) for spaces in pairs) / 2
    loss = common + self.salient * salient + self.alone * alone + self.joint * joint
    return loss, {"common": common, "salient": salient, "background": alone, "joint_entropy": joint}

  def _align(self, a: jax.Array, b: jax.Array, of: jax.Array) -> jax.Array:
    each = jnp.sum((a - b) ** 2, -1) / (2 * self.temperature)
    return jnp.sum(jnp.where(of, each, 0.0)) / jnp.maximum(jnp.sum(of), 1)

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 4:
      raise UserError(
        f"embeddings: {list(names)} are {len(names)}; name four: the common head of two views, the salient head of both"
      )
    if self.label not in run.labels:
      raise UserError(f"module.label: the dataset has no label {self.label!r}; {nearest(self.label, run.labels)}")


class AttributeAlignment(ModuleLoss):
  """One dimension of a space follows a number of the examples: SepCLR's salient dimension of an attribute.

      mean_{i < j} exp(-(y_i - y_j)^2 / (2 temperature)) (x_i - x_j)^2,   x of the `dimension`, y the label's number

  As sup_align_loss of the released code. Examples whose label is -1 take no part; several embeddings are averaged.

  Attributes:
    label: of the dataset, whose class numbers are y.
    scale: that they are multiplied by: the released y are of about -0.5 to 0.5.
    dimension: which number of the vector.
    temperature: how near two y must be.
  """

  label: str = ""
  scale: float = 1.0
  dimension: int = 0
  temperature: float = 0.025

  def __post_init__(self):
    super().__post_init__()
    if not self.temperature > 0:
      raise UserError(f"temperature: {self.temperature} is not above 0; SepCLR uses 0.025")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    if self.is_initializing():
      return jnp.float32(0), {}
    labels = facts.batch["labels"][self.label]
    known = facts.valid & (labels >= 0)
    x = [widen(view.pooled)[:, self.dimension] for view in views]
    y = self.scale * labels.astype(x[0].dtype)
    return sum(attribute_alignment(one, y, known, facts, self.temperature) for one in x) / len(x), {}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    choose(self.label, run.labels, "module.label")
    for name in names:
      head = parse_embedding(name).head
      if not 0 <= self.dimension < run.head_dims.get(head, self.dimension + 1):
        raise UserError(
          f"module.dimension: head {head!r} gives vectors of {run.head_dims[head]} numbers, and no number "
          f"{self.dimension}; give one from 0 to {run.head_dims[head] - 1}"
        )


def uniformity(x: jax.Array, facts: Facts, temperature: float) -> jax.Array:
  """log mean_{i < j} exp(-|x_i - x_j|^2 / (2 temperature)) of the examples [N, D] that take part; 0 of one alone."""
  space = _space(x, x[:, :0], temperature)
  rows = facts.reduce(partial(_kernel, True), _LSE, space, space, column_mask=facts.valid)["lse"]
  total = reduce_values("logsumexp", jnp.where(facts.valid, rows, -jnp.inf), 0)
  count = jnp.sum(facts.valid).astype(x.dtype)
  some = total != -jnp.inf  # NaN stays NaN
  return jnp.where(some, jnp.where(some, total, 0.0) - jnp.log(jnp.maximum(count * (count - 1), 1)), 0.0)


def joint_entropy(common: jax.Array, salient: jax.Array, facts: Facts, temperature: float) -> jax.Array:
  """mean_i log mean_j of the product of the kernels of two spaces, [N, D] and [N, S]."""
  space = _space(common, salient, temperature)
  rows = facts.reduce(partial(_kernel, False), _LSE, space, space, column_mask=facts.valid)["lse"]
  count = jnp.maximum(jnp.sum(facts.valid), 1)
  return jnp.sum(jnp.where(facts.valid, rows - jnp.log(count), 0.0)) / count


def attribute_alignment(x: jax.Array, y: jax.Array, known: jax.Array, facts: Facts, temperature: float) -> jax.Array:
  """The mean over pairs i < j of those `known`; x, y [N]."""
  rows = {"x": x, "y": y / jnp.sqrt(2 * temperature)}
  total = facts.reduce(
    _attracted, {"total": Reduction("cost", "all", "sum")}, rows, rows, row_mask=known, column_mask=known
  )["total"]
  count = jnp.sum(known)
  return total / jnp.maximum(count * (count - 1), 1)


_LSE = {"lse": Reduction("kernel", "row", "logsumexp")}


def _space(a: jax.Array, b: jax.Array, temperature: float) -> dict[str, jax.Array]:
  """Two spaces as one, in which |x_i - x_j|^2 is the sum of theirs over 2 temperature."""
  x = jnp.concatenate([a, b.astype(a.dtype)], -1) / jnp.sqrt(jnp.asarray(2 * temperature, a.dtype))
  return {"x": x, "square": jnp.sum(x * x, -1), "position": jnp.arange(len(x), dtype=jnp.int32)}


def _kernel(apart: bool, rows: dict, columns: dict, shared: object) -> tuple[Values, jax.Array | None]:
  """-|x_i - x_j|^2, `apart`: of different examples."""
  distance = rows["square"][:, None] + columns["square"] - 2 * products(rows["x"], columns["x"])
  return {"kernel": -jnp.maximum(distance, 0.0)}, ~same(rows["position"], columns["position"]) if apart else None


def _attracted(rows: dict, columns: dict, shared: object) -> tuple[Values, None]:
  near = jnp.exp(-((rows["y"][:, None] - columns["y"]) ** 2))
  return {"cost": near * (rows["x"][:, None] - columns["x"]) ** 2}, None
