"""One pairwise term: score, target, criterion and negatives put together over the global matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.mixing import mix
from mmcontrast.objectives.pair_matrix import apart, logits_of, reduce_matrix, reductions_of, target_weights, term_tile
from mmcontrast.objectives.pair_metrics import metrics_of
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.reductions import Reduction
from mmcontrast.objectives.sides import (
  AXES,
  SIDES,
  Side,
  Sides,
  add_shares,
  anchor_weights,
  batch_side,
  count_side,
  is_aligned,
  mean_of,
  more_sides,
  one_each,
  own_alone,
  shares_of,
  view_count,
)
from mmcontrast.objectives.targets import Mixed, SoftSimilarity, Teacher
from mmcontrast.objectives.view_criteria import MultiView

if TYPE_CHECKING:
  from mmcontrast.objectives.terms import Term


def pairwise(
  term: Term,
  embeddings: Mapping[str, jax.Array],
  info: Mapping[str, Any],
  parameters: Mapping[str, jax.Array],
  queue: Mapping[str, Any] | None,
  remembered: Mapping[str, jax.Array],
  *,
  mesh: jax.sharding.Mesh | None,
  impl: str,
  tile: int,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
  """The loss of one term, a mean over anchors, then directions; its metrics; what it now remembers of
  each example (terms.evaluate)."""
  scale, bias = term.temperature.scale(parameters), term.temperature.offset(parameters)
  if isinstance(term.target, Mixed):
    partners = term.target.draw({**info, "valid": taking_part(info, term.reads)})
    info = {**info, "mix": partners}
    rows = batch_side(term, term.query, {name: mix(embeddings[name], *partners) for name in term.query}, info)
  else:
    rows = batch_side(term, term.query, embeddings, info)
  columns = batch_side(term, term.key, embeddings, info, each_token=term.token_keys)
  if one_each(term):
    columns.facts["x"] = term.score.columns(rows.facts["x"], columns.facts["x"])
  sides = Sides(rows, columns, more_sides(term, embeddings, info, queue, parameters))
  for side in (rows, *sides.more["column"]):
    side.facts["x"] = scale * side.facts["x"]
  shared = () if bias is None else jnp.asarray(bias, rows.facts["x"].dtype)
  cells = term.score.cells(rows.facts["x"][0], columns.facts["x"][0])
  matrix = partial(reduce_matrix, term, mesh=mesh, impl=impl, size=tile, cells=cells)

  if isinstance(term.target, Teacher):
    _add_teacher(term, matrix, sides, embeddings, scale, parameters.get("share", term.target.share))
  else:
    _add_features(term, rows, columns, embeddings)

  aligned = is_aligned(term)
  own = None
  if one_each(term) and term.query != term.key:
    own = term.score.pair(rows.facts["x"], columns.facts["x"]) + (0.0 if bias is None else bias)
  if term.criterion.needs_anchor:
    rows.facts["anchor"] = columns.facts["anchor"] = own

  axes = AXES[term.direction]
  if term.criterion.first_reductions:
    _add_first_pass(term, matrix, sides, shared)
  if term.criterion.additive:
    add_shares(term, rows, columns, info)
  counted = own is None or term.target.kind == "set"  # Positives are found in the matrix.
  function = partial(term_tile, term, counted)
  stats = matrix(function, reductions_of(term, axes, aligned, counted), sides, shared)
  losses, new = [], {}
  for axis, anchors, others, names in (
    ("row", rows, columns, term.query),
    ("column", columns, rows, term.key),
  ):
    if axis in axes and not term.criterion.additive:
      found = {
        name.removeprefix(f"{axis}:"): x for name, x in stats.items() if name.startswith(axis)
      }
      count = (1 if own_alone(term) else count_side(others)) + sum(map(count_side, sides.more[axis]))
      keep = anchors.mask
      if isinstance(term.criterion, MultiView):
        shape = (-1, len(names))
        found, keep = jax.tree.map(lambda x, shape=shape: x.reshape(shape), (found, keep))
        names, keep = names[:1], None if keep is None else jnp.all(keep, 1)
      if isinstance(term.criterion, Compositional):
        side, gamma = SIDES[axis], parameters.get("gamma", term.criterion.gamma)
        loss, new[side] = term.criterion.remembered_loss(found, own, count, remembered[side], scale, gamma)
      else:
        loss = term.criterion.loss(found, own if aligned or term.criterion.needs_anchor else None, count)
      if "mass" in found:  # An anchor without a positive is not counted.
        keep = found["mass"] > 0 if keep is None else keep & (found["mass"] > 0)
      losses.append(mean_of(loss, shares_of(len(loss), keep, anchor_weights(term, names, info))))
  loss = stats["loss"] if term.criterion.additive else sum(losses) / len(losses)
  if not counted:
    stats |= {"best_positive": own, "positive_sum": own, "positive_count": jnp.ones_like(own)}
  metrics = metrics_of(*lax.stop_gradient((stats, sides, scale, bias)), term)
  return loss, metrics, new


# ---- Soft targets -------------------------------------------------------------------------------


def _add_features(term: Term, rows: Side, columns: Side, embeddings) -> None:
  if isinstance(term.target, SoftSimilarity):
    for side, names in ((rows, term.query), (columns, term.key)):
      side.facts["of"] = _repeated(term, term.target.of, names, embeddings)


def _add_teacher(term: Term, matrix, sides: Sides, embeddings, scale, share) -> None:
  """Gives both sides the teachers' embeddings and, by a pass of their own, their log-sum-exps."""
  target, (rows, columns, more) = term.target, sides
  scales = [scale if t is None else 1.0 / t for t in target.temperatures]
  rows.facts["teacher"] = [
    s * _repeated(term, name, term.query, embeddings) for s, name in zip(scales, target.queries)
  ]
  if target.keys:
    columns.facts["teacher"] = [_repeated(term, name, term.key, embeddings) for name in target.keys]

  def logits(axes, rows, columns, shared):
    return {str(m): found for m, found in enumerate(target.logits(rows, columns))}, apart(rows, columns)

  def only(side: Side) -> Side:
    names = ("teacher" if "teacher" in side.facts else "x", "position", "slot")
    return side._replace(facts={name: side.facts[name] for name in names if name in side.facts})

  axes = AXES[term.direction]
  teachers = [str(m) for m in range(len(scales))]
  sums = {f"{axis}:{m}": Reduction(m, axis, "logsumexp") for axis in axes for m in teachers}
  kept = Sides(only(rows), only(columns), {axis: tuple(map(only, found)) for axis, found in more.items()})
  stats = matrix(logits, sums, kept, ())
  for axis, side in (("row", rows), ("column", columns)):
    if axis in axes:
      found = lax.stop_gradient([stats[f"{axis}:{m}"] for m in teachers])
      # Where no one takes part (-inf), a teacher has no weight to give.
      side.facts["teacher_lse"] = [jnp.where(lse == -jnp.inf, jnp.inf, lse) for lse in found]
      side.facts["share"] = jnp.full(side.facts["position"].shape, share)
  rows.facts["teacher"] = lax.stop_gradient(rows.facts["teacher"])


