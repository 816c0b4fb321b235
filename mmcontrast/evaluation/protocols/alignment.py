"""How alike two sets of features of the same things are, by mutual nearest neighbours and CKA; the gap of modalities.

Mutual k-NN and CKA: Huh et al., "The Platonic Representation Hypothesis" (arXiv:2405.07987), metrics.py, whose numbers
these are (golden alignment_metrics, 1e-6). CKA: Kornblith et al. (arXiv:1905.00414), linear kernels; unbiased HSIC:
Song et al. 2012. Modality gap: Liang et al. (arXiv:2203.02053); alignment and uniformity: Wang and Isola
(arXiv:2005.10242).
"""

from __future__ import annotations

from collections.abc import Mapping

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


def mutual_knn(one: np.ndarray, other: np.ndarray, k: int = K) -> float:
  """The mean share of the k nearest of a thing by one set of features that are among its k nearest by the other, itself
  left out; nearest by the inner product, the first of equals.

  Args:
    one: float [N, D]; other: float [N, E], of the same things in the same order.
  Raises UserError where the numbers of things differ, or are not more than k.
  """
  _check(one, other)
  if not 0 < k < len(one):
    raise UserError(f"mutual_knn.k: {k} of {len(one)} things; give 1 or more, and fewer than there are things")
  return float(np.mean([len(np.intersect1d(*pair)) for pair in zip(nearest(one, k), nearest(other, k))]) / k)


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
  kernels = [np.asarray(rows, np.float64) @ np.asarray(rows, np.float64).T for rows in (one, other)]
  hsic = _unbiased_hsic if unbiased else _hsic
  both, *alone = hsic(*kernels), hsic(kernels[0], kernels[0]), hsic(kernels[1], kernels[1])
  return float(both / (np.sqrt(alone[0] * alone[1]) + _EPS))


def _hsic(one: np.ndarray, other: np.ndarray) -> float:
  centred = one - one.mean(axis=0) - one.mean(axis=1, keepdims=True) + one.mean()
  return float((centred * other.T).sum())


def _unbiased_hsic(one: np.ndarray, other: np.ndarray) -> float:
  count = len(one)
  if count < 4:
    raise UserError(f"cka: the unbiased estimate is of four things or more, and there are {count}")
  one, other = (kernel - np.diag(np.diag(kernel)) for kernel in (one, other))
  total = (one * other.T).sum() + one.sum() * other.sum() / ((count - 1) * (count - 2))
  return float((total - 2 * (one @ other).sum() / (count - 2)) / (count * (count - 3)))


def over_layers(
  ones: Mapping[str, np.ndarray], others: Mapping[str, np.ndarray], k: int = K
) -> dict[str, dict[str, float]]:
  """Every layer (or size) of one network with every one of another: "LAYER/LAYER" -> `mutual_knn`, `cka`,
  `unbiased_cka`; "best" -> the pair of the highest mutual k-NN, of `prepared` features.

  Args:
    ones, others: name -> float [N, D], of the same things.
  """
  out = {}
  rows = [{name: prepared(features) for name, features in of.items()} for of in (ones, others)]
  for name, one in rows[0].items():
    for also, other in rows[1].items():
      found = {"mutual_knn": mutual_knn(one, other, k), "cka": cka(one, other)}
      out[f"{name}/{also}"] = found | ({"unbiased_cka": cka(one, other, unbiased=True)} if len(one) > 3 else {})
  return out | {"best": max(out.values(), key=lambda found: found["mutual_knn"])}


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


def _check(one: np.ndarray, other: np.ndarray) -> None:
  if len(one) != len(other):
    raise UserError(
      f"alignment: {len(one)} and {len(other)} things; give features of the same things in the same order"
    )
