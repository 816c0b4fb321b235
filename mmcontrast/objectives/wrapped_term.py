"""A term around another one, of any kind, which it is in all that it does not say otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.comparison import Comparison, LossMatrix
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Run, Term


@dataclass(frozen=True)
class WrappedTerm(Term):
  """`term` itself: the base of those that change a part of it."""

  term: Term

  @property
  def name(self) -> str:
    return self.term.name

  @property
  def weight(self) -> Any:
    return self.term.weight

  @property
  def queued(self) -> str | None:
    return self.term.queued

  @property
  def queue_length(self) -> int:
    return self.term.queue_length

  @property
  def embeddings(self) -> tuple[str, ...]:
    return self.term.embeddings

  @property
  def compared(self) -> tuple[str, ...]:
    return self.term.compared

  @property
  def reads(self) -> tuple[str, ...]:
    return self.term.reads

  @property
  def widths(self) -> tuple[int, ...]:
    return self.term.widths

  @property
  def writes_table(self) -> bool:
    return self.term.writes_table

  @property
  def table(self) -> Mapping[str, float]:
    return self.term.table

  @property
  def wants(self) -> Mapping[str, tuple[str, ...]]:
    return self.term.wants

  @property
  def schedules(self) -> Mapping[str, tuple[Any, str]]:
    return self.term.schedules

  @property
  def spaces(self) -> tuple[str, ...]:
    return self.term.spaces

  def init(self, key: jax.Array | None, shapes: Mapping[str, Encoded]) -> tuple[dict[str, Any], dict[str, Any]]:
    return self.term.init(key, shapes)

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    return self.term.loss(nodes, parameters, memory, facts, now)

  def check(self, run: Run) -> None:
    self.term.check(run)

  def new_keys(self, nodes: Mapping[str, Encoded]) -> jax.Array:
    return self.term.new_keys(nodes)

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return self.term.after_step(parameters)

  def after_cut(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
    return self.term.after_cut(state)

  @property
  def compares(self) -> Comparison | None:
    return self.term.compares

  def scale(self, parameters: Parameters, scheduled: Mapping[str, Any]) -> Any:
    return self.term.scale(parameters, scheduled)

  @property
  def scales_by_batch(self) -> bool:
    return self.term.scales_by_batch

  def logit_scale(self, parameters: Parameters) -> tuple[float, float | None] | None:
    return self.term.logit_scale(parameters)

  def matrices(self, nodes: Mapping[str, Encoded], size: int) -> list[LossMatrix]:
    return self.term.matrices(nodes, size)
