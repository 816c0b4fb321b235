"""Scores of more than two modalities: an anchor with a tuple of keys, which makes one column."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.errors import UserError
from mmcontrast.objectives.score import Score, matmul_precision, normalize, products, widen


@dataclass(frozen=True)
class TupleScore(Score):
  """A score of one row and all keys of an example together.

  column: the NamedTuple that columns are, of arrays [N, ...]; None: one array.
  symmetric: whether the score is the same whichever of the vectors is called the query.
  """

  joins: ClassVar[bool] = True
  column: ClassVar[type[NamedTuple] | None] = None
  symmetric: ClassVar[bool] = True

  def prepare_key(self, x: jax.Array) -> jax.Array:
    """As `prepare`, of what `join` takes."""
    return self.prepare(x)

  @abc.abstractmethod
  def join(self, keys: Sequence[jax.Array]) -> Any:
    """Prepared keys, [N, D] each -> one column an example: an array [N, ...], or `column`."""


class KeySpan(NamedTuple):
  """What the keys of each example span.

  Attributes:
    basis: [N, K, D], orthonormal vectors; a vector of zeros of a key within the span of those before it.
    square: [N], the square of their volume.
  """

  basis: jax.Array
  square: jax.Array


@dataclass(frozen=True)
class GramVolume(TupleScore):
  """Minus the volume that an anchor and its keys span (GRAM, arXiv:2412.11959).

  The volume is `sqrt(det G)`, G the Gram matrix of the unit vectors: the volume of the keys times
  the anchor's distance from their span. It does not see a vector's sign, and for one key is the
  sine of the angle.

  floor: added to the square under the root, so that its gradient is finite at perfect alignment.
  """

  floor: float = 1e-6
  name: ClassVar[str] = "gram_volume"
  column: ClassVar[type[NamedTuple]] = KeySpan

  def __post_init__(self):
    if not self.floor >= 0:
      raise UserError(f"floor: {self.floor} is below 0; the default is 1e-6")

  def join(self, keys: Sequence[jax.Array]) -> KeySpan:
    """[N, D] each -> what they span, by Gram-Schmidt."""
    basis: list[jax.Array] = []
    square = jnp.ones(keys[0].shape[0], keys[0].dtype)
    for key in keys:
      for unit in basis:
        key = key - jnp.sum(unit * key, -1, keepdims=True) * unit
      length = jnp.sum(key * key, -1)
      square = square * length
      basis.append(key * lax.rsqrt(length + 1e-12)[:, None])
    return KeySpan(jnp.stack(basis, 1), square)

  def tile(self, rows: jax.Array, columns: KeySpan) -> jax.Array:
    within = jnp.einsum("id,jkd->ijk", rows, columns.basis, precision=matmul_precision())
    length = jnp.sum(rows * rows, -1)[:, None]
    outside = jnp.maximum(length - jnp.sum(within * within, -1), 0.0)
    # The floor grows with the row as the volume does. A padded row, of zeros, has no gradient.
    volume = columns.square * outside + self.floor * length
    return -jnp.sqrt(jnp.where(volume > 0, volume, 1.0)) * (volume > 0)

  def cells(self, row: jax.Array, column: KeySpan) -> int:
    return column.basis.shape[0]


@dataclass(frozen=True)
class Multilinear(TupleScore):
  """The sum over dimensions of the product of anchor and keys (Symile, arXiv:2411.01053).

  Give the keys together: `key=("text[0]/joint", "text[1]/joint")`, and a term to each anchor.
  """

  name: ClassVar[str] = "multilinear"

  def join(self, keys: Sequence[jax.Array]) -> jax.Array:
    """[N, D] each -> [N, D]."""
    joined = keys[0]
    for key in keys[1:]:
      joined = joined * key
    return joined

  def tile(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return products(rows, columns)

  def pair(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.sum(rows * columns, -1)


@dataclass(frozen=True)
class MeanOfKeys(TupleScore):
  """The cosine of an anchor and the mean of its keys, taken before anything is normalised: a clip and what is said in
  each part of it (TVTS, arXiv:2209.15280)."""

  name: ClassVar[str] = "mean_of_keys"
  symmetric: ClassVar[bool] = False

  def prepare_key(self, x: jax.Array) -> jax.Array:
    return widen(x)

  def join(self, keys: Sequence[jax.Array]) -> jax.Array:
    """[N, D] each -> [N, D], unit vectors."""
    return normalize(sum(keys) / len(keys))

  def tile(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return products(rows, columns)

  def pair(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    return jnp.sum(rows * columns, -1)
