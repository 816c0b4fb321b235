"""Linear maps from one frozen space into another, in closed form (SITTA, arXiv:2307.05591).

Rows x of one space and y of the other stand for the same things. Both are standardised, each number by its mean and its
standard deviation, and `weight` [D, E] is fitted to the standardised rows X [N, D], Y [N, E] without an intercept:

    least_squares        argmin |X W - Y|^2
    ridge                argmin |X W - Y|^2 + l2 |W|^2
    procrustes           argmin |X W - Y|^2 where W' W = 1 (or W W' = 1 of D < E): U V' of X' Y = U S V'
    robust_procrustes    five rounds of procrustes on rows that count sqrt(w / max w), w = 1 / (|y - x W| + 0.001), as
                         the authors' code has it (Groeneveld et al., arXiv:2205.11616)

`LinearMap.apply` leads back to the second space as it is, so that what is there, an index, need not be touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation.embed import unit
from mmcontrast.evaluation.matches import Matches
from mmcontrast.evaluation.retrieval import retrieval

_ROUNDS, _FLOOR = 5, 1e-3  # of robust_procrustes


class LinearMap(NamedTuple):
  """A fitted map: weight [D, E] between standardised rows; mean and scale of both spaces, [D], [D], [E], [E]."""

  weight: np.ndarray
  mean: np.ndarray
  scale: np.ndarray
  target_mean: np.ndarray
  target_scale: np.ndarray

  def apply(self, rows: np.ndarray) -> np.ndarray:
    """float [N, D] -> unit rows float32 [N, E] of the second space.

    Raises UserError for rows of another length.
    """
    if rows.shape[-1] != len(self.mean):
      raise UserError(f"a map of vectors of {len(self.mean)} numbers cannot be applied to vectors of {rows.shape[-1]}")
    return unit((rows - self.mean) / self.scale @ self.weight * self.target_scale + self.target_mean)


def least_squares(x: np.ndarray, y: np.ndarray, l2: float = 0.0) -> np.ndarray:
  """[D, E]: the W of the smallest |x W - y|^2, of several the one of the smallest norm. `l2` is not used."""
  del l2
  return np.linalg.lstsq(x, y, rcond=None)[0]


def ridge(x: np.ndarray, y: np.ndarray, l2: float = 1.0) -> np.ndarray:
  """[D, E]: the W of the smallest |x W - y|^2 + l2 |W|^2."""
  return np.linalg.solve(x.T @ x + l2 * np.eye(x.shape[1]), x.T @ y)


def procrustes(x: np.ndarray, y: np.ndarray, l2: float = 0.0) -> np.ndarray:
  """[D, E]: the W of the smallest |x W - y|^2 whose columns (rows, of D < E) are orthonormal. `l2` is not used."""
  del l2
  left, _, right = np.linalg.svd(x.T @ y, full_matrices=False)
  return left @ right


def robust_procrustes(x: np.ndarray, y: np.ndarray, l2: float = 0.0) -> np.ndarray:
  """[D, E]: as `procrustes`, with less weight on rows that fit badly. `l2` is not used."""
  del l2
  weight = procrustes(x, y)
  for _ in range(_ROUNDS):
    counts = 1 / (np.linalg.norm(y - x @ weight, axis=1) + _FLOOR)
    rows = np.sqrt(counts / counts.max())[:, None]
    weight = procrustes(rows * x, rows * y)
  return weight


METHODS: Mapping[str, Callable[..., np.ndarray]] = {
  "least_squares": least_squares,
  "ridge": ridge,
  "procrustes": procrustes,
  "robust_procrustes": robust_procrustes,
}


def fit(x: np.ndarray, y: np.ndarray, method: str = "ridge", l2: float = 1.0) -> LinearMap:
  """The map from x [N, D] to y [N, E], whose rows stand for the same things; computed in float64.

  Args:
    method: one of METHODS.
    l2: of "ridge", beside sums over rows.
  Raises UserError: another method, fewer than two rows, or an l2 that is not positive.
  """
  choose(method, METHODS, "--method")
  if len(x) != len(y) or len(x) < 2:
    raise UserError(f"a map is fitted to two pairs of rows or more, not to {len(x)} and {len(y)} rows")
  if not l2 > 0:
    raise UserError(f"--l2 {l2:g}: must be above 0; --method least_squares has none")
  x, y = (np.asarray(rows, np.float64) for rows in (x, y))
  (mean, scale), (target_mean, target_scale) = _moments(x), _moments(y)
  weight = METHODS[method]((x - mean) / scale, (y - target_mean) / target_scale, l2)
  return LinearMap(weight, mean, scale, target_mean, target_scale)


def held_out_retrieval(x: np.ndarray, y: np.ndarray, matches: Matches, fitted: LinearMap | None) -> dict[str, float]:
  """Recall of rows y [G, E] by rows x [Q, D] and back, x through a map; None: by the cosine of x and y as they are.

  Returns: {"there/recall@1": ..., "back/recall@1": ..., ...}, see retrieval.py.
  """
  mapped = unit(x) if fitted is None else fitted.apply(x)
  there, back = retrieval(mapped, unit(y), matches), retrieval(unit(y), mapped, matches.T)
  return {f"{way}/{name}": value for way, of in (("there", there), ("back", back)) for name, value in of.items()}


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation of each number; 1 in place of a deviation of (almost) zero."""
  deviation = rows.std(axis=0)
  return rows.mean(axis=0), np.where(deviation > 1e-12, deviation, 1.0)
