"""What every target says of itself (targets.py says which there are).

A target is a function of a tile. `facts` picks what it must know of each example from the batch (or a queue); `weights`
turns r rows and c columns into weights [r, c] >= 0. An example is a positive of itself under every target. Targets
carry no gradient.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax

from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.mixing import Mix
from mmcontrast.objectives.side import Side
from mmcontrast.objectives.term import Run


@dataclass(frozen=True)
class Target(abc.ABC):
  """Which pairs are positive, and by how much; its fields are a config's options.

  Attributes:
    kind: what the weights are. "itself": 1 for the example itself, 0 for others; "set": 0 or more, the example itself
      and others; "soft": any, and a row is divided by its sum.
    needs: what it reads of a batch beside embeddings: "id", "tags", "labels", "seed".
    embeddings: the embeddings it reads beside those of its term.
    required: the option that a config must give; "" for none.
    bounded: whether no weight is above 1.
    knows_every_column: whether it weighs columns that are of no example of the batch, such as queued keys, too.
    labels_read: names of the labels of the dataset that it reads.
  """

  kind: ClassVar[str]
  needs: ClassVar[tuple[str, ...]] = ()
  embeddings: ClassVar[tuple[str, ...]] = ()
  required: ClassVar[str] = ""
  bounded: ClassVar[bool] = True
  knows_every_column: ClassVar[bool] = False
  labels_read: ClassVar[tuple[str, ...]] = ()

  def facts(self, facts: Mapping[str, Any]) -> dict[str, jax.Array]:
    """What it must know of each example, of the facts of a batch or queue: name -> [N, ...] (`Side.facts`)."""
    return {}

  def known(self, facts: Mapping[str, Any]) -> jax.Array | None:
    """Bool [N]: the examples of a batch or queue that it can compare; others take no part. None: all."""
    return None

  @abc.abstractmethod
  def weights(self, axis: str, rows: Side, columns: Side) -> jax.Array:
    """Weights [r, c] of a tile, for the rows as anchors (`axis` "row") or the columns ("column")."""

  def mix(self, facts: Mapping[str, Any]) -> Mix | None:
    """How queries are mixed with each other before they are compared; None: not at all."""
    return None

  def features(self, axis: str) -> tuple[str, ...]:
    """Embeddings of which `weights` compares vectors, as `Side.facts["features"]`, of rows ("row") or columns."""
    return ()

  def prepare(self, x: jax.Array) -> jax.Array:
    """Vectors of `features`, [N, D], as they are compared."""
    return x

  def teacher_scales(self, scale: Any) -> list[Any] | None:
    """One over the temperature of each teacher, of a target that is a softmax of teachers; None of other targets.

    The log-sum-exps of teachers come from a first pass over `logits`. `scale`: that of the term.
    """
    return None

  def logits(self, rows: Side, columns: Side) -> list[jax.Array]:
    """Of each teacher, [r, c]."""
    raise NotImplementedError

  @property
  def schedules(self) -> dict[str, Any]:
    """Its options that follow a schedule: name -> schedule."""
    return {}

  def check(self, term: Any, where: str) -> None:  # noqa: B027 (most can be of any term)
    """Raises UserError, naming `where`, for a term (edge.Edge) that it cannot be the target of."""

  def check_in_run(self, run: Run, where: str) -> None:
    """Raises UserError for a run whose dataset does not have what it needs."""
    if "tags" in self.needs and not run.tag_count:
      raise UserError(f"{where}: the dataset has no tags; use target='identity' or 'same_id'")
    for label in self.labels_read:
      choose(label, run.labels, f"{where}.{self.required}")
