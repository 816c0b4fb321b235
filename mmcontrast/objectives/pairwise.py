"""Pairwise terms: score, target, criterion and negatives put together over the global matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.comparison import Comparison, LossMatrix
from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.edge import AXES, SIDES, Edge
from mmcontrast.objectives.edge_checks import check_in_run
from mmcontrast.objectives.mixing import mix_embedding
from mmcontrast.objectives.pair_matrix import apart, logits_of, reduce_matrix, reductions_of, target_weights, term_tile
from mmcontrast.objectives.pair_metrics import metrics_of
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.reductions import Reduction
from mmcontrast.objectives.score import Score, normalize
from mmcontrast.objectives.sides import (
  Side,
  Sides,
  add_shares,
  anchor_weights,
  batch_side,
  count_side,
  float_type,
  is_aligned,
  mean_of,
  more_sides,
  one_each,
  own_alone,
  shares_of,
  view_count,
)
from mmcontrast.objectives.targets import Mixed, SoftSimilarity, Teacher
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Run, Term
from mmcontrast.objectives.view_criteria import MultiView


class Pairwise(Edge, Term):
  """One weighted edge between embeddings: the kind of term that an entry with query and key is."""

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    """A mean over anchors, then directions."""
    own = {**parameters.get(self.temperature_of, {}), **parameters.get(self.name, {}), **now.scheduled}
    return pairwise_loss(self, nodes, own, memory, facts, now.matrix)

  def check(self, run: Run) -> None:
    check_in_run(self, run)

  @property
  def table(self) -> dict[str, float]:
    """What a compositional criterion remembers of each example (stores.table)."""
    if not isinstance(self.criterion, Compositional):
      return {}
    return {SIDES[axis]: self.criterion.unseen for axis in AXES[self.direction]}

  @property
  def schedules(self) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    if self.temperature.schedule is not None:
      found["temperature"] = self.temperature.schedule, f"objective.{self.temperature_of}.temperature.schedule"
    if isinstance(self.criterion, Compositional):
      found["gamma"] = self.criterion.gamma, f"objective.{self.name}.criterion.gamma"
    if isinstance(self.target, Teacher) and not isinstance(self.target.share, (int, float)):
      found["share"] = self.target.share, f"objective.{self.name}.target.share"
    return found

  @property
  def spaces(self) -> tuple[str, ...]:
    """One with prototypes has those of its queries' length."""
    return self.query[:1] if self.prototypes else ()

  def init(self, key: jax.Array | None, shapes: Mapping[str, Encoded]) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    """{"log_scale"|"tau", "bias", "prototypes" [K, D]} in float32, and no state."""
    learned = self.temperature.parameters() if self.temperature_of == self.name else {}
    if self.prototypes:
      shape = (self.prototypes, shapes[self.query[0]].pooled.shape[-1])
      learned["prototypes"] = normalize(jax.random.normal(key, shape, jnp.float32))
    return learned, {}

  def new_keys(self, nodes: Mapping[str, Encoded]) -> jax.Array:
    """Prepared as the score wants them (unit float32)."""
    return lax.stop_gradient(self.score.prepare(self.score.read(nodes[self.queued])))

  def after_step(self, parameters: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
    """The temperature moved back within its bounds, where it asks for that."""
    return self.temperature.clip(parameters) if self.temperature.clamp == "after_step" else parameters

  @property
  def compares(self) -> Comparison:
    return Comparison(self.name, self.query, self.key, self.score)

  def logit_scale(self, parameters: Parameters) -> tuple[float, float | None] | None:
    if self.temperature.schedule is not None:
      return None
    own = parameters.get(self.temperature_of, {})
    own = self.temperature.clip(own) if self.temperature.clamp == "forward" else own
    # In double precision, so that the logarithm again of this number is the same float32.
    scale = math.exp(own["log_scale"]) if "log_scale" in own else float(self.temperature.scale(own))
    bias = self.temperature.offset(own)
    return scale, None if bias is None else float(bias)

  def matrices(self, nodes: Mapping[str, Encoded], size: int) -> list[LossMatrix]:
    query, keys = nodes[self.query[0]], [nodes[name] for name in self.key]
    targets = [nodes[name] for name in self.target.embeddings]
    if self.token_keys:
      columns, column = size * len(keys) * keys[0].tokens.shape[1], keys[0].tokens
      row = query.pooled
    else:
      columns = size * (1 if self.score.joins else len(keys))
      column = jax.eval_shape(partial(_column, self.score), keys)
      row = jax.eval_shape(self.score.read, query)
    dim = max(_numbers(x) for x in (column, *keys, *targets))
    cells = self.score.cells(*(jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), x)
                               for x in (row, column)))  # fmt: skip
    rows, kind = size * len(self.query), "permuted" if self.negatives == "permuted" else "batch"
    shapes = {} if self.negatives == "queue" else {kind: (rows, columns)}  # combined: parts of this shape
    if self.negative_keys:
      shapes["hard negative keys"] = (rows, size * len(self.negative_keys))
    if self.negative_queries:
      shapes["hard negative queries"] = (size * len(self.negative_queries), columns)
    for kind, count in {"prototypes": self.prototypes, "queue": self.queue_length}.items():
      if count:
        shapes[kind] = (count, columns) if self.direction == "columns" else (rows, count)
    return [LossMatrix(*shape, kind, dim, cells) for kind, shape in shapes.items()]


