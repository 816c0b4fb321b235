"""What every encoder returns."""

from __future__ import annotations

from typing import NamedTuple

import jax


class Encoded(NamedTuple):
  """One encoded view.

  Attributes:
    pooled: [B, D], one vector an example, not normalised.
    tokens: [B, L, D], the positions that were pooled (patches, words, feature-map cells).
    mask: [B, L] bool, True where a position is real; None when all are.
  """

  pooled: jax.Array
  tokens: jax.Array | None = None
  mask: jax.Array | None = None
