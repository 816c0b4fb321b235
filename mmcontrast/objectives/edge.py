"""Edges: what a pairwise term compares with what, and by which choices; only data (pairwise.py computes)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmcontrast.objectives.criterion import Criterion
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.targets import Target
from mmcontrast.objectives.temperature import Temperature

AXES = {"rows": ("row",), "columns": ("column",), "both": ("row", "column")}
SIDES = {"row": "query", "column": "key"}


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
