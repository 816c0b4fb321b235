"""One pairwise term: score, target, criterion and negatives put together over the global matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.global_matrix import Values, reduce_tiles
from mmcontrast.objectives.reductions import Reduction, merge, reduce_values
from mmcontrast.objectives.targets import Facts, SoftSimilarity, Target, Teacher, same

if TYPE_CHECKING:
  from mmcontrast.objectives.terms import Term

AXES = {"rows": ("row",), "columns": ("column",), "both": ("row", "column")}


class Side(NamedTuple):
  """The queries, the keys or the queue: facts [n, ...] ("x" the embedding), and which count."""

  facts: Facts
  mask: jax.Array | None


def pairwise(
  term: Term,
  embeddings: Mapping[str, jax.Array],
  info: Mapping[str, Any],
  parameters: Mapping[str, jax.Array],
  queue: Mapping[str, Any] | None,
  *,
  mesh: jax.sharding.Mesh | None,
  impl: str,
  tile: int,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The loss of one term and its metrics (terms.evaluate): a mean over anchors, then directions."""
  scale, bias = term.temperature.scale(parameters), term.temperature.offset(parameters)
  rows = _batch_side(term, term.query, embeddings, info)
  columns = _batch_side(term, term.key, embeddings, info)
  queued = None if queue is None else _queue_side(term, queue)
  rows.facts["x"] = scale * rows.facts["x"]
  shared = () if bias is None else jnp.asarray(bias, rows.facts["x"].dtype)
  matrix = partial(_matrix, term, mesh=mesh, impl=impl, size=tile)

  if isinstance(term.target, Teacher):
    _add_teacher(term, matrix, rows, columns, queued, embeddings, scale)
  else:
    _add_features(term, rows, columns, embeddings)

  aligned = _is_aligned(term)
  own = None
  if len(term.query) == len(term.key) == 1 and term.query != term.key:
    own = term.score.pair(rows.facts["x"], columns.facts["x"]) + (0.0 if bias is None else bias)
  if term.criterion.needs_anchor:
    rows.facts["anchor"] = columns.facts["anchor"] = own

  axes = AXES[term.direction]
  if term.criterion.first_reductions:
    _add_first_pass(term, matrix, rows, columns, queued, shared)
  counted = own is None or term.target.kind == "set"  # Positives are found in the matrix.
  function = partial(_tile, term, axes, counted)
  stats = matrix(function, _reductions(term, axes, aligned, counted), rows, columns, queued, shared)
  losses = []
  for axis, anchors, others in (("row", rows, columns), ("column", columns, rows)):
    if axis in axes:
      found = {
        name.removeprefix(f"{axis}:"): x for name, x in stats.items() if name.startswith(axis)
      }
      loss = term.criterion.loss(
        found,
        own if aligned or term.criterion.needs_anchor else None,
        _count(others) + _count(queued),
      )
      keep = anchors.mask
      if "mass" in found:  # An anchor without a positive is not counted.
        keep = found["mass"] > 0 if keep is None else keep & (found["mass"] > 0)
      losses.append(_mean(loss, keep))
  if not counted:
    stats |= {"best_positive": own, "positive_sum": own, "positive_count": jnp.ones_like(own)}
  metrics = _metrics(*lax.stop_gradient((stats, rows, columns, queued, scale, bias)), term)
  return sum(losses) / len(losses), metrics


# ---- Sides --------------------------------------------------------------------------------------


def _batch_side(term: Term, names: tuple[str, ...], embeddings, info) -> Side:
  """The views `names` of each example in turn: [N * len(names), ...]."""
  views = len(names)
  facts = dict(term.target.facts(info))
  facts["position"] = jnp.arange(embeddings[names[0]].shape[0], dtype=jnp.int32)
  facts = {name: jnp.repeat(x, views, 0) if views > 1 else x for name, x in facts.items()}
  facts["x"] = _interleave([_prepared(term.score.prepare, name, embeddings) for name in names])
  if term.query == term.key:
    facts["slot"] = jnp.arange(facts["position"].shape[0], dtype=jnp.int32)
  valid = info.get("valid")
  return Side(facts, valid if valid is None or views == 1 else jnp.repeat(valid, views, 0))


def _queue_side(term: Term, queue: Mapping[str, Any]) -> Side:
  facts = dict(term.target.facts(queue))
  facts["x"] = queue["keys"]
  facts["position"] = jnp.full(queue["keys"].shape[0], -1, jnp.int32)
  return Side(lax.stop_gradient(facts), queue.get("valid"))


def _prepared(prepare, name: str, embeddings) -> jax.Array:
  x = prepare(embeddings[name])
  return lax.stop_gradient(x) if name.endswith("@momentum") else x


