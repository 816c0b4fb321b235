"""One pairwise term: score, target, criterion and negatives put together over the global matrix."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.global_matrix import Values, reduce_tiles
from mmcontrast.objectives.mixing import mix
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.reductions import Reduction, merge, reduce_values
from mmcontrast.objectives.targets import Facts, Mixed, SoftSimilarity, Teacher, same
from mmcontrast.objectives.tuple_negatives import Combinations, permutations, permute, reduce_parts
from mmcontrast.objectives.view_criteria import MultiView

if TYPE_CHECKING:
  from mmcontrast.objectives.terms import Term

AXES = {"rows": ("row",), "columns": ("column",), "both": ("row", "column")}
SIDES = {"row": "query", "column": "key"}


class Side(NamedTuple):
  """Queries, keys or more of them: facts [n, ...] ("x" the embedding), and which count."""

  facts: Facts
  mask: jax.Array | None


class Sides(NamedTuple):
  """Everything a term compares: queries with keys, and `more` that only anchors meet.

  more: "row" -> columns beside the keys, for the queries; "column" -> rows beside the queries,
    for the keys: a queue, hard negatives, prototypes, tuples of different examples' keys.
  """

  rows: Side
  columns: Side
  more: dict[str, tuple[Side | Combinations, ...]]


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
    rows = _batch_side(term, term.query, {name: mix(embeddings[name], *partners) for name in term.query}, info)
  else:
    rows = _batch_side(term, term.query, embeddings, info)
  columns = _batch_side(term, term.key, embeddings, info, each_token=term.token_keys)
  sides = Sides(rows, columns, _more_sides(term, embeddings, info, queue, parameters))
  for side in (rows, *sides.more["column"]):
    side.facts["x"] = scale * side.facts["x"]
  shared = () if bias is None else jnp.asarray(bias, rows.facts["x"].dtype)
  cells = term.score.cells(rows.facts["x"][0], columns.facts["x"][0])
  matrix = partial(_matrix, term, mesh=mesh, impl=impl, size=tile, cells=cells)

  if isinstance(term.target, Teacher):
    _add_teacher(term, matrix, sides, embeddings, scale, parameters.get("share", term.target.share))
  else:
    _add_features(term, rows, columns, embeddings)

  aligned = _is_aligned(term)
  own = None
  if _one_each(term) and term.query != term.key:
    own = term.score.pair(rows.facts["x"], columns.facts["x"]) + (0.0 if bias is None else bias)
  if term.criterion.needs_anchor:
    rows.facts["anchor"] = columns.facts["anchor"] = own

  axes = AXES[term.direction]
  if term.criterion.first_reductions:
    _add_first_pass(term, matrix, sides, shared)
  if term.criterion.additive:
    _add_shares(term, rows, columns, info)
  counted = own is None or term.target.kind == "set"  # Positives are found in the matrix.
  function = partial(_tile, term, counted)
  stats = matrix(function, _reductions(term, axes, aligned, counted), sides, shared)
  losses, new = [], {}
  for axis, anchors, others, names in (
    ("row", rows, columns, term.query),
    ("column", columns, rows, term.key),
  ):
    if axis in axes and not term.criterion.additive:
      found = {
        name.removeprefix(f"{axis}:"): x for name, x in stats.items() if name.startswith(axis)
      }
      count = (1 if _own_alone(term) else _count(others)) + sum(map(_count, sides.more[axis]))
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
      losses.append(_mean(loss, _shares(len(loss), keep, _weight(term, names, info))))
  loss = stats["loss"] if term.criterion.additive else sum(losses) / len(losses)
  if not counted:
    stats |= {"best_positive": own, "positive_sum": own, "positive_count": jnp.ones_like(own)}
  metrics = _metrics(*lax.stop_gradient((stats, sides, scale, bias)), term)
  return loss, metrics, new


# ---- Sides --------------------------------------------------------------------------------------


def _batch_side(term: Term, names: tuple[str, ...], embeddings, info, each_token: bool = False) -> Side:
  """The views `names` of each example in turn, or with `each_token` their tokens: [N * views, ...]."""
  x = [_prepared(term.score.prepare, name, embeddings) for name in names]
  if each_token:
    x = [token for view in x for token in jnp.unstack(view, axis=1)]
  elif _joined(term, names):
    x = [term.score.join(x)]
  views = len(x)
  facts = dict(term.target.facts(info))
  facts["position"] = jnp.arange(embeddings[names[0]].shape[0], dtype=jnp.int32)
  facts = {name: jnp.repeat(x, views, 0) if views > 1 else x for name, x in facts.items()}
  facts["x"] = _interleave(x)
  if term.query == term.key or (term.negatives == "permuted" and names == term.query):
    facts["slot"] = jnp.arange(facts["position"].shape[0], dtype=jnp.int32)
  if isinstance(term.criterion, MultiView):
    facts["view"] = jnp.arange(facts["position"].shape[0], dtype=jnp.int32) % views
  valid = taking_part(info, (*term.reads, *names))
  valid = valid if valid is None or views == 1 else jnp.repeat(valid, views, 0)
  if each_token:
    present = jnp.any(facts["x"] != 0, -1)  # A vector of zeros is no token.
    valid = present if valid is None else valid & present
  return Side(facts, valid)


def _joined(term: Term, names: tuple[str, ...]) -> bool:
  return term.score.joins and names == term.key


def _views(term: Term, names: tuple[str, ...]) -> int:
  """How many rows or columns the embeddings `names` of an example make."""
  return 1 if _joined(term, names) else len(names)


def _one_each(term: Term) -> bool:
  """Whether an example is one row and one column."""
  return _views(term, term.query) == _views(term, term.key) == 1 and not term.token_keys


def _more_sides(term: Term, embeddings, info, queue, parameters) -> dict[str, tuple[Side | Combinations, ...]]:
  """`Sides.more`."""
  more: dict[str, tuple[Side | Combinations, ...]] = {"row": (), "column": ()}
  for axis, names in (("row", term.negative_keys), ("column", term.negative_queries)):
    if names:
      side = _batch_side(term, names, embeddings, info)
      side.facts["position"] = jnp.full_like(side.facts["position"], -1)
      side.facts["negative"] = jnp.ones(side.facts["position"].shape, bool)
      side.facts.pop("slot", None)
      more[axis] = (side,)
  if queue is not None:
    more[AXES[term.direction][0]] += (_queue_side(term, queue),)
  if term.prototypes:
    for axis in AXES[term.direction]:
      more[axis] += (_prototype_side(term, parameters["prototypes"], info),)
  if term.negatives in ("permuted", "combined"):
    mask = taking_part(info, term.reads)
    keys = [_prepared(term.score.prepare, name, embeddings) for name in term.key]
    if term.negatives == "combined":
      more["row"] += (Combinations(tuple(keys), mask),)
    else:
      order = permutations(keys[0].shape[0], mask, len(keys))
      side = _tuple_side(term, [permute(key, of) for key, of in zip(keys, order)], mask)
      side.facts["slot"] = jnp.arange(keys[0].shape[0], dtype=jnp.int32)
      more["row"] += (side,)
  return more


def _tuple_side(term: Term, keys: list[jax.Array], mask) -> Side:
  """Columns of keys that belong to no one."""
  return Side({"x": term.score.join(keys), "position": jnp.full(keys[0].shape[0], -1, jnp.int32)}, mask)


def _queue_side(term: Term, queue: Mapping[str, Any]) -> Side:
  facts = dict(term.target.facts(queue))
  facts["x"] = queue["keys"]
  facts["position"] = jnp.full(queue["keys"].shape[0], -1, jnp.int32)
  return Side(lax.stop_gradient(facts), taking_part(queue, term.reads))


def _prototype_side(term: Term, prototypes: jax.Array, info) -> Side:
  """Prototypes are of no example; prototype k is of class k."""
  count = len(prototypes)

  def unknown(fact: jax.Array) -> jax.Array:
    return jnp.full((count, *fact.shape[1:]), -1 if jnp.issubdtype(fact.dtype, jnp.signedinteger) else 0, fact.dtype)

  facts = {name: unknown(fact) for name, fact in term.target.facts(info).items()}
  if "label" in facts:
    facts["label"] = jnp.arange(count, dtype=facts["label"].dtype)
  facts |= {"x": term.score.prepare(prototypes), "position": jnp.full(count, -1, jnp.int32)}
  return Side(facts, None)


def _prepared(prepare, name: str, embeddings) -> jax.Array:
  x = prepare(embeddings[name])
  return lax.stop_gradient(x) if name.endswith("@momentum") else x


def _interleave(views: list[jax.Array]) -> jax.Array:
  """[N, D] each -> [N * views, D], an example's views together, so that a sharded N stays so."""
  return views[0] if len(views) == 1 else jnp.stack(views, 1).reshape(-1, *views[0].shape[1:])


