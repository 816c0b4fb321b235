"""Tokens of examples, which of them are real, and what each weighs: what scores of tokens compare."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Tokens:
  """L tokens of each of N examples, or of one.

  Attributes:
    vectors: [..., L, D].
    mask: bool [..., L], True where a token is real.
    weights: [..., L]: of a head that weighs them, first as logarithms, then (`prepare`) as shares; None without.
  """

  vectors: jax.Array
  mask: jax.Array
  weights: jax.Array | None = None

  __array_ufunc__ = None  # so that a number of NumPy's leaves the product to __rmul__

  @property
  def shape(self) -> tuple[int, ...]:
    """That of the vectors."""
    return self.vectors.shape

  def __len__(self) -> int:
    return len(self.vectors)

  def __getitem__(self, examples: Any) -> Tokens:
    """The tokens of some examples, of those of several."""
    return jax.tree.map(lambda array: array[examples], self)

  def __rmul__(self, scale: Any) -> Tokens:
    """Vectors `scale` times as long."""
    return self.replace(vectors=scale * self.vectors)


def make_tokens(vectors: jax.Array, mask: jax.Array | None, weights: jax.Array | None = None) -> Tokens:
  """Tokens of which all are real where there is no mask; those that are not are zeros, so that no number of theirs,
  NaN included, reaches another's."""
  mask = jnp.ones(vectors.shape[:-1], bool) if mask is None else mask
  return Tokens(jnp.where(mask[..., None], vectors, 0), mask, weights)
