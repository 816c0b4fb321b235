"""A term whose weight is learned, by the variance of what it predicts.

    edges=dict(module=..., embeddings=..., balance=True)      # exp(-s) L + s, of a learned s that begins with 0

The larger s, the less the term counts, and the more s itself costs (Kendall et al., arXiv:1705.07115, eq. 7 with
s = log sigma^2 and the factor 2 left out; utils/task_balancing.py of EPFL-VILAB/MultiMAE@66910f5). A loss that is
exactly 0, of a batch of which nothing takes part, stays 0. `weight` is a factor before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Term
from mmcontrast.objectives.wrapped_term import WrappedTerm

LEARNED = "log_variance"


@dataclass(frozen=True)
class Balanced(WrappedTerm):
  """`term`, balanced: it learns `log_variance` beside what the term learns."""

  def init(self, key: jax.Array | None, shapes: Mapping[str, Encoded]) -> tuple[dict[str, Any], dict[str, Any]]:
    learned, state = self.term.init(key, shapes)
    return {**learned, LEARNED: jnp.float32(0.0)}, state

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    """Metrics: those of the term, "log_variance", and "unbalanced", its loss as it is."""
    own = parameters[self.name]
    found = self.term.loss(nodes, {**parameters, self.name: _rest(own)}, memory, facts, now)
    metrics = {**found.metrics, LEARNED: own[LEARNED], "unbalanced": found.loss}
    return found._replace(loss=balanced(found.loss, own[LEARNED]), metrics=metrics)

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**self.term.after_step(_rest(parameters)), LEARNED: parameters[LEARNED]}


def balanced(loss: jax.Array, log_variance: jax.Array) -> jax.Array:
  """exp(-s) L + s; 0 where L is."""
  return jnp.where(loss == 0, 0.0, jnp.exp(-log_variance) * loss + log_variance)


def _rest(learned: Mapping[str, Any]) -> dict[str, Any]:
  return {name: value for name, value in learned.items() if name != LEARNED}


def wrapped(term: Term, balance: Any) -> Term:
  """The term with a learned weight where its option `balance` says so, or itself; raises UserError."""
  if not isinstance(balance, bool):
    raise UserError(f"objective.{term.name}.balance: {balance!r}; write True for a learned weight, or False")
  return Balanced(term) if balance else term
