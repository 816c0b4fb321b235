"""Scores: how one embedding is compared with another.

A score prepares embeddings once (float32 or wider, unit length where it wants it), then compares
any r rows with any c columns. Every score here is homogeneous in its rows
(`tile(s * a, b) = s * tile(a, b)`), so a temperature multiplies N rows, not N * M scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax


@dataclass(frozen=True)
class Score:
  """How embeddings are compared.

  Attributes:
    prepare: [N, D] of any float type -> [N, D] of float32 or wider.
    tile: ([r, D], [c, D]) -> [r, c].
    pair: ([n, D], [n, D]) -> [n], each row with its own column.
    total: ([n, D], [m, D]) -> scalar, the sum over all pairs without making them.
  """

  prepare: Callable[[jax.Array], jax.Array]
  tile: Callable[[jax.Array, jax.Array], jax.Array]
  pair: Callable[[jax.Array, jax.Array], jax.Array]
  total: Callable[[jax.Array, jax.Array], jax.Array]


def widen(x: jax.Array) -> jax.Array:
  """To float32, unless it is wider already."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def normalize(x: jax.Array) -> jax.Array:
  """Rows of unit length, `x / max(|x|, 1e-12)` as torch does, with a finite gradient at zero."""
  x = widen(x)
  return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def products(a: jax.Array, b: jax.Array) -> jax.Array:
  """All dot products of [r, D] and [c, D], in full precision on every backend."""
  return jnp.einsum("id,jd->ij", a, b, precision=lax.Precision.HIGHEST)


def _pair(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.sum(a * b, -1)


def _total(a: jax.Array, b: jax.Array) -> jax.Array:
  return jnp.dot(jnp.sum(a, 0), jnp.sum(b, 0), precision=lax.Precision.HIGHEST)


SCORES = {
  "cosine": Score(normalize, products, _pair, _total),
  "dot": Score(widen, products, _pair, _total),
}
