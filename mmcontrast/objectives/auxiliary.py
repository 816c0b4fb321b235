"""Losses that towers and heads make themselves, in the objective by name.

    balance = dict(auxiliary="load_balance", embeddings="image[0]/image_joint", weight=0.01)

A node names what it asks of itself in `Encoded.losses`, one number an example; a head passes on what its tower made.
The term is the mean over the embeddings of the mean over the examples that take part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import of_momentum, online, parse_names
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Term
from mmcontrast.registry import REQUIRED, check_options

DEFAULTS = {"auxiliary": REQUIRED, "embeddings": (), "balance": False, "weight": 1.0}
"""The options of an entry and their defaults (`REQUIRED`: required)."""


@dataclass(frozen=True)
class Auxiliary(Term):
  """A kind of term: a loss that nodes make themselves.

  Attributes:
    loss_name: its name in `Encoded.losses`.
    paths: of the nodes.
  """

  name: str
  loss_name: str
  paths: tuple[str, ...]
  weight: Any

  @property
  def embeddings(self) -> tuple[str, ...]:
    return self.paths

  @property
  def wants(self) -> dict[str, tuple[str, ...]]:
    return dict.fromkeys(self.paths, (f"losses/{self.loss_name}",))

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    each = jnp.stack([nodes[name].losses[self.loss_name] for name in self.paths])  # [paths, N]
    taken = taking_part(facts, self.reads)
    if taken is None:
      return Outcome(jnp.mean(each))
    count = jnp.sum(taken, dtype=jnp.float32)
    total = jnp.sum(jnp.where(taken, each, 0.0))
    return Outcome(total / (jnp.maximum(count, 1) * len(self.paths)), {"anchors": jax.lax.stop_gradient(count)})


def parse_auxiliary(name: str, config: Mapping[str, Any]) -> Auxiliary:
  """Makes an auxiliary term of its config; raises UserError naming entry, key and nearest choice."""
  where = f"objective.{name}"
  check_options(config, DEFAULTS, where)
  loss = config["auxiliary"]
  if not isinstance(loss, str) or not loss:
    raise UserError(f"{where}.auxiliary: {loss!r} is not the name of a loss that a tower or head makes")
  if loss == "routing":
    raise UserError(f"{where}.auxiliary: 'routing' is no loss; balance experts by module=dict(name='expert_balance')")
  paths = parse_names(config.get("embeddings", ()), f"{where}.embeddings")
  if taught := [path for path in paths if of_momentum(path)]:
    raise UserError(f"{where}.embeddings: {taught[0]!r} gets no gradient; write {online(taught[0])!r}")
  return Auxiliary(name, loss, paths, config.get("weight", 1.0))
