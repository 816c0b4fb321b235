"""What an evaluator sees of a model: one function, `embed`; unit rows and chunks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Embed = Callable[[str, Any], np.ndarray]
"""embed(kind, values) -> float32 [N, D]: "image" and "text" in the joint space (of uint8
[N, H, W, 3], of N strings), "image_features" the pooled output of the image tower."""
Compare = Callable[[str, np.ndarray, np.ndarray], np.ndarray]
"""compare(kind, queries, gallery) -> [Q, G]: how well each of the gallery matches each query of `kind`."""


def unit(x: np.ndarray) -> np.ndarray:
  """Rows of `x` [N, D] as float32, L2-normalised; a row of zeros stays zero."""
  x = np.asarray(x, np.float32)
  out = np.empty_like(x)
  for rows in row_chunks(len(x), x[:1].size):  # the norm takes a copy of what it is of
    out[rows] = x[rows] / np.maximum(np.linalg.norm(x[rows], axis=-1, keepdims=True), 1e-12)
  return out


def cosines(kind: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
  """float32 [Q, G]: cosines of unit rows [Q, D] and [G, D], whatever the `kind` of the queries."""
  del kind
  return queries @ gallery.T


def row_chunks(rows: int, columns: int, elements: int = 1 << 22) -> Iterator[slice]:
  """Slices of rows whose [rows, columns] scores stay within `elements` numbers (16 MiB)."""
  step = max(1, elements // max(columns, 1))
  for start in range(0, rows, step):
    yield slice(start, min(start + step, rows))