def _repeated(term: Term, name: str, names: tuple[str, ...], embeddings) -> jax.Array:
  features = lax.stop_gradient(term.target.prepare(embeddings[name]))
  return jnp.repeat(features, view_count(term, names), 0) if view_count(term, names) > 1 else features


# ---- Two passes ---------------------------------------------------------------------------------


def _add_first_pass(term: Term, matrix, sides: Sides, shared) -> None:
  """Gives both sides, as "anchor", what the criterion must know of whole rows and columns."""
  axes, criterion = AXES[term.direction], term.criterion

  def function(axes, rows, columns, shared):
    logits, values = logits_of(term, rows, columns, shared), {}
    for axis in axes:
      weights, positive = target_weights(term, axis, rows, columns)
      found = criterion.first(logits, weights, positive)
      values |= {f"{axis}:{name}": value for name, value in found.items()}
    return values, apart(rows, columns)

  sums = {
    f"{axis}:{name}": Reduction(f"{axis}:{name}", axis, kind)
    for axis in axes
    for name, kind in criterion.first_reductions.items()
  }
  stats = matrix(function, sums, sides, shared)
  for axis, side in (("row", sides.rows), ("column", sides.columns)):
    if axis in axes:
      side.facts["anchor"] = {name: stats[f"{axis}:{name}"] for name in criterion.first_reductions}
