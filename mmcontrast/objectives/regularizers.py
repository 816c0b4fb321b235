"""Regularizers: what is asked of the embeddings themselves, beside the terms, in the same objective.

    align = dict(regularizer="alignment", embeddings=("image[0]/image_joint", "text[0]/text_joint"),
                 weight=1.0)

A regularizer is a function of unit vectors [N, D] in float32 or wider. One that compares examples
goes over the tiles of the global matrix (`reduce_tiles`): memory linear in N, on any mesh. Examples
that are not valid, or lack a modality it reads, are in no sum and no count. The weights of examples
are those of anchors, of which a regularizer has none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.errors import UserError, nearest
from mmcontrast.objectives.comparison import LossMatrix
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.global_matrix import Values, reduce_tiles
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.reductions import Reduction, reduce_values
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.targets import Facts, build, same

Embeddings = Sequence[jax.Array]  # [N, D] each, of unit length
Matrix = Callable[..., Values]  # `reduce_tiles` of one batch, its masks among the options


@dataclass(frozen=True)
class Alignment:
  """`mean_i |a_i - b_i|^2` (Wang and Isola 2020, arXiv:2005.10242): 2 less twice the mean cosine."""

  takes: ClassVar[int | None] = 2  # embeddings; None: one or more
  across: ClassVar[bool] = True  # whether vectors of one embedding meet those of the other
  cells: ClassVar[int] = 0  # numbers that a tile holds for each pair of examples; 0: no matrix

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    distances = jnp.sum((a - b) ** 2, -1)
    kept = distances if valid is None else jnp.where(valid, distances, 0.0)
    return jnp.sum(kept) / jnp.maximum(_number(a, valid), 1)


@dataclass(frozen=True)
class Uniformity:
  """`log mean_{i != j} exp(-t |a_i - a_j|^2)` (Wang and Isola 2020), and its mean over embeddings."""

  t: float = 2.0
  takes: ClassVar[int | None] = None
  across: ClassVar[bool] = False
  cells: ClassVar[int] = 1

  def __post_init__(self):
    if not self.t > 0:
      raise UserError(f"t: {self.t} is not above 0; Wang and Isola use 2")

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    return sum(self._potential(x, x, valid, matrix) for x in embeddings) / len(embeddings)

  def _potential(self, a: jax.Array, b: jax.Array, valid, matrix: Matrix) -> jax.Array:
    """`log mean_{i != j} exp(-t |a_i - b_j|^2)`; zero for a single example."""
    place = {"position": jnp.arange(a.shape[0], dtype=jnp.int32)}
    sums = {"sums": Reduction("value", "row", "logsumexp")}
    rows = matrix(partial(_minus_distance, self.t), sums, {"x": a} | place, {"x": b} | place)["sums"]
    total = reduce_values("logsumexp", rows if valid is None else jnp.where(valid, rows, -jnp.inf), 0)
    number = jnp.maximum(_number(rows, valid), 2).astype(rows.dtype)
    some = total != -jnp.inf  # NaN stays NaN
    return jnp.where(some, jnp.where(some, total, 0.0) - jnp.log(number * (number - 1)), 0.0)


@dataclass(frozen=True)
class CrossUniformity(Uniformity):
  """`log mean_{i != j} exp(-t |a_i - b_j|^2)` (Fahim, Murphy and Fyshe 2024, arXiv:2405.18570)."""

  takes: ClassVar[int | None] = 2
  across: ClassVar[bool] = True

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    return self._potential(*embeddings, valid, matrix)


@dataclass(frozen=True)
class InModalConsistency:
  """`N mean_ij (a_i.a_j - b_i.b_j)^2`: two examples are as alike in one modality as in the other.

  CyCLIP (Goel et al. 2022, arXiv:2205.14459), whose weight is 0.25.
  """

  takes: ClassVar[int | None] = 2
  across: ClassVar[bool] = False
  cells: ClassVar[int] = 2

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    return self._gap({"x": a, "y": b}, {"x": a, "y": b}, valid, matrix)

  def _gap(self, rows: Facts, columns: Facts, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    total = matrix(_squared_difference, {"total": Reduction("value", "all", "sum")}, rows, columns)["total"]
    return total / jnp.maximum(_number(rows["x"], valid), 1)


@dataclass(frozen=True)
class CrossModalConsistency(InModalConsistency):
  """`N mean_ij (a_i.b_j - a_j.b_i)^2`: the matrix of similarities is symmetric (CyCLIP, 0.25)."""

  across: ClassVar[bool] = True

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    return self._gap({"x": a, "y": b}, {"x": b, "y": a}, valid, matrix)


REGULARIZERS: dict[str, type] = {
  "alignment": Alignment,
  "uniformity": Uniformity,
  "cross_uniformity": CrossUniformity,
  "in_modal_consistency": InModalConsistency,
  "cross_modal_consistency": CrossModalConsistency,
}


# ---- Over the matrix ----------------------------------------------------------------------------


def _minus_distance(t: float, rows: Facts, columns: Facts, shared) -> tuple[Values, jax.Array]:
  """`-t |x - x'|^2` of different examples."""
  return {"value": 2.0 * t * (products(rows["x"], columns["x"]) - 1.0)}, ~same(rows, columns)


def _squared_difference(rows: Facts, columns: Facts, shared) -> tuple[Values, None]:
  return {"value": (products(rows["x"], columns["x"]) - products(rows["y"], columns["y"])) ** 2}, None


def _number(x: jax.Array, valid: jax.Array | None) -> jax.Array:
  return jnp.asarray(x.shape[0]) if valid is None else jnp.sum(valid)


# ---- In the objective ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Regularizer:
  """One weighted entry of the objective that is not a term: `function` of `embeddings`."""

  name: str
  embeddings: tuple[str, ...]
  function: Any  # one of REGULARIZERS
  weight: Any

  @property
  def compares(self) -> None:
    """It compares nothing that could be searched by."""
    return None

  def logit_scale(self, parameters: Mapping[str, Any]) -> None:
    """It has no logits."""
    return None

  def after_step(self, parameters: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
    """What it has learned, after the optimizer's step."""
    return parameters

  def matrices(self, embeddings: Mapping[str, Any], size: int) -> list[LossMatrix]:
    """The matrices that its loss goes over, from the shapes of embeddings and of the global batch."""
    if not self.function.cells:  # An alignment has no matrix.
      return []
    dim = max(embeddings[name].shape[-1] for name in self.embeddings)
    return [LossMatrix(size, size, "regularizer", dim, self.function.cells)]