def _is_aligned(term: Term) -> bool:
  """Whether each anchor's only positive is its own pair, so that no target weights are needed."""
  return term.target.kind == "own" and _one_each(term)


def _own_alone(term: Term) -> bool:
  """Whether of the batch's pairs an anchor sees its own alone."""
  return term.negatives in ("queue", "permuted")


def _count(side: Side | Combinations) -> jax.Array | int:
  if isinstance(side, Combinations):
    return side.columns
  return side.facts["position"].shape[0] if side.mask is None else jnp.sum(side.mask)


def _weight(term: Term, names: tuple[str, ...], info) -> jax.Array | None:
  """The weight of each anchor, [N * views]; None when all weigh the same."""
  return jnp.repeat(info["weight"], _views(term, names), 0) if "weight" in info else None


def _shares(count: int, keep: jax.Array | None, weight: jax.Array | None = None) -> jax.Array:
  """What each of `count` entries counts in the mean of those kept, weighted or not, [count]; zeros for none."""
  weight = jnp.ones(count) if weight is None else weight
  weight = weight if keep is None else jnp.where(keep, weight, 0.0)
  total = jnp.sum(weight)
  return weight / jnp.where(total > 0, total, 1.0)


def _mean(x: jax.Array, shares: jax.Array) -> jax.Array:
  """The mean of `x`; what has no share in it has no gradient either."""
  return jnp.sum(jnp.where(shares > 0, shares * x, 0.0))


