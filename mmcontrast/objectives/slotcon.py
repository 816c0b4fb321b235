"""SlotCon: groups of pixels are the same in two views, and told from all others (Wen et al. 2022, arXiv:2205.15288).

As CVMI-Lab/SlotCon@30ff33d; its objective is half of each of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.modalities.boxes import area, common, roi_align, within
from mmcontrast.objectives.means import mean_of_valid, of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.part_contrast import compare, mean_of_parts
from mmcontrast.objectives.score import normalize, widen
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.view_pairs import across_views, check_across_views

LEAST_AREA = 1e-6  # of the image, in common


class SlotDistill(ModuleLoss):
  """`embeddings` are maps of cosines with the groups (head `token_prototypes`); those of "@momentum" are the teacher's.

      sum over students s and teachers t of another view of
        mean over places i of  -softmax((t_i - c) / T_t) . log softmax(s_i / T_s)
      c <- m c + (1 - m) mean of t over the teachers' maps and the global batch, after use

  Both maps are first cut to what the two views have in common, resampled to as many places as they had, and turned
  back where a view is mirrored. Two views without anything in common take no part (the released code crops again).

  Attributes:
    temperature: T_s, a number or a schedule.
    teacher_temperature: T_t, a number or a schedule.
    momentum: m, of the centre.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "grid")
  VIEW_FACTS: ClassVar[tuple[str, ...]] = ("box",)
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature", "teacher_temperature")

  temperature: Any = 0.1
  teacher_temperature: Any = 0.07
  momentum: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.momentum < 1:
      raise UserError(f"momentum: {self.momentum} is not in [0, 1); SlotCon uses 0.9")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, K] each, which are a map."""
    centre = self.variable("state", "centre", jnp.zeros, views[0].tokens.shape[-1:], jnp.float32)
    if self.is_initializing():
      return jnp.float32(0), {}
    maps = [widen(of_valid(view.map, facts.valid)) for view in views]
    boxes = [of_valid(facts.of_view(name, "box"), facts.valid) for name in facts.names]
    pairs, loss, shared = across_views(facts.names), jnp.float32(0), []
    for s, t in pairs:
      both = common(boxes[s], boxes[t])
      some = facts.valid & (area(both) > LEAST_AREA)
      student = roi_align(maps[s], within(both, boxes[s]), views[s].grid)
      teacher = roi_align(lax.stop_gradient(maps[t]), within(both, boxes[t]), views[s].grid)
      each = distill(student, teacher - centre.value, facts.scheduled)
      loss += mean_of_valid(jnp.mean(each, (1, 2)), some)
      shared.append(jnp.sum(some) / jnp.maximum(jnp.sum(facts.valid), 1))
    teachers = sorted({t for _, t in pairs})
    mean = sum(mean_of_valid(jnp.mean(maps[t], (1, 2)), facts.valid) for t in teachers) / len(teachers)
    new = self.momentum * centre.value + (1 - self.momentum) * lax.stop_gradient(mean)
    centre.value = jnp.where(jnp.any(facts.valid), new, centre.value).astype(centre.value.dtype)
    return loss, {"overlapping": sum(shared) / len(shared)}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    check_across_views(names)


class SlotContrast(ModuleLoss):
  """`embeddings` are slots (head `slots`): the students' through a predictor, those of "@momentum" the teacher's.

      sum over students s and teachers t of another view of
        2 tau  mean over queries of  -log softmax over candidates of cos(s_k, t) / tau, at t_k of the same example
      queries: slots that win a place in both views; candidates: the teacher's slots of the batch that win one

  Embeddings whose mask is None win a place all. The products of a slot number with all candidates, [N, N K], are
  made one slot number after the other.

  Attributes:
    temperature: tau, a number or a schedule.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens",)
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  temperature: Any = 0.2

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, K, D] and masks [N, K] each."""
    wins = [won(view) & facts.valid[:, None] for view in views]
    loss, used = jnp.float32(0), []
    for s, t in across_views(facts.names):
      queries, keys = (of_valid(views[place].tokens, facts.valid) for place in (s, t))
      tau = facts.scheduled["temperature"]
      loss += contrast(normalize(queries), normalize(lax.stop_gradient(keys)), wins[s] & wins[t], wins[t], tau)
      used.append(mean_of_valid(jnp.sum(wins[s] & wins[t], 1).astype(jnp.float32), facts.valid))
    return loss, {"slots_in_both": sum(used) / len(used)} if used else {}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    check_across_views(names)


def distill(student: jax.Array, teacher: jax.Array, temperatures: Any) -> jax.Array:
  """Scores [..., K] of the student, and of the teacher, centred -> the cross entropy of each place, [...]."""
  targets = jax.nn.softmax(teacher / temperatures["teacher_temperature"], -1)
  return -jnp.sum(targets * jax.nn.log_softmax(student / temperatures["temperature"], -1), -1)


def won(view: Encoded) -> jax.Array:
  """Bool [N, K]: which slots win a place."""
  return jnp.ones(view.tokens.shape[:2], bool) if view.mask is None else view.mask


def contrast(queries: jax.Array, keys: jax.Array, asks: jax.Array, stands: jax.Array, tau: Any) -> jax.Array:
  """Twice tau times the mean cross entropy of slots; 0 where no slot asks.

  Args:
    queries, keys: [N, K, D], of unit length; key k of example n is the answer to query k of example n.
    asks, stands: bool [N, K], which are queries, and which are candidates. Who asks has an answer that stands.
  """
  return 2 * tau * mean_of_parts(compare(queries, keys, stands, tau).loss, asks)
