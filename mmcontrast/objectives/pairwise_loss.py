"""The loss of a pairwise term: score, target, criterion and negatives put together over the global matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.criterion import Anchors
from mmcontrast.objectives.edge import ANCHORS, Edge
from mmcontrast.objectives.means import mean_of, mean_weights
from mmcontrast.objectives.pair_matrix import reduce_matrix
from mmcontrast.objectives.pair_metrics import metrics_of
from mmcontrast.objectives.pair_tile import first_tile, reductions_of, term_reductions, term_tile
from mmcontrast.objectives.reductions import Values
from mmcontrast.objectives.side import Side
from mmcontrast.objectives.sides import Embeddings, Sides, float_type, make_sides
from mmcontrast.objectives.spread import standard_deviation
from mmcontrast.objectives.teachers import with_features
from mmcontrast.objectives.term import Memory, Outcome


def pairwise_loss(
  term: Edge,
  embeddings: Embeddings,
  parameters: Mapping[str, jax.Array],
  memory: Memory,
  facts: Mapping[str, Any],
  options: Mapping[str, Any],
) -> Outcome:
  """The loss of one term: a mean over the anchors of each direction, then over directions.

  Args:
    parameters: what the term has learned, and the values now of what it schedules.
    facts: of the batch (terms.evaluate).
    options: of `global_matrix.reduce_tiles`.
  """
  bias = term.temperature.offset(parameters)
  facts, queue = _known(term, facts), None if memory.queue is None else _known(term, memory.queue)
  sides = make_sides(term, embeddings, facts, queue, parameters)
  bias_array = None if bias is None else jnp.asarray(bias, float_type(sides.rows.x))
  cells = term.score.cells(*jax.tree.map(lambda x: x[0], (sides.rows.x, sides.columns.x)))
  matrix = partial(reduce_matrix, term, cells=cells, **options)
  deviation = standard_deviation(term, matrix, sides) if term.temperature.is_of_batch else None
  scale = term.temperature.scale(parameters, deviation)
  sides = sides.scaled(scale)
  sides = with_features(term, matrix, sides, embeddings, scale, parameters)
  pair_logits = _pair_logits(term, sides, bias)
  sides = _with_anchors(term, matrix, sides, pair_logits, bias_array, facts)
  finds_positives = pair_logits is None or term.target.kind == "set"
  stats = matrix(partial(term_tile, term, finds_positives), term_reductions(term, finds_positives), sides, bias_array)
  if term.criterion.additive:
    loss, remembered = stats["loss"], {}
  else:
    by_axis = {
      axis: _direction_loss(term, axis, stats, sides, pair_logits, parameters, memory, facts, scale)
      for axis in term.axes
    }
    loss = sum(loss for loss, _ in by_axis.values()) / len(by_axis)
    remembered = {ANCHORS[axis]: rows for axis, (_, rows) in by_axis.items() if rows is not None}
  if not finds_positives:
    stats |= {"best_positive": pair_logits, "positive_sum": pair_logits, "positive_count": jnp.ones_like(pair_logits)}
  metrics = metrics_of(*lax.stop_gradient((stats, sides, scale, bias)), term)
  return Outcome(loss, metrics, remembered)


def _known(term: Edge, facts: Mapping[str, Any]) -> Mapping[str, Any]:
  """Facts of a batch or queue, of whose examples those take no part that the target cannot compare."""
  known = term.target.known(facts)
  return facts if known is None else {**facts, "valid": facts.get("valid", True) & known}


def _pair_logits(term: Edge, sides: Sides, bias: Any) -> jax.Array | None:
  """[N], the logit of each example's own pair; None where an example is several rows or columns, or meets itself."""
  if not term.is_paired or term.query == term.key:
    return None
  return term.score.pair(sides.rows.x, sides.columns.x) + (0.0 if bias is None else bias)