def _add_shares(term: Term, rows: Side, columns: Side, info) -> None:
  """Gives anchors, as "in_mean", what they count in the term's loss."""
  axes = AXES[term.direction]
  for axis, side, names in (("row", rows, term.query), ("column", columns, term.key)):
    if axis in axes:
      shares = _shares(len(side.facts["position"]), side.mask, _weight(term, names, info))
      side.facts["in_mean"] = shares.astype(side.facts["x"].dtype) / len(axes)


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
    return {str(m): found for m, found in enumerate(target.logits(rows, columns))}, _apart(rows, columns)

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
      side.facts["teacher_lse"] = lax.stop_gradient([stats[f"{axis}:{m}"] for m in teachers])
      side.facts["share"] = jnp.full(side.facts["position"].shape, share)
  rows.facts["teacher"] = lax.stop_gradient(rows.facts["teacher"])


def _repeated(term: Term, name: str, names: tuple[str, ...], embeddings) -> jax.Array:
  features = lax.stop_gradient(term.target.prepare(embeddings[name]))
  return jnp.repeat(features, _views(term, names), 0) if _views(term, names) > 1 else features


# ---- Two passes ---------------------------------------------------------------------------------


def _add_first_pass(term: Term, matrix, sides: Sides, shared) -> None:
  """Gives both sides, as "anchor", what the criterion must know of whole rows and columns."""
  axes, criterion = AXES[term.direction], term.criterion

  def function(axes, rows, columns, shared):
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
  stats = matrix(function, sums, sides, shared)
  for axis, side in (("row", sides.rows), ("column", sides.columns)):
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
  if weights is not None and "negative" in rows:
    weights = jnp.where(rows["negative"][:, None], 0.0, weights)
  if weights is not None and "negative" in columns:
    weights = jnp.where(columns["negative"][None, :], 0.0, weights)
  return weights, partial(_positive, term, weights, rows, columns)


def _tile(term: Term, counted, axes, rows: Facts, columns: Facts, shared):
  """The tile function of a term (global_matrix) along `axes`: its criterion's values, its metrics'."""
  logits, values = _logits(term, rows, columns, shared), {}
  for axis in axes:
    weights, positive = _weights(term, axis, rows, columns)
    side, across = (rows, 1) if axis == "row" else (columns, 0)
    anchor = jax.tree.map(lambda x, a=across: jnp.expand_dims(x, a), side.get("anchor"))
    joined = isinstance(term.criterion, MultiView)
    same_view = {"same_view": partial(same, rows, columns, "view")} if joined else {}
    found = term.criterion.values(logits, weights, positive, anchor, **same_view)
    if term.criterion.additive:
      (value,) = found.values()
      values["loss"] = values.get("loss", 0.0) + jnp.expand_dims(side["in_mean"], across) * value
    else:
      values |= {f"{axis}:{name}": value for name, value in found.items()}
  if AXES[term.direction][0] not in axes:
    return values, _apart(rows, columns)
  positive = positive()
  values["best_negative"] = jnp.where(positive, -jnp.inf, logits)
  if counted:
    values["best_positive"] = jnp.where(positive, logits, -jnp.inf)
    values["positive_sum"] = jnp.where(positive, logits, 0.0)
    values["positive_count"] = positive.astype(logits.dtype)
  if term.score.total is None:
    values["all_sum"], values["all_count"] = logits, jnp.ones_like(logits)
  return values, _apart(rows, columns)


