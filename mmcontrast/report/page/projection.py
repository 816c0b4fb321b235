"""Embeddings in the plane, and how far apart the modalities lie."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np


def pca(rows: np.ndarray) -> np.ndarray:
  """The first two principal components, float64 [N, 2], of rows [N, D]; zeros where there is no second direction.

  A component's sign is that which makes its largest coordinate positive, so that the picture is the same every time.
  """
  centred = rows.astype(np.float64) - rows.mean(axis=0)
  values, vectors = np.linalg.eigh(centred.T @ centred)
  first = vectors[:, np.argsort(-values)[:2]]
  first *= np.where(np.take_along_axis(first, np.abs(first).argmax(axis=0)[None], axis=0) < 0, -1.0, 1.0)
  out = np.zeros((len(rows), 2))
  out[:, : first.shape[1]] = centred @ first
  return out


def has_umap() -> bool:
  """Whether the package umap-learn is installed."""
  return importlib.util.find_spec("umap") is not None


def umap(rows: np.ndarray, seed: int = 0) -> np.ndarray:
  """UMAP (McInnes et al., arXiv:1802.03426) of unit rows [N, D] by the cosine, float64 [N, 2]; needs umap-learn."""
  from umap import UMAP

  neighbours = max(2, min(15, len(rows) - 1))
  made = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1, init="pca" if len(rows) > 4 else
              "random").fit_transform(rows)  # fmt: skip
  return np.asarray(made, np.float64)


class Gap(NamedTuple):
  """How far two modalities lie apart in the joint space.

  distance: between the means of their unit rows (the modality gap of Liang et al., arXiv:2203.02053), from 0 to 2.
  matched: the mean cosine of a thing and another modality's thing of its concept. others: of all other pairs.
  """

  distance: float
  matched: float
  others: float


def gap(one: np.ndarray, other: np.ndarray, one_concept: np.ndarray, other_concept: np.ndarray) -> Gap:
  """The gap between unit rows [N, D] and [M, D], whose concepts are int [N] and [M]. `matched` is NaN where nothing
  shares a concept, `others` where everything does."""
  one, other = one.astype(np.float64), other.astype(np.float64)
  distance = float(np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)))
  # Sums of cosines over all pairs, and over those of a concept, are products of sums of rows.
  concepts, place = np.unique(np.concatenate([one_concept, other_concept]), return_inverse=True)
  sums = [np.zeros((len(concepts), one.shape[1])) for _ in range(2)]
  counts = []
  for total, rows, at in zip(sums, (one, other), (place[: len(one)], place[len(one) :])):
    np.add.at(total, at, rows)
    counts.append(np.bincount(at, minlength=len(concepts)))
  together, pairs = float(np.sum(sums[0] * sums[1])), float(np.sum(counts[0] * counts[1]))
  everything, of_all = float(one.sum(axis=0) @ other.sum(axis=0)), float(len(one) * len(other))
  with np.errstate(invalid="ignore", divide="ignore"):
    matched = float(np.float64(together) / pairs)
    others = float(np.float64(everything - together) / (of_all - pairs))
  return Gap(distance, matched, others)