def _with_anchors(
  term: Edge, matrix: Any, sides: Sides, pair_logits: jax.Array | None, bias: jax.Array | None, facts: Mapping[str, Any]
) -> Sides:
  """The sides with what the criterion must know of each anchor before it goes over the matrix."""
  criterion = term.criterion
  if criterion.needs_anchor:
    sides = sides.with_anchors({axis: {"anchor": pair_logits} for axis in ("row", "column")})
  if criterion.first_reductions:
    stats = matrix(partial(first_tile, term), reductions_of(term.axes, criterion.first_reductions), sides, bias)
    sides = sides.with_anchors({axis: {"anchor": _of_axis(stats, axis)} for axis in term.axes})
  if criterion.additive:
    sides = sides.with_anchors({axis: {"mean_weight": _share_of_mean(term, axis, sides, facts)} for axis in term.axes})
  return sides


def _of_axis(stats: Values, axis: str) -> Values:
  """The statistics of one axis, "row:denominator" as "denominator"."""
  return {name.removeprefix(f"{axis}:"): x for name, x in stats.items() if name.startswith(f"{axis}:")}


def _share_of_mean(term: Edge, axis: str, sides: Sides, facts: Mapping[str, Any]) -> jax.Array:
  """What each anchor counts in the mean over anchors and directions."""
  side = sides.of(axis)
  weights = mean_weights(side.length, side.mask, _anchor_weights(term, _names(term, axis), facts))
  return weights.astype(float_type(side.x)) / len(term.axes)


def _names(term: Edge, axis: str) -> tuple[str, ...]:
  """The embeddings that are anchors of an axis."""
  return term.query if axis == "row" else term.key


def _anchor_weights(term: Edge, names: tuple[str, ...], facts: Mapping[str, Any]) -> jax.Array | None:
  """The weight of each anchor, [N * views]; None when all weigh the same."""
  return jnp.repeat(facts["weight"], term.views_of(names), 0) if "weight" in facts else None


def _direction_loss(
  term: Edge,
  axis: str,
  stats: Values,
  sides: Sides,
  pair_logits: jax.Array | None,
  parameters: Mapping[str, jax.Array],
  memory: Memory,
  facts: Mapping[str, Any],
  scale: Any,
) -> tuple[jax.Array, jax.Array | None]:
  """(the mean loss of the anchors of one axis, what the criterion remembers now of each)."""
  criterion, names, keep, stats = term.criterion, _names(term, axis), sides.of(axis).mask, _of_axis(stats, axis)
  if criterion.joins_views:
    stats, keep = jax.tree.map(lambda x: x.reshape(-1, len(names)), (stats, keep))
    names, keep = names[:1], None if keep is None else jnp.all(keep, 1)
  anchors = Anchors(
    positive=pair_logits if term.is_aligned or criterion.needs_anchor else None,
    count=_count_columns(term, axis, sides),
    scale=scale,
    scheduled={name: parameters.get(name, value) for name, value in criterion.schedules.items()},
    remembered=memory.rows.get(ANCHORS[axis]),
  )
  loss, remembered = criterion.losses(stats, anchors)
  if "mass" in stats:  # an anchor without a positive is not counted
    keep = stats["mass"] > 0 if keep is None else keep & (stats["mass"] > 0)
  return mean_of(loss, mean_weights(len(loss), keep, _anchor_weights(term, names, facts))), remembered


def _count_columns(term: Edge, axis: str, sides: Sides) -> jax.Array | int:
  """How many columns (rows, of keys that are anchors) an anchor sees."""
  count = 1 if term.compares_pairs_only else sides.of("column" if axis == "row" else "row").count
  count += sum(_count_met(term, axis, side) for side in sides.more[axis])
  return count if sides.combinations is None or axis != "row" else count + sides.combinations.count


def _count_met(term: Edge, axis: str, side: Side) -> jax.Array | int:
  """How many entries of a side beside the batch's an anchor meets."""
  if side.origin is None or all(term.negative_weights):
    return side.count
  own = len(term.negative_keys if axis == "row" else term.negative_queries)
  return own if term.negative_weights[0] else side.count - own
