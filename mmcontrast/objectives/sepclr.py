"""SepCLR: what all examples share, and what sets some apart, in two spaces (Louiset et al., ICLR 2024)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, nearest
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products, widen
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
    target = facts.valid & (label != self.background if label is not None else True)
    background = facts.valid & ~target
    s_kept, t_kept = (jnp.where(target[:, None], x, 0.0) for x in (s, t))
    common = self._align(u, v, facts.valid) + self._uniform(u, facts.valid) + self._uniform(v, facts.valid)
    salient = self._align(s, t, target) + self._uniform(s_kept, facts.valid) + self._uniform(t_kept, facts.valid)
    zero = jnp.zeros_like(s)
    alone = (self._align(zero, s, background) + self._align(zero, t, background)) / 2
    joint = (self._joint(u, s_kept, facts.valid) + self._joint(v, t_kept, facts.valid)) / 2
    loss = common + self.salient * salient + self.alone * alone + self.joint * joint
    return loss, {"common": common, "salient": salient, "background": alone, "joint_entropy": joint}

  def _kernel(self, x: jax.Array) -> jax.Array:
    """-|x_i - x_j|^2 / (2 temperature), [M, M]."""
    square = jnp.sum(x * x, -1)
    return -jnp.maximum(square[:, None] + square - 2 * products(x, x), 0.0) / (2 * self.temperature)

  def _align(self, a: jax.Array, b: jax.Array, of: jax.Array) -> jax.Array:
    each = jnp.sum((a - b) ** 2, -1) / (2 * self.temperature)
    return jnp.sum(jnp.where(of, each, 0.0)) / jnp.maximum(jnp.sum(of), 1)

  def _uniform(self, x: jax.Array, of: jax.Array) -> jax.Array:
    pairs = of[:, None] & of & ~jnp.eye(len(x), dtype=bool)
    logits = jnp.where(pairs, self._kernel(x), -jnp.inf)
    some = jnp.any(pairs)
    return jnp.where(
      some, jax.nn.logsumexp(jnp.where(some, logits, 0.0)) - jnp.log(jnp.maximum(jnp.sum(pairs), 1)), 0.0
    )

  def _joint(self, common: jax.Array, salient: jax.Array, of: jax.Array) -> jax.Array:
    kernel = jnp.where(of, self._kernel(common) + self._kernel(salient), -jnp.inf)
    count = jnp.maximum(jnp.sum(of), 1)
    each = jax.nn.logsumexp(jnp.where(of[:, None], kernel, 0.0), -1) - jnp.log(count)
    return jnp.sum(jnp.where(of, each, 0.0)) / count

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 4:
      raise UserError(
        f"embeddings: {list(names)} are {len(names)}; name four: the common head of two views, the salient head of both"
      )
    if self.label not in run.labels:
      raise UserError(f"module.label: the dataset has no label {self.label!r}; {nearest(self.label, run.labels)}")