def _reductions(term: Term, axes, aligned: bool, counted: bool) -> dict[str, Reduction]:
  if term.criterion.additive:
    found = {"loss": Reduction("loss", "all", "sum")}
  else:
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
  if term.score.total is None:
    for name in ("all_sum", "all_count"):
      found[name] = Reduction(name, axes[0], "sum")
  return found


def _matrix(term: Term, function, reductions, sides: Sides, shared, **options) -> Values:
  """Statistics over what the term's anchors see; `function(axes, ...)` is the tile along `axes`."""
  rows, columns, more = sides
  axes = AXES[term.direction]
  if _own_alone(term):
    stats = _own_pairs(partial(function, axes), reductions, rows, columns, shared)
  else:
    stats = _reduce(partial(function, axes), reductions, rows, columns, shared, **options)
  for axis in axes:
    kept = {name: r for name, r in reductions.items() if r.axis in (axis, "all")}
    for side in more[axis]:
      if isinstance(side, Combinations):
        found = _combined(term, partial(function, (axis,)), kept, rows, side, shared, **options)
      else:
        pair = (rows, side) if axis == "row" else (side, columns)
        found = _reduce(partial(function, (axis,)), kept, *pair, shared, **options)
      stats |= {name: merge(r.kind, stats[name], found[name]) for name, r in kept.items()}
  return stats


def _reduce(function, reductions, rows: Side, columns: Side, shared, **options) -> Values:
  masks = {"row_mask": rows.mask, "column_mask": columns.mask}
  return reduce_tiles(function, reductions, rows.facts, columns.facts, shared, **masks, **options)


def _combined(term: Term, function, reductions, rows: Side, columns: Combinations, shared, **options) -> Values:
  """Statistics of rows over all combinations of keys, a part of them at a time."""

  def reduce(arguments, number):
    rows, columns, shared = arguments
    side = _tuple_side(term, *columns.part(number))
    return _reduce(function, reductions, rows, side, shared, **options)

  kinds = {name: r.kind for name, r in reductions.items()}
  return reduce_parts(reduce, kinds, columns.parts, (rows, columns, shared))


def _own_pairs(function, reductions, rows: Side, columns: Side, shared) -> Values:
  """Statistics of anchors with one other each: their own."""
  one = jax.tree.map(lambda x: x[:, None], (rows.facts, columns.facts))
  values, _ = jax.vmap(function, (0, 0, None))(*one, shared)
  return {
    name: reduce_values(r.kind, values[r.value][:, 0, 0], 0) if r.axis == "all" else values[r.value][:, 0, 0]
    for name, r in reductions.items()
  }


# ---- Metrics ------------------------------------------------------------------------------------


def _metrics(stats, sides: Sides, scale, bias, term: Term):
  """Temperature, in-batch top-1, and mean score of positives and of negatives."""
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
    "top1": _mean(hits.astype(jnp.float32), _shares(len(count), count > 0)),
    "positive": positive / jnp.maximum(number, 1) / scale,
    "negative": (everything - positive) / jnp.maximum(pairs - number, 1) / scale,
  }


def _seen(sides: Sides, term: Term) -> list[tuple[Side, Side]]:
  """(rows, columns) that the anchors of the first direction see beside their own pair's matrix."""
  if term.direction == "columns":
    return [(side, sides.columns) for side in sides.more["column"]]
  return [(sides.rows, side) for side in sides.more["row"]]


def _pairs(sides: Sides, term: Term) -> jax.Array:
  """How many pairs the anchors of the first direction see."""
  n = _count(sides.rows) * jnp.float32(1.0)
  own = n if term.negatives == "queue" else n * _count(sides.columns)
  if "slot" in sides.rows.facts:
    own = own - n
  return own + sum(_count(rows) * jnp.float32(1.0) * _count(columns) for rows, columns in _seen(sides, term))


def _all_scores(sides: Sides, term: Term) -> jax.Array:
  """Sum of the scores (times scale) of those pairs."""

  def counted(side: Side) -> jax.Array:
    x = side.facts["x"]
    return x if side.mask is None else jnp.where(side.mask[:, None], x, 0.0)

  rows, columns = counted(sides.rows), counted(sides.columns)
  if term.negatives == "queue":
    total = jnp.sum(term.score.pair(rows, columns))
  else:
    total = term.score.total(rows, columns)
  if "slot" in sides.rows.facts:
    total = total - jnp.sum(term.score.pair(rows, columns))
  return total + sum(term.score.total(counted(a), counted(b)) for a, b in _seen(sides, term))
