"""Pairwise terms: what one is to those who train, describe or export it (pairwise_loss.py is its loss)."""

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
from mmcontrast.objectives.edge import ANCHORS, Edge
from mmcontrast.objectives.edge_checks import check_in_run
from mmcontrast.objectives.pairwise_loss import pairwise_loss
from mmcontrast.objectives.score import Score, normalize
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Run, Term


class Pairwise(Edge, Term):
  """One weighted edge between embeddings: the kind of term that an entry with query and key is."""

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    """A mean over anchors, then directions."""
    learned = {**parameters.get(self.temperature_of, {}), **parameters.get(self.name, {})}
    return pairwise_loss(self, nodes, {**learned, **now.scheduled}, memory, facts, now.matrix)

  def check(self, run: Run) -> None:
    check_in_run(self, run)

  @property
  def table(self) -> dict[str, float]:
    """What its criterion remembers of each example (stores.table)."""
    unseen = self.criterion.unseen
    return {} if unseen is None else {ANCHORS[axis]: unseen for axis in self.axes}

  @property
  def schedules(self) -> dict[str, tuple[Any, str]]:
    scheduled: dict[str, tuple[Any, str]] = {}
    if self.temperature.schedule is not None:
      scheduled["temperature"] = self.temperature.schedule, f"objective.{self.temperature_of}.temperature.schedule"
    for part, schedules in (("criterion", self.criterion.schedules), ("target", self.target.schedules)):
      scheduled |= {name: (value, f"objective.{self.name}.{part}.{name}") for name, value in schedules.items()}
    return scheduled

  @property
  def spaces(self) -> tuple[str, ...]:
    """Prototypes are as long as its queries."""
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

  def scale(self, parameters: Parameters, scheduled: Mapping[str, Any]) -> Any:
    return self.temperature.scale({**parameters.get(self.temperature_of, {}), **scheduled})

  @property
  def scales_by_batch(self) -> bool:
    return self.temperature.is_of_batch

  def logit_scale(self, parameters: Parameters) -> tuple[float, float | None] | None:
    if self.temperature.schedule is not None or self.scales_by_batch:
      return None
    learned = parameters.get(self.temperature_of, {})
    learned = self.temperature.clip(learned) if self.temperature.clamp == "forward" else learned
    # In double precision, so that the logarithm again of this number is the same float32.
    scale = math.exp(learned["log_scale"]) if "log_scale" in learned else float(self.temperature.scale(learned))
    bias = self.temperature.offset(learned)
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
  return score.join([score.prepare_key(score.read(key)) for key in keys]) if score.joins else score.read(keys[0])


def _numbers(x: Any) -> int:
  """How many numbers an embedding of one example is, from the shape of many."""
  return sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(x) if jnp.issubdtype(leaf.dtype, jnp.floating))
