"""Where a text ends."""

from __future__ import annotations

import jax
import jax.numpy


def real_tokens(ids: jax.Array, pad_id: int, eos_id: int) -> jax.Array:
  """Which ids [..., L] of texts are not padding: bool [..., L].

  A text reaches to its first eos, so that what pads may be a token too (CLIP's 0 is "!"). A row
  without eos, such as that of an absent text, has what is not `pad_id`.
  """
  ends = ids == eos_id
  before = jax.numpy.cumsum(ends, axis=-1) - ends == 0
  has_end = ends.any(axis=-1, keepdims=True)
  return has_end & before | ~has_end & (ids != pad_id)  # ONNX programs have no `where` of truth values