def _column(score: Score, keys: list[Encoded]) -> Any:
  """What a score's column is made of: one key, or all of them joined."""
  return score.join([score.prepare(score.read(key)) for key in keys]) if score.joins else score.read(keys[0])


def _numbers(x: Any) -> int:
  """How many numbers an embedding of one example is, from the shape of many."""
  return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(x) if jnp.issubdtype(leaf.dtype, jnp.floating))


def pairwise_loss(
  term: Edge,
  embeddings: Mapping[str, Encoded],
  parameters: Mapping[str, jax.Array],
  memory: Memory,
  info: Mapping[str, Any],
  options: Mapping[str, Any],
) -> Outcome:
  """The loss of one term, a mean over anchors, then directions.

  Args:
    parameters: the term's, and the values now of what it schedules.
    info: of the batch (terms.evaluate).
    options: of `global_matrix.reduce_tiles`.
  """
  scale, bias = term.temperature.scale(parameters), term.temperature.offset(parameters)
  if isinstance(term.target, Mixed):
    partners = term.target.draw({**info, "valid": taking_part(info, term.reads)})
    info = {**info, "mix": partners}
    rows = batch_side(term, term.query, {name: mix_embedding(embeddings[name], *partners) for name in term.query}, info)
  else:
    rows = batch_side(term, term.query, embeddings, info)
  columns = batch_side(term, term.key, embeddings, info, each_token=term.token_keys)
  if one_each(term):
    columns.facts["x"] = term.score.columns(rows.facts["x"], columns.facts["x"])
  sides = Sides(rows, columns, more_sides(term, embeddings, info, memory.queue, parameters))
  for side in (rows, *sides.more["column"]):
    side.facts["x"] = scale * side.facts["x"]
  shared = () if bias is None else jnp.asarray(bias, float_type(rows.facts["x"]))
  cells = term.score.cells(*jax.tree.map(lambda x: x[0], (rows.facts["x"], columns.facts["x"])))
  matrix = partial(reduce_matrix, term, cells=cells, **options)

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
  for axis, anchors, others, names in (("row", rows, columns, term.query), ("column", columns, rows, term.key)):
    if axis in axes and not term.criterion.additive:
      found = {name.removeprefix(f"{axis}:"): x for name, x in stats.items() if name.startswith(axis)}
      count = (1 if own_alone(term) else count_side(others)) + sum(map(count_side, sides.more[axis]))
      keep = anchors.mask
      if isinstance(term.criterion, MultiView):
        shape = (-1, len(names))
        found, keep = jax.tree.map(lambda x, shape=shape: x.reshape(shape), (found, keep))
        names, keep = names[:1], None if keep is None else jnp.all(keep, 1)
      if isinstance(term.criterion, Compositional):
        side, gamma = SIDES[axis], parameters.get("gamma", term.criterion.gamma)
        loss, new[side] = term.criterion.remembered_loss(found, own, count, memory.rows[side], scale, gamma)
      else:
        loss = term.criterion.loss(found, own if aligned or term.criterion.needs_anchor else None, count)
      if "mass" in found:  # An anchor without a positive is not counted.
        keep = found["mass"] > 0 if keep is None else keep & (found["mass"] > 0)
      losses.append(mean_of(loss, shares_of(len(loss), keep, anchor_weights(term, names, info))))
  loss = stats["loss"] if term.criterion.additive else sum(losses) / len(losses)
  if not counted:
    stats |= {"best_positive": own, "positive_sum": own, "positive_count": jnp.ones_like(own)}
  metrics = metrics_of(*lax.stop_gradient((stats, sides, scale, bias)), term)
  return Outcome(loss, metrics, new)


# ---- Soft targets -------------------------------------------------------------------------------


def _add_features(term: Edge, rows: Side, columns: Side, embeddings) -> None:
  if isinstance(term.target, SoftSimilarity):
    for side, names in ((rows, term.query), (columns, term.key)):
      side.facts["of"] = _repeated(term, term.target.of, names, embeddings)


def _add_teacher(term: Edge, matrix, sides: Sides, embeddings, scale, share) -> None:
  """Gives both sides the teachers' embeddings and, by a pass of their own, their log-sum-exps."""
  target, (rows, columns, more) = term.target, sides
  scales = [scale if t is None else 1.0 / t for t in target.temperatures]
  rows.facts["teacher"] = [s * _repeated(term, name, term.query, embeddings) for s, name in zip(scales, target.queries)]
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


def _repeated(term: Edge, name: str, names: tuple[str, ...], embeddings) -> jax.Array:
  features = lax.stop_gradient(term.target.prepare(embeddings[name].pooled))
  return jnp.repeat(features, view_count(term, names), 0) if view_count(term, names) > 1 else features


# ---- Two passes ---------------------------------------------------------------------------------


def _add_first_pass(term: Edge, matrix, sides: Sides, shared) -> None:
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
