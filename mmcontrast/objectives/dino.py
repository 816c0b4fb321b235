"""DINO: a student's softmax follows a teacher's, centred and sharpened (Caron et al. 2021, arXiv:2104.14294)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.means import mean_of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import widen
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.view_pairs import check_across_views


class Dino(ModuleLoss):
  """`embeddings` of "@momentum" are the teacher's; every other one is a student's, of any view. A masked version of a
  view is that view.

      mean over teachers q and students v of another view of  -softmax((t_q - c) / T_t) . log softmax(s_v / T_s)
      c <- m c + (1 - m) mean of t over the teachers and the global batch, after use

  As facebookresearch/dino@7c446df. Embeddings are the logits of a head of prototypes (`heads.Prototypes`).

  Attributes:
    temperature: T_s, a number or a schedule.
    teacher_temperature: T_t, a number or a schedule; DINO warms it up from 0.04 to 0.07.
    momentum: m, of the centre.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature", "teacher_temperature")

  temperature: Any = 0.1
  teacher_temperature: Any = 0.04
  momentum: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.momentum < 1:
      raise UserError(f"momentum: {self.momentum} is not in [0, 1); DINO uses 0.9")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, K] each."""
    paths = [parse_embedding(name) for name in facts.names]
    x = [widen(view.pooled) for view in views]
    centre = self.variable("state", "centre", jnp.zeros, x[0].shape[-1:], jnp.float32)
    teachers = {p.source: lax.stop_gradient(x) for p, x in zip(paths, x) if p.momentum}
    students = {p.source: x for p, x in zip(paths, x) if not p.momentum}
    targets = {view: (t - centre.value) / facts.scheduled["teacher_temperature"] for view, t in teachers.items()}
    logs = {view: jax.nn.log_softmax(s / facts.scheduled["temperature"], -1) for view, s in students.items()}
    each = [mean_of_valid(-jnp.sum(jax.nn.softmax(targets[q], -1) * logs[v], -1), facts.valid)
            for q in targets for v in logs if v.original != q.original]  # fmt: skip
    entropy = [-jnp.sum(jax.nn.softmax(t, -1) * jax.nn.log_softmax(t, -1), -1) for t in targets.values()]
    if not self.is_initializing():
      mean = sum(mean_of_valid(t, facts.valid) for t in teachers.values()) / len(teachers)
      new = self.momentum * centre.value + (1 - self.momentum) * mean
      centre.value = jnp.where(jnp.any(facts.valid), new, centre.value).astype(centre.value.dtype)
    teacher_entropy = sum(mean_of_valid(e, facts.valid) for e in entropy) / len(entropy)
    return sum(each) / len(each), {"teacher_entropy": teacher_entropy}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    check_across_views(names)
