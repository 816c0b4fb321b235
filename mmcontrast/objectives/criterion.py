"""What every criterion says of itself (criteria.py says which there are)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax

from mmcontrast.objectives.reductions import Values
from mmcontrast.objectives.term import Run


class Anchors(NamedTuple):
  """What a criterion is told of the n anchors of one direction, beside the statistics of the matrix.

  Attributes:
    positive: [n], the logit of each anchor's own pair; None where others may be positives too.
    count: how many columns an anchor sees, its own pair included.
    scale: one over the temperature.
    scheduled: the values now of `Criterion.schedules`.
    remembered: [n], what it remembers of each anchor's example; None of a criterion that remembers nothing.
  """

  positive: jax.Array | None
  count: jax.Array | int
  scale: jax.Array | float
  scheduled: Mapping[str, Any]
  remembered: jax.Array | None


@dataclass(frozen=True)
class Criterion:
  """What a matrix of logits is asked to do; its fields are a config's options.

  Attributes:
    default_temperature: of a term whose config gives none.
    needs_anchor: whether `values` want the logit of each anchor's own pair.
    additive: whether an anchor's loss is one value summed over its columns, and nothing else.
    first_reductions: name -> kind, of a first pass over the matrix.
    joins_views: whether the loss is one of all views of an example together (view_criteria.py).
    unseen: what it remembers of an example not seen yet; None of a criterion that remembers nothing.
    counts_negatives: whether its loss has a denominator in which a hard negative can count more than once.
    needs_bounded_weights: whether a target's weights must not be above 1.
  """

  default_temperature: ClassVar[float] = 0.07
  needs_anchor: ClassVar[bool] = False
  additive: ClassVar[bool] = False
  first_reductions: ClassVar[Mapping[str, str]] = {}
  joins_views: ClassVar[bool] = False
  unseen: ClassVar[float | None] = None
  counts_negatives: ClassVar[bool] = False
  needs_bounded_weights: ClassVar[bool] = False

  def losses(self, stats: Values, anchors: Anchors) -> tuple[jax.Array, jax.Array | None]:
    """(the loss of each anchor [n], what it remembers now of each)."""
    return self.loss(stats, anchors.positive, anchors.count), None

  @property
  def schedules(self) -> dict[str, Any]:
    """Its options that may follow a schedule: name -> number or schedule."""
    return {}

  def check(self, term: Any, where: str) -> None:
    """Raises UserError, naming `where`, for a term (edge.Edge) that it cannot be the criterion of."""

  def check_in_run(self, run: Run, where: str) -> None:
    """Raises UserError for a run that does not have what it needs."""
