"""What every criterion says of itself (criteria.py says what one does)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Criterion:
  """What a matrix of logits is asked to do; its fields are a config's options.

  Attributes:
    default_temperature: of a term whose config gives none.
    needs_anchor: whether `values` want the logit of each anchor's own pair.
    additive: whether an anchor's loss is one value summed over its columns, and nothing else.
    first_reductions: name -> kind, of a first pass over the matrix.
  """

  default_temperature: ClassVar[float] = 0.07
  needs_anchor: ClassVar[bool] = False
  additive: ClassVar[bool] = False
  first_reductions: ClassVar[Mapping[str, str]] = {}
