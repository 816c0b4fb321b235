"""A score in which the text decides what of an image's tokens counts (GLSCL, arXiv 2405.12710)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError
from mmcontrast.objectives.score import matmul_precision, normalize, widen
from mmcontrast.objectives.token_scores import TokenScore
from mmcontrast.objectives.tokens import Tokens


@dataclass(frozen=True)
class TextConditionedFrames(TokenScore):
  """The cosine of a text with the frames that it attends to, and that of the queries' outputs.

      w_abv = softmax over frames v of <c_a, f_bv> / temperature
      S_ab  = cos(c_a, sum_v w_abv f_bv) + weight * mean_q cos(n_aq, p_bq)

  The query is the text, with global vector c and outputs n of the shared queries; the key's tokens are frames f, or
  patches, with outputs p: of heads `shared_queries`, whose first token is c and whose last `queries` are the outputs.
  c and f are compared in the softmax as they are, not of unit length. The released code zeroes padded frames after the
  softmax; the cosine does not see the share that is lost so, and padding takes no part here. Its training logits have
  weight 0.5, its evaluation 0: here both have the same.

  queries: outputs of queries at the end of the tokens.
  temperature: of the softmax over frames, not of the logits (released for MSR-VTT: 3).
  weight: of the queries.
  """

  queries: int = 8
  temperature: float = 3.0
  weight: float = 0.5
  name: ClassVar[str] = "text_conditioned_frames"

  def __post_init__(self):
    if self.queries < 1:
      raise UserError(f"queries: {self.queries} is not a number of queries; give that of the heads")
    if not self.temperature > 0:
      raise UserError(f"temperature: {self.temperature} is not above 0; GLSCL uses 3")

  def prepare(self, x: Tokens) -> Tokens:
    """The queries' outputs of unit length; the rest as it is."""
    if x.vectors.shape[-2] < self.queries + 2:
      raise UserError(
        f"score {self.name!r}: queries={self.queries} and a global vector are not in {x.vectors.shape[-2]} tokens; "
        "use heads 'shared_queries' with as many queries"
      )
    vectors = widen(x.vectors)
    asked = jnp.arange(vectors.shape[-2]) >= vectors.shape[-2] - self.queries
    return x.replace(vectors=jnp.where(asked[:, None], normalize(vectors), vectors))

  def tile(self, rows: Tokens, columns: Tokens) -> jax.Array:
    end = columns.vectors.shape[-2] - self.queries
    frames, real = columns.vectors[:, 1:end], columns.mask[:, 1:end]
    # A row is as many times longer as its queries' outputs: the scale of the logits, unseen by the softmax over frames.
    scale = jnp.sum(rows.vectors[:, -1] ** 2, -1)
    scale = jnp.where(scale > 0, jnp.sqrt(jnp.where(scale > 0, scale, 1.0)), 0.0)
    text = rows.vectors[:, 0] / jnp.where(scale > 0, scale, 1.0)[:, None]
    dots = jnp.einsum("ad,bvd->abv", text, frames, precision=matmul_precision())
    some = jnp.any(real, -1)
    inner = jnp.where(real, dots / self.temperature, -jnp.inf)
    weights = jnp.where(some[:, None], jax.nn.softmax(jnp.where(some[:, None], inner, 0.0), -1), 0.0)
    gram = jnp.einsum("bvd,bwd->bvw", frames, frames, precision=matmul_precision())
    seen = jnp.sum(weights * jnp.einsum("abv,bvw->abw", weights, gram, precision=matmul_precision()), -1)
    squares = jnp.sum(text * text, -1)[:, None] * seen
    score = scale[:, None] * jnp.sum(weights * dots, -1) * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))
    asked = (x.vectors[:, x.vectors.shape[-2] - self.queries :] for x in (rows, columns))
    alike = jnp.einsum("aqd,bqd->ab", *asked, precision=matmul_precision()) / self.queries
    return score + self.weight * alike

  def cells(self, row: Any, column: Any) -> int:
    return column.vectors.shape[0]
