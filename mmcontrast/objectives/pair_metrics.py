"""What every term logs beside its loss: temperature, anchors, in-batch top-1, mean positive and negative score."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.means import mean_of, mean_weights
from mmcontrast.objectives.side import Side
from mmcontrast.objectives.sides import Sides


def metrics_of(stats, sides: Sides, scale, bias, term: Edge):
  """Temperature, number of anchors that have a positive, in-batch top-1, mean score of positives and of negatives."""
  anchors = sides.columns if term.direction == "columns" else sides.rows
  count = stats["positive_count"]
  count = count if anchors.mask is None else jnp.where(anchors.mask, count, 0.0)
  hits = stats["best_positive"] > stats["best_negative"]
  positive = jnp.sum(jnp.where(count > 0, stats["positive_sum"], 0.0))
  number = jnp.sum(count)
  if term.score.total is None:
    everything, pairs = (
      jnp.sum(x if anchors.mask is None else jnp.where(anchors.mask, x, 0.0))
      for x in (stats["all_sum"], stats["all_count"])
    )
    everything = everything if bias is None else everything - bias * pairs
  else:
    everything, pairs = _all_scores(sides, term), _pairs(sides, term)
  if bias is not None:
    positive = positive - bias * number
  return {
    "temperature": 1.0 / scale,
    "anchors": jnp.sum(count > 0, dtype=jnp.float32),
    "top1": mean_of(hits.astype(jnp.float32), mean_weights(len(count), count > 0)),
    "positive": positive / jnp.maximum(number, 1) / scale,
    "negative": (everything - positive) / jnp.maximum(pairs - number, 1) / scale,
  }


def _seen(sides: Sides, term: Edge) -> list[tuple[Side, Side]]:
  """(rows, columns) that the anchors of the first direction see beside the matrix of the batch."""
  if term.direction == "columns":
    return [(side, sides.columns) for side in sides.more["column"]]
  return [(sides.rows, side) for side in sides.more["row"]]


def _pairs(sides: Sides, term: Edge) -> jax.Array:
  """How many pairs the anchors of the first direction see."""
  n = sides.rows.count * jnp.float32(1.0)
  of_batch = n if term.negatives == "queue" else n * sides.columns.count
  if sides.rows.slot is not None:
    of_batch = of_batch - n
  return of_batch + sum(rows.count * jnp.float32(1.0) * columns.count for rows, columns in _seen(sides, term))


def _all_scores(sides: Sides, term: Edge) -> jax.Array:
  """Sum of the scores (times scale) of those pairs."""

  def counted(side: Side) -> jax.Array:
    return side.x if side.mask is None else jnp.where(side.mask[:, None], side.x, 0.0)

  rows, columns = counted(sides.rows), counted(sides.columns)
  if term.negatives == "queue":
    total = jnp.sum(term.score.pair(rows, columns))
  else:
    total = term.score.total(rows, columns)
  if sides.rows.slot is not None:
    total = total - jnp.sum(term.score.pair(rows, columns))
  return total + sum(term.score.total(counted(a), counted(b)) for a, b in _seen(sides, term))
