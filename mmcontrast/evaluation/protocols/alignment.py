"""How alike two sets of features of the same things are, by mutual nearest neighbours and CKA; the gap of modalities.

Mutual k-NN and CKA: Huh et al., "The Platonic Representation Hypothesis" (arXiv:2405.07987), metrics.py, whose numbers
these are (golden alignment_metrics, 1e-6). CKA: Kornblith et al. (arXiv:1905.00414), linear kernels; unbiased HSIC:
Song et al. 2012. Modality gap: Liang et al. (arXiv:2203.02053); alignment and uniformity: Wang and Isola
(arXiv:2005.10242).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import row_chunks

K, QUANTILE = 10, 0.95
_EPS = 1e-6  # beside the denominator of CKA, as published


def prepared(features: np.ndarray, quantile: float = QUANTILE) -> np.ndarray:
  """float64 [N, D] as arXiv:2405.07987 prepares them: clamped to +- the mean over rows of each row's quantile of
  absolute values, then to unit length. quantile 1: not clamped."""
  rows = np.asarray(features, np.float64)
  if quantile < 1:
    most = np.quantile(np.abs(rows), quantile, axis=1).mean()
    rows = np.clip(rows, -most, most)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


class _Rows(NamedTuple):
  """What is looked at of features of N things: the k nearest of each, int [N, k]; their inner products, [N, N], and of
  these the sums of rows, the diagonal, and the sum of all."""

  nearest: np.ndarray
  products: np.ndarray
  sums: np.ndarray
  own: np.ndarray
  total: float


class Compared(NamedTuple):
  """Every layer (or size) of one network beside every one of another.

  Attributes:
    ones, others: their names.
    scores: `mutual_knn`, `cka` and, of four things or more, `unbiased_cka` -> float [ones, others].
  """

  ones: tuple[str, ...]
  others: tuple[str, ...]
  scores: dict[str, np.ndarray]

  def best(self, metric: str = "mutual_knn") -> tuple[int, int]:
    """The places of the pair of the highest score, the first of equals."""
    place = int(self.scores[metric].argmax())
    return place // len(self.others), place % len(self.others)


def mutual_knn(one: np.ndarray, other: np.ndarray, k: int = K) -> float:
  """The mean share of the k nearest of a thing by one set of features that are among its k nearest by the other, itself
  left out; nearest by the inner product, the first of equals.

  Args:
    one: float [N, D]; other: float [N, E], of the same things in the same order.
  Raises UserError where the numbers of things differ, or are not more than k.
  """
  _check(one, other)
  _check_k(k, len(one))
  return _shared(nearest(one, k), nearest(other, k))


def nearest(features: np.ndarray, k: int) -> np.ndarray:
  """int [N, k]: the k nearest of each row by the inner product, itself left out."""
  out = np.empty((len(features), k), np.int64)
  for rows in row_chunks(len(features), len(features)):
    scores = features[rows] @ features.T
    scores[np.arange(len(scores)), np.arange(len(features))[rows]] = -np.inf
    out[rows] = np.argsort(-scores, axis=1, kind="stable")[:, :k]
  return out


def cka(one: np.ndarray, other: np.ndarray, unbiased: bool = False) -> float:
  """Centred kernel alignment of linear kernels: 1 for the same up to a rotation and a scale. Arguments as of
  `mutual_knn`; unbiased: by the unbiased estimate of HSIC, of four things or more."""
  _check(one, other)
  if unbiased and len(one) < 4:
    raise UserError(f"cka: the unbiased estimate is of four things or more, and there are {len(one)}")
  return _cka(_looked_at(one, 0), _looked_at(other, 0), unbiased)


def over_layers(
  ones: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], k: int = K, quantile: float | None = QUANTILE
) -> Compared:
  """Every layer (or size) of one network with every one of another.

  Args:
    ones, others: name -> float [N, D], of the same things. The memory grows with N * N for each of the others.
    quantile: of `prepared`; None: features as they are.
  Raises UserError as `mutual_knn`.
  """
  first = next(iter(ones.values()))
  for of in (*ones.values(), *others.values()):
    _check(first, of)
  _check_k(k, len(first))
  ready = (lambda rows: rows) if quantile is None else (lambda rows: prepared(rows, quantile))
  right = [_looked_at(ready(rows), k) for rows in others.values()]
  scores: dict[str, list[list[float]]] = {"mutual_knn": [], "cka": []} | (
    {"unbiased_cka": []} if len(first) > 3 else {}
  )
  for rows in ones.values():
    one = _looked_at(ready(rows), k)
    scores["mutual_knn"].append([_shared(one.nearest, other.nearest) for other in right])
    for name in list(scores)[1:]:
      scores[name].append([_cka(one, other, name == "unbiased_cka") for other in right])
  return Compared(tuple(ones), tuple(others), {name: np.array(of) for name, of in scores.items()})


def _looked_at(rows: np.ndarray, k: int) -> _Rows:
  rows = np.asarray(rows, np.float64)
  products = rows @ rows.T
  return _Rows(
    nearest(rows, k) if k else np.zeros((len(rows), 0), int),
    products,
    products.sum(1),
    np.diagonal(products),
    float(products.sum()),
  )


def _shared(one: np.ndarray, other: np.ndarray) -> float:
  """The mean share of ids [N, k] that both have."""
  return float(np.mean([len(np.intersect1d(*pair)) for pair in zip(one, other)]) / one.shape[1])


def _cka(one: _Rows, other: _Rows, unbiased: bool) -> float:
  hsic = _unbiased_hsic if unbiased else _hsic
  return float(hsic(one, other) / (np.sqrt(hsic(one, one) * hsic(other, other)) + _EPS))


def _hsic(one: _Rows, other: _Rows) -> float:
  """The sum of both products, the first centred by rows and columns."""
  count = len(one.sums)
  inner = np.vdot(one.products, other.products)
  return float(inner - 2 * one.sums @ other.sums / count + one.total * other.total / count**2)


def _unbiased_hsic(one: _Rows, other: _Rows) -> float:
  """Of products without their diagonals."""
  count = len(one.sums)
  inner = np.vdot(one.products, other.products) - one.own @ other.own
  sums, totals = (one.sums - one.own) @ (other.sums - other.own), [of.total - of.own.sum() for of in (one, other)]
  found = inner + totals[0] * totals[1] / ((count - 1) * (count - 2)) - 2 * sums / (count - 2)
  return float(found / (count * (count - 3)))


def modality_gap(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
  """How far two modalities lie apart, of pairs of unit rows.

  `gap`: the distance of their means. `linear_separability`: the share that the plane between the means tells apart,
  ties against it. `alignment`: the mean squared distance of pairs. `uniformity_one`, `uniformity_other`: the log of the
  mean of exp(-2 |x - y|^2) over pairs of different rows. `cosine_of_pairs`, `cosine_of_others`: the means.

  Args:
    one, other: float [N, D], two or more; the i-th of both belong together.
  """
  _check(one, other)
  if len(one) < 2:
    raise UserError(f"modality_gap: {len(one)} pair; give two or more")
  one, other = (np.asarray(rows, np.float64) for rows in (one, other))
  one, other = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (one, other))
  means = one.mean(axis=0), other.mean(axis=0)
  across = means[0] - means[1]
  threshold = (means[0] + means[1]) @ across / 2
  told = np.concatenate([one @ across > threshold, other @ across < threshold])
  cosines = one @ other.T
  count = len(one)
  return {
    "gap": float(np.linalg.norm(across)),
    "linear_separability": float(told.mean()),
    "alignment": float(((one - other) ** 2).sum(axis=1).mean()),
    "uniformity_one": _uniformity(one),
    "uniformity_other": _uniformity(other),
    "cosine_of_pairs": float(np.trace(cosines) / count),
    "cosine_of_others": float((cosines.sum() - np.trace(cosines)) / (count * (count - 1))),
  }


def _uniformity(rows: np.ndarray) -> float:
  count = len(rows)
  distances = np.maximum(2 - 2 * rows @ rows.T, 0)
  total = np.exp(-2 * distances).sum() - np.exp(-2 * np.diag(distances)).sum()
  return float(np.log(total / (count * (count - 1))))


def _check_k(k: int, count: int) -> None:
  if not 0 < k < count:
    raise UserError(f"mutual_knn.k: {k} of {count} things; give 1 or more, and fewer than there are things")


def _check(one: np.ndarray, other: np.ndarray) -> None:
  if len(one) != len(other):
    raise UserError(
      f"alignment: {len(one)} and {len(other)} things; give features of the same things in the same order"
    )
