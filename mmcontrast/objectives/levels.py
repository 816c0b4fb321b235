"""Scores of one pair at several levels are to agree: HBI's divergence between entities, actions and events
(Jin et al. 2023, arXiv:2303.14369)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.token_scores import TokenWeighted


class LevelDivergence(ModuleLoss):
  """`embeddings`: tokens of texts and of images at a coarse level, then of both at the level that they follow.

      KL(softmax(finer scores) || softmax(coarser scores)) over the batch's images for each text, and over its texts for
      each image; both summed. Scores are `token_weighted`, without a logit scale; both levels have gradients.

  As KL of jpthu17/HBI@b261e9c, which divides by the number of pairs, N^2.

  Attributes:
    divisor: "pairs" (released) or "examples", N.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "weights")
  CHOICES: ClassVar = {"divisor": ("pairs", "examples")}

  divisor: str = "pairs"

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, D] and weights [N, L] each."""
    score = TokenWeighted()
    sides = [score.prepare(score.read(view)) for view in views]
    total = divergence(score, (sides[0], sides[2]), (sides[1], sides[3]), facts)
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    return total / (count**2 if self.divisor == "pairs" else count), {}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 4:
      raise UserError(
        f"embeddings: {list(names)} are {len(names)}; name texts and images of a coarse level, then of a finer one"
      )


def divergence(
  score: Score, rows: tuple[Any, Any], columns: tuple[Any, Any], facts: Facts, axes: tuple[str, ...] = ("row", "column")
) -> jax.Array:
  """The sum over rows, and that over columns, of KL(softmax(second) || softmax(first)).

  Args:
    rows, columns: (first, second), prepared for `score`, [N, ...] each.
  """
  cells = 2 * score.cells(*jax.tree.map(lambda x: x[0], (rows[0], columns[0])))
  reduce = partial(facts.reduce, row_mask=facts.valid, column_mask=facts.valid, cells=cells)
  kinds = {f"{axis}:{name}": Reduction(name, axis, "logsumexp") for axis in axes for name in ("first", "second")}
  stats = reduce(partial(_scores, score), kinds, rows, columns)
  stats = {name: jnp.where(facts.valid, x, 0.0) for name, x in stats.items()}
  # sum_j p_j (second_j - first_j) - lse(second) + lse(first), p the softmax of the second
  kinds = {axis: Reduction(axis, axis, "sum") for axis in axes}
  sides = (
    (of, stats.get(f"{axis}:second", jnp.zeros(len(facts.valid)))) for axis, of in (("row", rows), ("column", columns))
  )
  gaps = reduce(partial(_gaps, score), kinds, *sides)
  each = sum(gaps[axis] - stats[f"{axis}:second"] + stats[f"{axis}:first"] for axis in axes)
  return jnp.sum(jnp.where(facts.valid, each, 0.0))


def _scores(score: Score, rows: Any, columns: Any, shared: Any) -> tuple[Values, None]:
  return {name: score.tile(row, column) for name, row, column in zip(("first", "second"), rows, columns)}, None


def _gaps(score: Score, rows: Any, columns: Any, shared: Any) -> tuple[Values, None]:
  (rows, row_lse), (columns, column_lse) = rows, columns
  values, _ = _scores(score, rows, columns, shared)
  gap = values["second"] - values["first"]
  # At most 1 in what counts; what is masked must stay finite.
  shares = {"row": values["second"] - row_lse[:, None], "column": values["second"] - column_lse}
  return {axis: jnp.exp(jnp.minimum(share, 1.0)) * gap for axis, share in shares.items()}, None
