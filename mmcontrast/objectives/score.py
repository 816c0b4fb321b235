"""What a score is: how one embedding is compared with another.

A score prepares embeddings once (float32 or wider, L2-normalised if the score needs it), then compares
any r rows with any c columns. Every score is homogeneous in its rows
(`tile(s * a, b) = s * tile(a, b)`, s > 0), so a temperature multiplies N rows, not N * M scores.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded


@dataclass(frozen=True)
class Score(abc.ABC):
  """How embeddings are compared; its fields are a config's options.

  Attributes:
    name: what a config calls it.
    tokens: whether it compares `Tokens`; else vectors [N, D].
    weighted: whether each token has a weight.
    joins: whether all keys of an example make one column (multiway_scores.TupleScore); else each its own.
    total: ([n, D], [m, D]) -> scalar, the sum over all pairs without making them; None where it
      has to be summed with the matrix.
  """

  name: ClassVar[str]
  tokens: ClassVar[bool] = False
  weighted: ClassVar[bool] = False
  joins: ClassVar[bool] = False
  total: ClassVar[Callable[[jax.Array, jax.Array], jax.Array] | None] = None

  def read(self, x: Encoded) -> Any:
    """What `prepare` takes of an embedding: its vectors [N, D], or its tokens."""
    return x.pooled

  def prepare(self, x: Any) -> Any:
    """Vectors or tokens of any float type -> the same of float32 or wider, what `tile` and `join` take."""
    return normalize(x)

  @abc.abstractmethod
  def tile(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[r, ...], [c, ...] -> [r, c]."""

  def columns(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[n, ...], [n, ...] -> [n, ...]: the column of each prepared key, which may depend on the query of its example."""
    del rows
    return columns

  def pair(self, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """[n, ...], [n, ...] -> [n], row i with column i."""

    def score(*pair):
      return self.tile(*jax.tree.map(lambda x: x[None], pair))[0, 0]

    return jax.vmap(score)(rows, columns)

  def check(self, term: Any, where: str) -> None:  # noqa: B027 (most can be of any term)
    """Raises UserError, naming `where`, for a term (edge.Edge) that it cannot be the score of."""

  def cells(self, row: jax.Array, column: jax.Array) -> int:
    """How many numbers a tile holds for each of its pairs, of one row and one column."""
    return 1


def widen(x: jax.Array) -> jax.Array:
  """To float32, unless it is wider already."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def normalize(x: jax.Array) -> jax.Array:
  """L2-normalised rows, `x / max(|x|, 1e-12)` as torch does, with a finite gradient at zero."""
  x = widen(x)
  return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def products(a: jax.Array, b: jax.Array) -> jax.Array:
  """All dot products of [r, D] and [c, D], in the precision of `matmul_precision`."""
  return jnp.einsum("id,jd->ij", a, b, precision=matmul_precision())


def matmul_precision() -> str:
  """That of the products of a tile: what `jax.default_matmul_precision` says, which `global_matrix.reduce_tiles` sets
  (config.matrix.precision); full where nothing does."""
  return jax.config.jax_default_matmul_precision or "highest"
