"""Scores that compare tokens (late interaction).

Each goes through the tokens of one side one by one and recomputes each in the gradient: a tile of r
rows and c columns holds r * c * M numbers, M being the tokens of the other side, never all four axes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.score import Score, matmul_precision, normalize, widen
from mmcontrast.objectives.tokens import Tokens, make_tokens

# (a token of each row [r, D], its products with the columns' tokens [r, c, M], which of those are
# there [c, M]) -> [r, c]
Choice = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@dataclass(frozen=True)
class TokenScore(Score):
  """A score of tokens."""

  tokens: ClassVar[bool] = True

  def read(self, x: Encoded) -> Tokens:
    """The embedding's tokens."""
    return make_tokens(x.tokens, x.mask, x.weights if self.weighted else None)

  def prepare(self, x: Tokens) -> Tokens:
    """Unit vectors of float32 or wider."""
    return x.replace(vectors=normalize(x.vectors))


def _equal(x: Tokens) -> jax.Array:
  """[..., L]: weights of a mean over the tokens."""
  real = x.mask.astype(x.vectors.dtype)
  return real / jnp.maximum(jnp.sum(real, -1, keepdims=True), 1)


def _sum_over_tokens(choice: Choice, a: Tokens, weights: jax.Array, b: Tokens) -> jax.Array:
  """r times L tokens with weights [r, L], c times M -> [r, c]: the weighted sum of `choice` over row tokens."""

  @jax.checkpoint
  def chosen(token, weight):
    matches = jnp.einsum("id,jmd->ijm", token, b.vectors, precision=matmul_precision())
    return weight[:, None] * choice(token, matches, b.mask)

  def add(total, token):
    return total + chosen(*token), None

  start = jnp.zeros((a.vectors.shape[0], b.vectors.shape[0]), a.vectors.dtype)
  return lax.scan(add, start, (a.vectors.swapaxes(0, 1), weights.swapaxes(0, 1)))[0]


def _best(token: jax.Array, matches: jax.Array, real: jax.Array) -> jax.Array:
  """The largest product with a token that is there; zero where none is."""
  some = jnp.any(real, -1)
  highest = jnp.max(jnp.where(real, matches, -jnp.inf), -1)
  return jnp.where(some, jnp.where(some, highest, 0.0), 0.0)


@dataclass(frozen=True)
class TokenMax(TokenScore):
  """The mean over a query's tokens of the best match among the key's (FILIP, arXiv:2111.07783).

  It is not symmetric: the way back is a second term with query and key exchanged.

  kept: how many tokens of each key are used: those with the largest summed similarity to the tokens of its own
    query; 0: all. With fewer, less is sent between devices.
  """

  kept: int = 0
  name: ClassVar[str] = "token_max"

  def __post_init__(self):
    if not isinstance(self.kept, int) or self.kept < 0:
      raise UserError(f"kept: {self.kept!r} is not a number of tokens (0: all of them)")

  def check(self, term: Any, where: str) -> None:
    if self.kept and (len(term.query) > 1 or len(term.key) > 1 or term.negative_keys or term.negative_queries):
      raise UserError(
        f"{where}.score.kept: the query decides which tokens of a key are kept; use one query and one key without "
        "hard negatives, or kept=0"
      )

  def columns(self, rows: Tokens, columns: Tokens) -> Tokens:
    """n queries' tokens and n times M of their keys -> n times `kept`."""
    if not 0 < self.kept < columns.vectors.shape[1]:
      return columns
    alike = jnp.einsum("nld,nmd->nm", rows.vectors, columns.vectors, precision=lax.Precision.HIGHEST)
    best = lax.top_k(lax.stop_gradient(jnp.where(columns.mask, alike, -jnp.inf)), self.kept)[1]
    vectors = jnp.take_along_axis(columns.vectors, best[:, :, None], axis=1)
    return Tokens(vectors, jnp.take_along_axis(columns.mask, best, axis=1))

  def tile(self, rows: Tokens, columns: Tokens) -> jax.Array:
    return _sum_over_tokens(_best, rows, _equal(rows), columns)

  def cells(self, row: Tokens, column: Tokens) -> int:
    return column.vectors.shape[0]


@dataclass(frozen=True)
class MatchMap(TokenMax):
  """`token_max` of dot products, the query being the text (VG-BERT, arXiv:2111.07180).

  Each word looks for its best pixel; their mean is the score. Vectors keep their length.
  """

  name: ClassVar[str] = "matchmap"

  def prepare(self, x: Tokens) -> Tokens:
    return x.replace(vectors=widen(x.vectors))


@dataclass(frozen=True)
class TokenSoftmax(TokenMax):
  """As `token_max`, with a softmax in the place of the maximum (CiCo, arXiv:2303.12793).

  The mean over a query's tokens of the cosines with the key's, each weighted by the softmax of
  these cosines.

  temperature: of that softmax, not of the logits.
  """

  temperature: float = 0.07
  name: ClassVar[str] = "token_softmax"

  def __post_init__(self):
    super().__post_init__()
    if not self.temperature > 0:
      raise UserError(f"temperature: {self.temperature} is not above 0; CiCo uses 0.07")

  def tile(self, rows: Tokens, columns: Tokens) -> jax.Array:
    return _sum_over_tokens(self._expected, rows, _equal(rows), columns)

  def _expected(self, token: jax.Array, matches: jax.Array, real: jax.Array) -> jax.Array:
    # Tokens are of unit length; what makes one longer is the scale of the logits.
    square = jnp.sum(token * token, -1)
    sharpness = lax.rsqrt(jnp.where(square > 0, square, 1.0)) / self.temperature
    logits = jnp.where(real, matches * sharpness[:, None, None], -jnp.inf)
    some = jnp.any(real, -1)
    logits = jnp.where(some[..., None], logits, 0.0)
    return jnp.where(some, jnp.sum(jax.nn.softmax(logits, -1) * matches, -1), 0.0)


@dataclass(frozen=True)
class TokenWeighted(TokenScore):
  """The mean of both sides' weighted best matches (VALOR, arXiv:2304.08345; HBI, arXiv:2303.14369).

  `(sum_t w_t max_v C_tv + sum_v u_v max_t C_tv) / 2`, with weights that a head `token_weighted`
  gives and that sum to one over an example's tokens. Symmetric: one term serves both directions.
  """

  name: ClassVar[str] = "token_weighted"
  weighted: ClassVar[bool] = True

  def prepare(self, x: Tokens) -> Tokens:
    """Unit vectors; weights, logarithms before, sum to one over an example's tokens."""
    logits = widen(x.weights)
    weights = jax.nn.softmax(jnp.where(x.mask, logits, jnp.finfo(logits.dtype).min), -1)
    return super().prepare(x).replace(weights=jnp.where(x.mask, weights, 0.0))

  def tile(self, rows: Tokens, columns: Tokens) -> jax.Array:
    forth = _sum_over_tokens(_best, rows, rows.weights, columns)
    back = _sum_over_tokens(_best, columns, columns.weights, rows)
    return (forth + back.T) / 2

  def cells(self, row: Tokens, column: Tokens) -> int:
    return max(row.vectors.shape[0], column.vectors.shape[0])