def _interleave(views: list[jax.Array]) -> jax.Array:
  """[N, D] each -> [N * views, D], an example's views together, so that a sharded N stays so."""
  return views[0] if len(views) == 1 else jnp.stack(views, 1).reshape(-1, views[0].shape[-1])


def _is_aligned(term: Term) -> bool:
  """Whether each anchor's only positive is its own pair, so that no target weights are needed."""
  return term.target.kind == "own" and len(term.query) == len(term.key) == 1


def _count(side: Side | None) -> jax.Array | int:
  if side is None:
    return 0
  return side.facts["position"].shape[0] if side.mask is None else jnp.sum(side.mask)


def _mean(x: jax.Array, keep: jax.Array | None) -> jax.Array:
  """Mean of the entries kept; zero, with no gradient, when there are none."""
  if keep is None:
    return jnp.mean(x)
  return jnp.sum(jnp.where(keep, x, 0.0)) / jnp.maximum(jnp.sum(keep), 1)


# ---- Soft targets -------------------------------------------------------------------------------


def _add_features(term: Term, rows: Side, columns: Side, embeddings) -> None:
  if isinstance(term.target, SoftSimilarity):
    for side, names in ((rows, term.query), (columns, term.key)):
      side.facts["of"] = _repeated(term.target, term.target.of, names, embeddings)


def _add_teacher(term: Term, matrix, rows, columns, queued, embeddings, scale) -> None:
  """Gives both sides the teacher's embeddings and, by a pass of their own, its log-sum-exps."""
  target = term.target
  scale = scale if target.temperature is None else 1.0 / target.temperature
  rows.facts["teacher"] = scale * _repeated(target, target.query, term.query, embeddings)
  if target.key is not None:
    columns.facts["teacher"] = _repeated(target, target.key, term.key, embeddings)

  def logits(rows, columns, shared):
    return {"logits": target.logits(rows, columns)}, _apart(rows, columns)

  def only(side: Side | None) -> Side | None:
    if side is None:
      return None
    names = ("teacher" if "teacher" in side.facts else "x", "position", "slot")
    return side._replace(facts={name: side.facts[name] for name in names if name in side.facts})

  axes = AXES[term.direction]
  sums = {f"{axis}:lse": Reduction("logits", axis, "logsumexp") for axis in axes}
  stats = matrix(logits, sums, only(rows), only(columns), only(queued), ())
  for axis, side in (("row", rows), ("column", columns)):
    if axis in axes:
      side.facts["teacher_lse"] = lax.stop_gradient(stats[f"{axis}:lse"])
  rows.facts["teacher"] = lax.stop_gradient(rows.facts["teacher"])


def _repeated(target: Target, name: str, views: tuple[str, ...], embeddings) -> jax.Array:
  features = lax.stop_gradient(target.prepare(embeddings[name]))
  return jnp.repeat(features, len(views), 0) if len(views) > 1 else features


# ---- Two passes ---------------------------------------------------------------------------------


def _add_first_pass(term: Term, matrix, rows: Side, columns: Side, queued, shared) -> None:
  """Gives both sides, as "anchor", what the criterion must know of whole rows and columns."""
  axes, criterion = AXES[term.direction], term.criterion

  def function(rows, columns, shared):
    logits, values = _logits(term, rows, columns, shared), {}
    for axis in axes:
      weights, positive = _weights(term, axis, rows, columns)
      found = criterion.first(logits, weights, positive)
      values |= {f"{axis}:{name}": value for name, value in found.items()}
    return values, _apart(rows, columns)

  sums = {
    f"{axis}:{name}": Reduction(f"{axis}:{name}", axis, kind)
    for axis in axes
    for name, kind in criterion.first_reductions.items()
  }
  stats = matrix(function, sums, rows, columns, queued, shared)
  for axis, side in (("row", rows), ("column", columns)):
    if axis in axes:
      side.facts["anchor"] = {name: stats[f"{axis}:{name}"] for name in criterion.first_reductions}


# ---- The matrix ---------------------------------------------------------------------------------


def _apart(rows: Facts, columns: Facts) -> jax.Array | None:
  """Where a row and a column are not one and the same embedding; None when they never are."""
  return ~same(rows, columns, "slot") if "slot" in rows and "slot" in columns else None


def _positive(term: Term, weights, rows: Facts, columns: Facts) -> jax.Array:
  """Which pairs of a tile are positive: for soft weights, which all are a little, the own ones."""
  return weights > 0 if term.target.kind == "set" else same(rows, columns)


def _logits(term: Term, rows: Facts, columns: Facts, shared) -> jax.Array:
  logits = term.score.tile(rows["x"], columns["x"])
  return logits if isinstance(shared, tuple) else logits + shared


def _weights(term: Term, axis: str, rows: Facts, columns: Facts):
  """The target's weights of a tile (None: aligned), and what makes its mask of positives."""
  weights = None if _is_aligned(term) else term.target.weights(axis, rows, columns)
  return weights, partial(_positive, term, weights, rows, columns)


