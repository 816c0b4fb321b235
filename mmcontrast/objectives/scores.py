"""Scores: how one embedding is compared with another.

A score prepares embeddings once (float32 or wider, unit length where it wants it), then compares
any r rows with any c columns. Every score here is homogeneous in its rows
(`tile(s * a, b) = s * tile(a, b)`, s > 0), so a temperature multiplies N rows, not N * M scores.
Embeddings are [N, D], or for a score of tokens [N, L, D]: there, a vector of zeros is no token.
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
    name: what a config calls it.
    prepare: [N, D] of any float type -> [N, D] of float32 or wider.
    tile: ([r, D], [c, D]) -> [r, c].
    pair: ([n, D], [n, D]) -> [n], each row with its own column.
    total: ([n, D], [m, D]) -> scalar, the sum over all pairs without making them; None where it
      has to be summed with the matrix.
    tokens: whether embeddings are [N, L, D].
    cells: (one row, one column) -> how many numbers a tile holds for each of its pairs.
  """

  name: str
  prepare: Callable[[jax.Array], jax.Array]
  tile: Callable[[jax.Array, jax.Array], jax.Array]
  pair: Callable[[jax.Array, jax.Array], jax.Array]
  total: Callable[[jax.Array, jax.Array], jax.Array] | None
  tokens: bool = False
  cells: Callable[[jax.Array, jax.Array], int] = lambda row, column: 1


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


# ---- Late interaction ---------------------------------------------------------------------------


def _present(x: jax.Array) -> jax.Array:
  """[..., L, D] -> bool [..., L]: which vectors are tokens."""
  return jnp.any(x != 0, -1)


def _mean_of_best(best: Callable[[jax.Array], jax.Array], a: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """The mean over the tokens of `a` [r, L, D] of `best(token [r, D])`, one token after another."""

  @jax.checkpoint
  def add(total, token):
    found = best(token)
    here = _present(token).reshape(-1, *(1,) * (found.ndim - 1))
    return total + jnp.where(here, found, 0.0), None

  total = lax.scan(add, jnp.zeros(shape, a.dtype), a.swapaxes(0, 1))[0]
  return total / jnp.maximum(jnp.sum(_present(a), -1), 1).reshape(-1, *(1,) * (len(shape) - 1))


def _best(products: jax.Array, present: jax.Array) -> jax.Array:
  """The maximum over the last axis, of those present; zero where none is."""
  some = jnp.any(present, -1)
  highest = jnp.max(jnp.where(present, products, -jnp.inf), -1)
  return jnp.where(some, jnp.where(some, highest, 0.0), 0.0)


def _token_max(a: jax.Array, b: jax.Array) -> jax.Array:
  """[r, L, D], [c, M, D] -> [r, c]: the mean over row tokens of their best column token.

  Holds [r, c, M] for one row token at a time, in the gradient too: never all four axes.
  """
  present = _present(b)

  def best(token):  # [r, D]
    products = jnp.einsum("id,jmd->ijm", token, b, precision=lax.Precision.HIGHEST)
    return _best(products, present)

  return _mean_of_best(best, a, (a.shape[0], b.shape[0]))


def _token_max_pair(a: jax.Array, b: jax.Array) -> jax.Array:
  present = _present(b)

  def best(token):
    return _best(jnp.einsum("id,imd->im", token, b, precision=lax.Precision.HIGHEST), present)

  return _mean_of_best(best, a, (a.shape[0],))


_ALL = (
  Score("cosine", normalize, products, _pair, _total),
  Score("dot", widen, products, _pair, _total),
  # FILIP (Yao et al. 2022, arXiv:2111.07783), queries' tokens looking for keys': it is not
  # symmetric, so the way back is a second term with query and key exchanged.
  Score("token_max", normalize, _token_max, _token_max_pair, None, True, lambda row, column: column.shape[0]),
)
SCORES: dict[str, Score] = {score.name: score for score in _ALL}
