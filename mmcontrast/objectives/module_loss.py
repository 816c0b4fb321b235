"""Losses that are Flax modules, which may learn and remember: the base of those that module_term.py names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import jax
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.global_matrix import Tile, reduce_tiles
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.term import Run


class Facts(NamedTuple):
  """What a module is told beside embeddings.

  Attributes:
    names: the paths of the embeddings, in order.
    valid: bool [N], the examples that take part: padding does not, nor what lacks a modality that the term reads.
    step: steps done, int32 [].
    scheduled: the values now of `ModuleLoss.SCHEDULED`.
    batch: "id", "index", "tags", "labels", "seed" ... [N] as the pipeline gives them.
    rows: of `ModuleLoss.table`, what is remembered of the examples of the batch: name -> [N].
    matrix: options of `global_matrix.reduce_tiles`.
  """

  names: tuple[str, ...]
  valid: jax.Array
  step: Any
  scheduled: Mapping[str, Any]
  batch: Mapping[str, Any]
  rows: Mapping[str, jax.Array] = MappingProxyType({})
  matrix: Mapping[str, Any] = MappingProxyType({})

  def reduce(
    self, tile: Tile, reductions: Mapping[str, Reduction], rows: Any, columns: Any, shared: Any = (), **options: Any
  ) -> Values:
    """`global_matrix.reduce_tiles` on the devices of the run: statistics of a matrix that is never made whole."""
    return reduce_tiles(tile, reductions, rows, columns, shared, **options, **self.matrix)

  def of_view(self, name: str, fact: str) -> jax.Array:
    """A fact of the view that an embedding is of, a fusion of the view at its first end, [N, ...]: one of
    `ModuleLoss.VIEW_FACTS`."""
    view = parse_embedding(name).source.first
    return self.batch["views"][f"{view.views}[{view.view}]"][fact]


class ModuleLoss(nn.Module):
  """The base of losses that are modules.

  TAKES: the fields of `Encoded` that an embedding must have: "pooled", "tokens", "weights", "logits", "grid" (tokens
  that are a feature map), "losses/NAME". SCHEDULED: options that may follow a schedule. VIEW_FACTS: what it asks of
  the views of its embeddings, such as "box" (docs/modalities.md), for `Facts.of_view`; not to be had where it is
  initialised. ONE_SPACE: whether all of its embeddings must have vectors of one length.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)
  SCHEDULED: ClassVar[tuple[str, ...]] = ()
  VIEW_FACTS: ClassVar[tuple[str, ...]] = ()
  ONE_SPACE: ClassVar[bool] = True

  def __post_init__(self):
    super().__post_init__()
    for name in ("temperature", "teacher_temperature"):
      value = getattr(self, name, None)
      if isinstance(value, int | float) and not value > 0:
        raise UserError(f"{name}: {value!r} divides scores; give a number above 0, such as 0.07")

  @property
  def table(self) -> Mapping[str, float]:
    """What is remembered of each example of the dataset, by its index, and written by an epoch hook: name -> the value
    of one that was not seen yet."""
    return {}

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, metrics): scalars."""
    raise NotImplementedError

  def takes(self, place: int) -> tuple[str, ...]:
    """Those of TAKES that the embedding at a place of `embeddings` must have."""
    return self.TAKES

  def view_facts(self, name: str) -> tuple[str, ...]:
    """Those of VIEW_FACTS that it asks of one of its embeddings."""
    return self.VIEW_FACTS

  def check_views(self, names: Sequence[str], run: Run) -> None:
    """Raises UserError for embeddings that it cannot take, naming "embeddings" or an option of the module."""

  def after_step(self, parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """What it has learned, after the optimizer's step: moved back to where it must stay."""
    return parameters

  def after_cut(self, state: Mapping[str, Any]) -> Mapping[str, Any]:
    """What it remembers, cut to narrower embeddings by an entry's `matryoshka`: moved back to where it must stay, such
    as to unit length."""
    return state
