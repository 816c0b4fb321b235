"""A side of a term's matrix: its rows or columns, and what must be known of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

Facts = Mapping[str, Any]
"""Name -> [n, ...], what a target knows of each row or column."""


@flax.struct.dataclass
class Side:
  """Queries, keys, or embeddings that are compared beside them: n rows, or n columns, of a matrix.

  Attributes:
    x: embeddings [n, ...] as the score prepared them, an array or a tree of arrays.
    position: int32 [n], the place in the batch of the example that each is of; -1 of none of them.
    facts: what the target knows of each (`Target.facts`), and the features it compares ("features").
    mask: bool [n], which of them count; None: all. A tile function does not see it.
    slot: int32 [n], which embedding it is, where rows and columns hold the same ones: none is compared with itself.
    view: int32 [n], which of the example's views it is, for a criterion that joins views.
    origin: int32 [n], the example that a hard negative is of, where `negative_weights` weigh it by that.
    negative: bool [n], True of hard negatives: whatever the target says, they are positives of none.
    anchor: of anchors, what the criterion must know of the whole row or column: the logit of the example's own pair
      [n], or the results of a first pass, name -> [n].
    mean_weight: [n], what an anchor counts in the term's mean, for a criterion that is summed over all pairs.
  """

  x: Any
  position: jax.Array
  facts: Facts = flax.struct.field(default_factory=dict)
  mask: jax.Array | None = None
  slot: jax.Array | None = None
  view: jax.Array | None = None
  origin: jax.Array | None = None
  negative: jax.Array | None = None
  anchor: Any = None
  mean_weight: jax.Array | None = None

  @property
  def length(self) -> int:
    """n, those that do not count included."""
    return self.position.shape[0]

  @property
  def count(self) -> jax.Array | int:
    """How many count."""
    return self.length if self.mask is None else jnp.sum(self.mask)


def same(rows: jax.Array, columns: jax.Array) -> jax.Array:
  """[r], [c] -> bool [r, c]: where the row's value is the column's."""
  return rows[:, None] == columns[None, :]


def apart(rows: Side, columns: Side) -> jax.Array | None:
  """Bool [r, c]: where a row and a column are not one and the same embedding; None when they never are."""
  return None if rows.slot is None or columns.slot is None else ~same(rows.slot, columns.slot)
