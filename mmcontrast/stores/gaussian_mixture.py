"""How many clusters there are: splits and merges of clusters, judged by how likely their rows are as Gaussians.

As in GPC (Zhao et al. 2023, "Learning semi-supervised Gaussian mixture models for generalized category discovery",
arXiv:2305.06144), with the prior and the ratios of DTennant/GPC@e9716f4. Pure functions of NumPy arrays in double
precision, for use between epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SMALLEST = 5
"""Clusters of so many rows, or parts of so many, are never split."""


class Prior(NamedTuple):
  """A normal-inverse-Wishart prior of the mean and the covariance of a cluster.

  Attributes:
    mean: [D], where means are expected.
    spread: psi is this number times the identity.
    kappa: how many rows `mean` is worth.
    nu: how many rows psi is worth, D + 2 or more.
  """

  mean: np.ndarray
  spread: float = 0.005
  kappa: float = 1e-4
  nu: float = 0.0


def prior_of(rows: np.ndarray) -> Prior:
  """The prior that GPC takes of all rows [N, D]: their mean, and D + 2 degrees of freedom."""
  return Prior(rows.mean(0), nu=rows.shape[1] + 2.0)


def posterior_mean(rows: np.ndarray, prior: Prior) -> np.ndarray:
  """[D]: where the mean of rows [N, D] is expected after they are seen; the prior's where there are none."""
  return (rows.sum(0) + prior.kappa * prior.mean) / (len(rows) + prior.kappa)


def log_marginal(rows: np.ndarray, prior: Prior) -> float:
  """The logarithm of how likely rows [N, D] are as one Gaussian; 0 of none."""
  count, dim = rows.shape
  if not count:
    return 0.0
  centre = posterior_mean(rows, prior)
  away, shift = rows - centre, (centre - prior.mean)[:, None]
  weight = prior.kappa * count / (prior.kappa + count)
  psi = prior.spread * np.eye(dim) + away.T @ away + weight * shift @ shift.T
  nu = prior.nu + count
  return float(
    -count * dim / 2 * math.log(math.pi)
    + _log_gamma(nu / 2, dim) - _log_gamma(prior.nu / 2, dim)
    + prior.nu / 2 * dim * math.log(prior.spread) - nu / 2 * np.linalg.slogdet(psi)[1]
    + dim / 2 * (math.log(prior.kappa) - math.log(prior.kappa + count))
  )  # fmt: skip


def _log_gamma(a: float, dim: int) -> float:
  """The logarithm of the multivariate gamma function."""
  return dim * (dim - 1) / 4 * math.log(math.pi) + sum(math.lgamma(a - j / 2) for j in range(dim))


def log_split_ratio(one: np.ndarray, other: np.ndarray, prior: Prior, alpha: float = 1.0) -> float:
  """The logarithm of the Hastings ratio of splitting the rows of both into the two; above 0 a split is better, below 0
  a merge.

  Args:
    one, other: [N, D].
    alpha: concentration of the Dirichlet process: how readily there are more clusters.
  """
  sizes = [math.lgamma(len(rows)) if len(rows) else 0.0 for rows in (one, other)]
  apart = sizes[0] + log_marginal(one, prior) + sizes[1] + log_marginal(other, prior)
  both = np.concatenate([one, other])
  return math.log(alpha) + apart - (math.lgamma(len(both)) if len(both) else 0.0) - log_marginal(both, prior)


def two_parts(rows: np.ndarray, draws: np.random.Generator, iterations: int = 20) -> np.ndarray:
  """bool [N]: which of two clusters each row of [N, D] is in, by k-means from two drawn rows."""
  first = rows[draws.integers(len(rows))]
  away = ((rows - first) ** 2).sum(1)
  second = rows[draws.choice(len(rows), p=away / away.sum())] if away.any() else first
  centres = np.stack([first, second])
  for _ in range(iterations):
    part = ((rows - centres[1]) ** 2).sum(1) < ((rows - centres[0]) ** 2).sum(1)
    centres = np.stack([rows[side].mean(0) if side.any() else old for side, old in zip((~part, part), centres)])
  return part


class Changed(NamedTuple):
  """The clusters after a round of splits and merges: those that stayed, in their order, then what became of others.

  Attributes:
    members: of each, the indices of its rows.
    old: of each, a cluster that its rows were in before; where it has none, its centroid stays.
    splits, merges: how many there were.
  """

  members: list[np.ndarray]
  old: list[int]
  splits: int
  merges: int


def split_and_merge(
  rows: np.ndarray, assignments: np.ndarray, centroids: np.ndarray, fixed: Sequence[int], most: int, *,
  draws: np.random.Generator, chance: float = 0.1,
) -> Changed:  # fmt: skip
  """One round: every free cluster is split if its two halves are likelier apart, or else merged with the nearest free
  cluster that is not split, if both are likelier together; either also happens with probability `chance`.

  Each cluster is changed once at most, and the likeliest changes come first, while there is room.

  Args:
    rows: float64 [N, D]. assignments: int [N], -1 of rows that do not count. centroids: [K, D].
    fixed: clusters that stay as they are: those of known classes.
    most: how many clusters there may be.
  """
  prior = prior_of(rows[assignments >= 0])
  members = [np.flatnonzero(assignments == cluster) for cluster in range(len(centroids))]
  free = [cluster for cluster in range(len(centroids)) if cluster not in set(fixed)]
  halves, ratios = {}, {}
  for cluster in free:
    coin, inside = draws.random(), members[cluster]
    if len(inside) <= SMALLEST:
      continue
    part = two_parts(rows[inside], draws)
    if min(part.sum(), (~part).sum()) <= SMALLEST:
      continue
    ratio = log_split_ratio(rows[inside[~part]], rows[inside[part]], prior)
    if ratio > 0 or coin < chance:
      halves[cluster], ratios[cluster] = (inside[~part], inside[part]), ratio
  room = most - len(centroids)
  split = sorted(halves, key=lambda cluster: -ratios[cluster])[: max(room, 0)]
  left, candidates = [cluster for cluster in free if cluster not in split], []
  for cluster in left if len(left) > 1 else ():
    coin, others = draws.random(), [other for other in left if other != cluster]
    away = ((centroids[others] - centroids[cluster]) ** 2).sum(1)
    other = others[int(np.argmin(away))]
    ratio = -log_split_ratio(rows[members[cluster]], rows[members[other]], prior)
    if ratio > 0 or coin < chance:
      candidates.append((-ratio, cluster, other))
  merged: dict[int, int] = {}
  for _, cluster, other in sorted(candidates):
    if not {cluster, other} & {*merged, *merged.values()}:
      merged[cluster] = other
  gone = {*split, *merged, *merged.values()}
  new = [(members[cluster], cluster) for cluster in range(len(centroids)) if cluster not in gone]
  new += [(part, cluster) for cluster in split for part in halves[cluster]]
  new += [(np.concatenate([members[cluster], members[other]]), cluster) for cluster, other in merged.items()]
  return Changed([part for part, _ in new], [old for _, old in new], len(split), len(merged))


def principal_axes(rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """(the mean [D] of rows [N, D], and the directions [D, count] of their largest variance)."""
  mean = rows.mean(0)
  _, directions = np.linalg.eigh((rows - mean).T @ (rows - mean))  # by variance, from the smallest
  return mean, directions[:, ::-1][:, :count]
