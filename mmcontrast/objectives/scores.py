"""Scores of two vectors, and the table of all scores (score.py says what one is)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.objectives.conditioned_score import TextConditionedFrames
from mmcontrast.objectives.multiway_scores import GramVolume, MeanOfKeys, Multilinear
from mmcontrast.objectives.score import Score, products, widen
from mmcontrast.objectives.token_scores import MatchMap, TokenMax, TokenSoftmax, TokenWeighted
from mmcontrast.registry import build


@dataclass(frozen=True)
class Cosine(Score):
  """The cosine of the angle between two vectors."""

  name: ClassVar[str] = "cosine"

  def tile(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return products(rows, columns)

  def pair(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.sum(rows * columns, -1)

  def total(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.dot(jnp.sum(rows, 0), jnp.sum(columns, 0), precision=lax.Precision.HIGHEST)


@dataclass(frozen=True)
class Dot(Cosine):
  """The product of two vectors as they are."""

  name: ClassVar[str] = "dot"

  def prepare(self, x: jax.Array) -> jax.Array:
    return widen(x)


_ALL = (
  Cosine, Dot, TokenMax, TokenSoftmax, TokenWeighted, MatchMap, TextConditionedFrames, GramVolume, Multilinear,
  MeanOfKeys,
)  # fmt: skip
SCORES: dict[str, type[Score]] = {score.name: score for score in _ALL}


def build_score(config: str | Mapping[str, Any], where: str) -> Score:
  """Makes a score from a name or {"name": ..., options}; raises UserError naming `where`."""
  return build(SCORES, config, where)