DEFAULTS = {"regularizer": inspect.Parameter.empty, "embeddings": (), "weight": 1.0}
"""The options of an entry and their defaults (`inspect.Parameter.empty`: required)."""


def parse_regularizer(name: str, config: Mapping[str, Any]) -> Regularizer:
  """Makes a regularizer of its config; raises UserError naming entry, key and nearest choice."""
  where = f"objective.{name}"
  for key in config:
    if key not in DEFAULTS:
      raise UserError(f"{where}: no key {key!r} beside 'regularizer'; {nearest(key, DEFAULTS)}")
  function = build(REGULARIZERS, config["regularizer"], f"{where}.regularizer")
  given = config.get("embeddings", ())
  embeddings = (given,) if isinstance(given, str) else tuple(given)
  for embedding in embeddings:
    parse_embedding(embedding, f"{where}.embeddings")
  if len(embeddings) != (function.takes or len(embeddings) or 1) or len(set(embeddings)) < len(embeddings):
    raise UserError(
      f"{where}.embeddings: {config['regularizer']} takes {function.takes or 'one or more'} different "
      f"embeddings, not {list(embeddings)}"
    )
  return Regularizer(name, embeddings, function, config.get("weight", 1.0))


def regularize(
  entry: Regularizer,
  embeddings: Mapping[str, jax.Array],
  info: Mapping[str, Any],
  *,
  mesh: jax.sharding.Mesh | None,
  impl: str,
  tile: int,
) -> jax.Array:
  """The loss of one regularizer (arguments as of terms.evaluate); none of "@momentum" has a gradient."""
  valid = taking_part(info, entry.embeddings)
  options = {"mesh": mesh, "impl": impl, "size": tile, "cells": entry.function.cells}
  matrix = partial(reduce_tiles, row_mask=valid, column_mask=valid, **options)
  found = {name: normalize(embeddings[name]) for name in entry.embeddings}
  found = [lax.stop_gradient(x) if name.endswith("@momentum") else x for name, x in found.items()]
  return entry.function.loss(found, valid, matrix)
