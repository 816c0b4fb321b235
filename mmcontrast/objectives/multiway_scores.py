"""Scores of more than two modalities: an anchor with a tuple of keys, which makes one column."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.errors import UserError
from mmcontrast.objectives.score import Score, products


@dataclass(frozen=True)
class TupleScore(Score):
  """A score of one row and all keys of an example together."""

  joins: ClassVar[bool] = True

  @abc.abstractmethod
  def join(self, keys: Sequence[jax.Array]) -> jax.Array:
    """Prepared keys, [N, D] each -> [N, ...], one column an example."""


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

  def __post_init__(self):
    if not self.floor >= 0:
      raise UserError(f"floor: {self.floor} is below 0; the default is 1e-6")

  def join(self, keys: Sequence[jax.Array]) -> jax.Array:
    """[N, D] each -> [N, K, D + 1]: an orthonormal basis of the keys, and the square of their volume.

    Gram-Schmidt; a key within those before it adds a vector of zeros, and makes the volume zero.
    """
    basis: list[jax.Array] = []
    square = jnp.ones(keys[0].shape[0], keys[0].dtype)
    for key in keys:
      for one in basis:
        key = key - jnp.sum(one * key, -1, keepdims=True) * one
      length = jnp.sum(key * key, -1)
      square = square * length
      basis.append(key * lax.rsqrt(length + 1e-12)[:, None])
    vectors = jnp.stack(basis, 1)
    return jnp.concatenate([vectors, jnp.broadcast_to(square[:, None, None], (*vectors.shape[:2], 1))], -1)

  def tile(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    basis, square = columns[..., :-1], columns[:, 0, -1]
    found = jnp.einsum("id,jkd->ijk", rows, basis, precision=lax.Precision.HIGHEST)
    length = jnp.sum(rows * rows, -1)[:, None]
    outside = jnp.maximum(length - jnp.sum(found * found, -1), 0.0)
    # The floor grows with the row as the volume does. A padded row, of zeros, has no gradient.
    volume = square * outside + self.floor * length
    return -jnp.sqrt(jnp.where(volume > 0, volume, 1.0)) * (volume > 0)

  def cells(self, row: jax.Array, column: jax.Array) -> int:
    return column.shape[0]


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
