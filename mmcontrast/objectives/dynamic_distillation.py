"""A teacher says how alike pairs are, which negatives are hard, and an example counts as much as it is difficult (after
DCD, Rao et al. 2022, "Dynamic Contrastive Distillation for Image-Text Retrieval", arXiv:2207.01426)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Run

_AXES = ("row", "column")


class DynamicDistillation(ModuleLoss):
  """`embeddings`: images and texts of the student, then images and texts of the teacher, which get no gradient.

      soft_i  cross entropy of the student's softmax over the batch with the teacher's
      hard_i  log(e^s_ii + sum_j w_ij e^s_ij) - s_ii,  w_ij = 1 - mining + mining (N - 1) q_ij,  q the teacher's softmax
              over the N - 1 negatives of i
      loss    mean_i d_i (soft soft_i + hard_i),  d_i = (1 - p_ii)^focus, p_ii the student's, to a mean of 1

  over images and over texts as anchors. DCD-style: its formulas could not be read, only that its teacher chooses hard
  negatives and weighs samples by difficulty; these forms are ours. s are cosines over a temperature that is learned.

  Attributes:
    temperature: the student's at the start.
    teacher_temperature: the teacher's.
    soft: weight of the teacher's softmax.
    mining: how much of a negative's weight is the teacher's: 0 weighs all as 1.
    focus: 0 weighs all examples as 1.
  """

  ONE_SPACE = False
  temperature: float = 0.07
  teacher_temperature: float = 0.07
  soft: float = 1.0
  mining: float = 0.5
  focus: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    for name in ("temperature", "teacher_temperature"):
      if not getattr(self, name) > 0:
        raise UserError(f"{name}: {getattr(self, name)} is not above 0; such as 0.07")
    if not 0 <= self.mining <= 1:
      raise UserError(f"mining: {self.mining} is not in [0, 1]; 0 weighs all negatives alike")
    for name in ("soft", "focus"):
      if getattr(self, name) < 0:
        raise UserError(f"{name}: {getattr(self, name)} is below 0")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D], [N, D], [N, E], [N, E]."""
    x = [normalize(view.pooled) for view in views]
    log_scale = self.param("log_scale", lambda _: -jnp.log(jnp.float32(self.temperature)))
    scale, valid = jnp.exp(log_scale), facts.valid
    images, texts = scale * x[0], x[1]
    teacher = lax.stop_gradient((x[2] / self.teacher_temperature, x[3]))
    place = jnp.arange(len(valid), dtype=jnp.int32)
    rows = {"x": images, "teacher": teacher[0], "place": place}
    columns = {"x": texts, "teacher": teacher[1], "place": place}
    reduce = partial(facts.reduce, row_mask=valid, column_mask=valid)
    kinds = {f"{axis}:{name}": Reduction(name, axis, "logsumexp") for axis in _AXES for name in ("all", "negatives")}
    known = reduce(_teacher, kinds, *lax.stop_gradient((rows, columns)))
    known = {name: jnp.where(valid & (of > -jnp.inf), of, 0.0) for name, of in lax.stop_gradient(known).items()}
    for side, axis in ((rows, "row"), (columns, "column")):
      side |= {name: known[f"{axis}:{name}"] for name in ("all", "negatives")}
    count = jnp.maximum(jnp.sum(valid), 1)
    kinds = {f"{axis}:{name}": Reduction(f"{axis}:{name}", axis, "sum" if name == "soft" else "logsumexp")
             for axis in _AXES for name in ("lse", "hard", "soft")}  # fmt: skip
    shared = {"negatives": (count - 1).astype(images.dtype)}
    found = reduce(partial(_student, self.mining), kinds, rows, columns, shared)
    own = jnp.sum(images * texts, -1)
    loss, metrics = jnp.zeros(()), {}
    for axis in _AXES:
      lse, hard, soft = (jnp.where(valid, found[f"{axis}:{name}"], 0.0) for name in ("lse", "hard", "soft"))
      difficulty = (1 - jnp.exp(jnp.minimum(lax.stop_gradient(own - lse), 0.0))) ** self.focus if self.focus else 1.0
      difficulty = jnp.where(valid, difficulty, 0.0)
      mean = jnp.sum(difficulty) / count
      difficulty = jnp.where(mean > 0, difficulty / jnp.where(mean > 0, mean, 1.0), valid.astype(lse.dtype))
      each = jnp.where(valid, self.soft * (lse - soft) + hard - own, 0.0)
      loss += jnp.sum(difficulty * each) / count / 2
      metrics[f"{axis}_difficulty"] = mean
    return loss, {**metrics, "temperature": 1 / scale}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 4:
      raise UserError(
        f"embeddings: {list(names)} are {len(names)}; name the student's images and texts, then the teacher's"
      )
    heads = [parse_embedding(name).head for name in names]
    for pair in (heads[:2], heads[2:]):
      dims = [run.head_dims.get(head) for head in pair]
      if None not in dims and dims[0] != dims[1]:
        raise UserError(
          f"embeddings: heads {pair[0]!r} and {pair[1]!r} give {dims[0]} and {dims[1]} numbers; make them equal"
        )


def _teacher(rows: Mapping, columns: Mapping, shared: Any) -> tuple[Values, None]:
  logits = products(rows["teacher"], columns["teacher"])
  return {"all": logits, "negatives": jnp.where(same(rows["place"], columns["place"]), -jnp.inf, logits)}, None


def _student(mining: float, rows: Mapping, columns: Mapping, shared: Any) -> tuple[Values, None]:
  logits, taught = products(rows["x"], columns["x"]), products(rows["teacher"], columns["teacher"])
  itself, values = same(rows["place"], columns["place"]), {}
  for axis, side in (("row", rows), ("column", columns)):
    every, negatives = (jnp.expand_dims(side[name], 1 if axis == "row" else 0) for name in ("all", "negatives"))
    weight = 1 - mining + mining * shared["negatives"] * jnp.exp(jnp.minimum(taught - negatives, 0.0))
    log_weight = jnp.where(weight > 0, jnp.log(jnp.where(weight > 0, weight, 1.0)), -jnp.inf)
    values[f"{axis}:lse"] = logits
    values[f"{axis}:hard"] = jnp.where(itself, logits, logits + log_weight)
    values[f"{axis}:soft"] = jnp.exp(jnp.minimum(taught - every, 0.0)) * logits
  return values, None
