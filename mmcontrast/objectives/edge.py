"""Edges: what a pairwise term compares with what, and by which choices; only data (pairwise_loss.py computes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmcontrast.objectives.criterion import Criterion
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.targets import Target
from mmcontrast.objectives.temperature import Temperature

AXES_OF_DIRECTION = {"rows": ("row",), "columns": ("column",), "both": ("row", "column")}
ANCHORS = {"row": "query", "column": "key"}
"""Axis -> what its anchors are: a row belongs to a query, a column to a key."""


@dataclass(frozen=True)
class Edge:
  """One weighted edge between embeddings; `temperature_of` names the term that owns its temperature."""

  name: str
  query: tuple[str, ...]
  key: tuple[str, ...]
  score: Score
  target: Target
  criterion: Criterion
  negatives: str
  negative_keys: tuple[str, ...]
  negative_queries: tuple[str, ...]
  negative_weights: tuple[float, float] | None
  token_keys: bool
  prototypes: int
  queue_length: int
  direction: str
  temperature: Temperature
  temperature_of: str
  weight: Any

  @property
  def reads(self) -> tuple[str, ...]:
    """The embeddings without which an example is of no use to the term."""
    return (*self.query, *self.key, *self.target.embeddings)

  @property
  def compared(self) -> tuple[str, ...]:
    """The embeddings that its score sees."""
    return (*self.query, *self.key, *self.negative_keys, *self.negative_queries)

  @property
  def embeddings(self) -> tuple[str, ...]:
    """All embeddings that it is computed from."""
    return (*self.compared, *self.target.embeddings)

  @property
  def queued(self) -> str | None:
    """The embedding whose queue the anchors also see; None without a queue."""
    if not self.queue_length:
      return None
    return self.query[0] if self.direction == "columns" else self.key[0]

  @property
  def axes(self) -> tuple[str, ...]:
    """The axes whose entries are anchors: "row" (queries choose keys), "column" (keys choose queries), or both."""
    return AXES_OF_DIRECTION[self.direction]

  @property
  def on_both_sides(self) -> tuple[str, ...]:
    """The embeddings that are queries and keys."""
    return tuple(sorted(set(self.query) & set(self.key)))

  @property
  def is_paired(self) -> bool:
    """Whether an example is one row and one column."""
    return self.views_of(self.query) == self.views_of(self.key) == 1 and not self.token_keys

  @property
  def is_aligned(self) -> bool:
    """Whether each anchor's only positive is its example's other side, so that no target weights are needed."""
    return self.target.kind == "itself" and self.is_paired

  @property
  def compares_pairs_only(self) -> bool:
    """Whether of the batch an anchor sees the other side of its example alone, and negatives come from elsewhere."""
    return self.negatives in ("queue", "permuted")

  def joins(self, names: tuple[str, ...]) -> bool:
    """Whether the embeddings `names` of an example are joined to one row or column."""
    return self.score.joins and names == self.key

  def views_of(self, names: tuple[str, ...]) -> int:
    """How many rows or columns the embeddings `names` of an example make."""
    return 1 if self.joins(names) else len(names)
