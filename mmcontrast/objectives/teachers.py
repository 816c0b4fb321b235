"""What a target learns of other embeddings than those its term compares: features, and the softmax of a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.side import Side, apart
from mmcontrast.objectives.sides import Embeddings, Sides


def with_features(
  term: Edge, matrix, sides: Sides, embeddings: Embeddings, scale: Any, parameters: Mapping[str, Any]
) -> Sides:
  """The sides with what the term's target compares: `Side.facts["features"]`, of a teacher its log-sum-exps too.

  Args:
    matrix: `pair_matrix.reduce_matrix` of the term.
    scale: one over the term's temperature.
    parameters: the term's, and the values now of what it schedules.
  """
  rows, columns = (_features(term, axis, embeddings) for axis in ("row", "column"))
  scales = term.target.teacher_scales(scale)
  if scales is not None:
    rows = [scale * x for scale, x in zip(scales, rows)]
  sides = sides._replace(
    rows=_with_facts(sides.rows, features=rows), columns=_with_facts(sides.columns, features=columns)
  )
  return (
    sides
    if scales is None
    else _with_teachers(term, matrix, sides, len(scales), parameters.get("share", term.target.share))
  )


def _features(term: Edge, axis: str, embeddings: Embeddings) -> list[jax.Array]:
  """The vectors [N * views, D] of each embedding that the target compares along an axis."""
  views = term.views_of(term.query if axis == "row" else term.key)
  features = [lax.stop_gradient(term.target.prepare(embeddings[name].pooled)) for name in term.target.features(axis)]
  return [jnp.repeat(x, views, 0) if views > 1 else x for x in features]


def _with_facts(side: Side, **facts: Any) -> Side:
  return side.replace(facts={**side.facts, **{name: x for name, x in facts.items() if x}})


def _with_teachers(term: Edge, matrix, sides: Sides, count: int, teacher_weight: Any) -> Sides:
  """Gives anchors the log-sum-exps of `count` teachers, by a pass over their logits."""
  sums = {f"{axis}:{m}": Reduction(str(m), axis, "logsumexp") for axis in term.axes for m in range(count)}
  more = {axis: tuple(map(_compared_by_teachers, some)) for axis, some in sides.more.items()}
  compared = Sides(_compared_by_teachers(sides.rows), _compared_by_teachers(sides.columns), more)
  stats = lax.stop_gradient(matrix(partial(_teacher_tile, term), sums, compared, None))
  changes = {}
  for axis in term.axes:
    side, each = sides.of(axis), [stats[f"{axis}:{m}"] for m in range(count)]
    # Where no one takes part (-inf), a teacher has no weight to give.
    each = [jnp.where(lse == -jnp.inf, jnp.inf, lse) for lse in each]
    weight = jnp.full(side.position.shape, teacher_weight)
    changes[axis] = {"facts": {**side.facts, "teacher_lse": each, "teacher_weight": weight}}
  sides = sides.with_anchors(changes)
  fixed = {**sides.rows.facts, "features": lax.stop_gradient(sides.rows.facts["features"])}
  return sides._replace(rows=sides.rows.replace(facts=fixed))


def _compared_by_teachers(side: Side) -> Side:
  """A side with nothing but what teachers compare."""
  features = {name: x for name, x in side.facts.items() if name == "features"}
  x = None if features else side.x
  return Side(x, side.position, features, side.mask, side.slot)


def _teacher_tile(term: Edge, axes, rows: Side, columns: Side, bias: None) -> tuple[Values, jax.Array | None]:
  """The logits of each teacher: a tile function of any axes."""
  return {str(m): logits for m, logits in enumerate(term.target.logits(rows, columns))}, apart(rows, columns)