def _tile(term: Term, axes, counted, rows: Facts, columns: Facts, shared):
  """The tile function of a term (global_matrix): its criterion's values, and its metrics'."""
  logits, values = _logits(term, rows, columns, shared), {}
  for axis in axes:
    weights, positive = _weights(term, axis, rows, columns)
    side, across = (rows, 1) if axis == "row" else (columns, 0)
    anchor = jax.tree.map(lambda x, a=across: jnp.expand_dims(x, a), side.get("anchor"))
    found = term.criterion.values(logits, weights, positive, anchor)
    values |= {f"{axis}:{name}": value for name, value in found.items()}
  positive = positive()
  values["best_negative"] = jnp.where(positive, -jnp.inf, logits)
  if counted:
    values["best_positive"] = jnp.where(positive, logits, -jnp.inf)
    values["positive_sum"] = jnp.where(positive, logits, 0.0)
    values["positive_count"] = positive.astype(logits.dtype)
  return values, _apart(rows, columns)


def _reductions(term: Term, axes, aligned: bool, counted: bool) -> dict[str, Reduction]:
  found = {
    f"{axis}:{name}": Reduction(f"{axis}:{name}", axis, kind)
    for axis in axes
    for name, kind in term.criterion.reductions(aligned).items()
  }
  found["best_negative"] = Reduction("best_negative", axes[0], "max")
  if counted:
    found["best_positive"] = Reduction("best_positive", axes[0], "max")
    for name in ("positive_sum", "positive_count"):
      found[name] = Reduction(name, axes[0], "sum")
  return found


def _matrix(term: Term, function, reductions, rows: Side, columns: Side, queued, shared, **options):
  """Statistics over the columns that the term's negatives name."""
  if term.negatives == "queue":
    stats = _own_pairs(function, reductions, rows, columns, shared)
  else:
    stats = reduce_tiles(
      function,
      reductions,
      rows.facts,
      columns.facts,
      shared,
      row_mask=rows.mask,
      column_mask=columns.mask,
      **options,
    )
  if queued is not None:
    more = reduce_tiles(
      function,
      reductions,
      rows.facts,
      queued.facts,
      shared,
      row_mask=rows.mask,
      column_mask=queued.mask,
      **options,
    )
    stats = {name: merge(r.kind, stats[name], more[name]) for name, r in reductions.items()}
  return stats


def _own_pairs(function, reductions, rows: Side, columns: Side, shared) -> Values:
  """Row statistics of a matrix with one column a row: its own key."""
  one = jax.tree.map(lambda x: x[:, None], (rows.facts, columns.facts))
  values, _ = jax.vmap(function, (0, 0, None))(*one, shared)
  return {
    name: reduce_values(r.kind, values[r.value][:, :, 0], 1) for name, r in reductions.items()
  }


# ---- Metrics ------------------------------------------------------------------------------------


def _metrics(stats, rows: Side, columns: Side, queued, scale, bias, term: Term):
  """Temperature, in-batch top-1, and mean score of positives and of negatives."""
  anchors = columns if term.direction == "columns" else rows
  count = stats["positive_count"]
  count = count if anchors.mask is None else jnp.where(anchors.mask, count, 0.0)
  hits = stats["best_positive"] > stats["best_negative"]
  positive = jnp.sum(jnp.where(count > 0, stats["positive_sum"], 0.0))
  number = jnp.sum(count)
  if bias is not None:
    positive = positive - bias * number
  everything, pairs = _all_scores(rows, columns, queued, term)
  return {
    "temperature": 1.0 / scale,
    "top1": _mean(hits.astype(jnp.float32), count > 0),
    "positive": positive / jnp.maximum(number, 1) / scale,
    "negative": (everything - positive) / jnp.maximum(pairs - number, 1) / scale,
  }


def _all_scores(rows: Side, columns: Side, queued, term: Term):
  """Sum of the scores (times scale) of all pairs, and how many there are."""

  def counted(side: Side) -> jax.Array:
    x = side.facts["x"]
    return x if side.mask is None else jnp.where(side.mask[:, None], x, 0.0)

  n = _count(rows) * jnp.float32(1.0)
  if term.negatives == "queue":
    total, pairs = jnp.sum(term.score.pair(counted(rows), counted(columns))), n
  else:
    total, pairs = term.score.total(counted(rows), counted(columns)), n * _count(columns)
  if "slot" in rows.facts:
    total, pairs = total - jnp.sum(term.score.pair(counted(rows), counted(columns))), pairs - n
  if queued is not None:
    total = total + term.score.total(counted(rows), counted(queued))
    pairs = pairs + n * _count(queued)
  return total, pairs
