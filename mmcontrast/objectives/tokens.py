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

  def __rmul__(self, scale: Any) -> Tokens:
    """Vectors `scale` times as long."""
    return self.replace(vectors=scale * self.vectors)


def make_tokens(vectors: jax.Array, mask: jax.Array | None, weights: jax.Array | None = None) -> Tokens:
  """Tokens of which all are real where there is no mask; those that are not are zeros, so that no number of theirs,
  NaN included, reaches another's."""
  mask = jnp.ones(vectors.shape[:-1], bool) if mask is None else mask
  return Tokens(jnp.where(mask[..., None], vectors, 0), mask, weights)


def pack(tokens: Tokens) -> jax.Array:
  """Tokens as one array, in which embeddings are kept and written: [..., L, D], of zeros where there is no token; or
  [..., L, D + 1], the last number a token's weight."""
  vectors = jnp.where(tokens.mask[..., None], tokens.vectors, 0)
  return vectors if tokens.weights is None else jnp.concatenate([vectors, tokens.weights[..., None]], -1)


def unpack(array: jax.Array, weighted: bool = False) -> Tokens:
  """The tokens of such an array."""
  vectors, weights = (array[..., :-1], array[..., -1]) if weighted else (array, None)
  return Tokens(vectors, jnp.any(vectors != 0, -1), weights)
