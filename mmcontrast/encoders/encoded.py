"""What every tower and every head returns."""

from __future__ import annotations

import flax.struct
import jax


@flax.struct.dataclass
class Encoded:
  """One encoded view; a tower or a head fills what it has.

  Attributes:
    pooled: [B, D], one vector an example, not normalised; None of a head that gives tokens.
    tokens: [B, L, D], the positions that were pooled (patches, words, feature-map cells).
    mask: [B, L] bool, True where a token is real; None when all are.
    weights: [B, L], the logarithm of each token's weight; None when all weigh the same.
    grid: the rows and columns that the tokens of an image are in; None for words, or where patches were dropped.
  """

  pooled: jax.Array | None = None
  tokens: jax.Array | None = None
  mask: jax.Array | None = None
  weights: jax.Array | None = None
  grid: tuple[int, ...] | None = flax.struct.field(pytree_node=False, default=None)
