"""Multi-label tagging: mean average precision of one-vs-rest ridge regression on features.

Protocol `ridge-l2-v1`. Features are standardised and tags centred by the training part;
the loss is the mean squared error plus l2 * |W|^2, solved exactly for all tags and all
strengths from one eigendecomposition. The strength is the one of the highest macro mAP on a
held-out fifth of the training concepts, the stronger of equals; the fit is then made again
on all of them. Tags that no test image has have no average precision: they are left out of
macro and micro, and counted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet, nodes_of, task_of
from mmcontrast.evaluation.labelled import gather, held_out_concepts, tested

PROTOCOL = "ridge-l2-v1"
L2_GRID = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)


@dataclasses.dataclass(frozen=True)
class Tagger:
  """A fitted linear tagger. `mean`, `scale` float32 [F]; `weight` [F, T]; `bias` [T]."""

  mean: np.ndarray
  scale: np.ndarray
  weight: np.ndarray
  bias: np.ndarray
  l2: float
  protocol: str = PROTOCOL

  def score(self, features: np.ndarray) -> np.ndarray:
    """float [N, F] -> [N, T], higher for likelier tags."""
    return (features - self.mean) / self.scale @ self.weight + self.bias


def average_precision(tags: np.ndarray, scores: np.ndarray) -> np.ndarray:
  """Average precision of each column, ties taken together, as scikit-learn defines it.

  Args:
    tags: bool or 0/1 [N, T]; scores: float [N, T].

  Returns:
    float64 [T], NaN for a column without a positive.
  """
  tags, scores = np.asarray(tags, bool).T, np.ascontiguousarray(np.asarray(scores).T)
  order = np.argsort(-scores, axis=1)
  hit = np.take_along_axis(tags, order, axis=1)
  ordered = np.take_along_axis(scores, order, axis=1)
  # The threshold that lets a row in lets in all of its ties: precision is read at the last.
  last = np.ones_like(hit)
  last[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
  places = np.where(last, np.arange(hit.shape[1]), hit.shape[1])
  end = np.minimum.accumulate(places[:, ::-1], axis=1)[:, ::-1]
  precision = np.take_along_axis(np.cumsum(hit, axis=1), end, axis=1) / (end + 1)
  positives = hit.sum(axis=1)
  with np.errstate(invalid="ignore"):
    return np.where(positives > 0, (precision * hit).sum(axis=1) / positives, np.nan)


def mean_average_precision(tags: np.ndarray, scores: np.ndarray) -> dict[str, float]:
  """Macro mAP (mean over tags), micro mAP (all tags as one), tags counted and left out.

  Args:
    tags: 0/1 [N, T]; scores: float [N, T], comparable between tags for micro.

  Raises:
    UserError: when no tag has a positive.
  """
  tags, scores = np.asarray(tags, bool), np.asarray(scores)
  present = tags.any(axis=0)
  if not present.any():
    raise UserError(f"tagging: none of the {tags.shape[1]} tags occurs in the test part")
  tags, scores = tags[:, present], scores[:, present]
  return {
    "map_macro": float(average_precision(tags, scores).mean()),
    "map_micro": float(average_precision(tags.reshape(-1, 1), scores.reshape(-1, 1))[0]),
    "tags": float(present.sum()),
    "tags_left_out": float((~present).sum()),
  }


def fit(
  features: np.ndarray,
  tags: np.ndarray,
  concept: np.ndarray | None = None,
  *,
  l2_grid: Sequence[float] = L2_GRID,
  seed: int = 0,
) -> Tagger:
  """Fits a tagger, L2 chosen on a held-out part.

  Args:
    features: float [N, F]; tags: 0/1 [N, T].
    concept: int [N], rows of one concept are held out together; default each row its own.
    l2_grid: strengths to try.
    seed: of the held-out part.

  Raises:
    UserError: when no training example has a tag, or an l2 is not positive.
  """
  if not np.any(tags):
    raise UserError("tagging: no training example has a tag, there is nothing to learn")
  grid = sorted(l2_grid, reverse=True)
  if not grid or grid[-1] <= 0:
    raise UserError(f"tagging.l2_grid: {tuple(l2_grid)} must be positive numbers")
  held_out = held_out_concepts(np.arange(len(tags)) if concept is None else concept, seed=seed)
  best, present = grid[0], np.any(tags[held_out], axis=0)
  if len(grid) > 1 and present.any():
    path = _path(features[~held_out], tags[~held_out][:, present], grid)
    truth = tags[held_out][:, present]
    best = max(path, key=lambda t: average_precision(truth, t.score(features[held_out])).mean()).l2
  return _path(features, tags, [best])[0]


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  l2_grid: Sequence[float] = L2_GRID,
  test_splits: Sequence[str] = ("validation", "test"),
  node: str | Sequence[str] = "",
) -> dict[str, dict[str, float]]:
  """mAP (fractions) on held-out concepts of each set, of one tagger on the seen sets. `node`: see
  embedded_set.nodes_of."""
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for of in nodes_of(node):
    train = gather(bank, "tags", ("train",), "tagging", node=of)
    tagger = fit(train.features, train.target, train.concept, l2_grid=l2_grid)
    for test in tests:
      query = tested(test, "tags", test_splits, "tagging", bank, train, of)
      found = mean_average_precision(query.target, tagger.score(query.features))
      out[test.name] |= {f"{task_of('tagging', of)}/{k}": v for k, v in (found | {"l2": tagger.l2}).items()}
  return out


def _path(features: np.ndarray, tags: np.ndarray, l2s: Sequence[float]) -> list[Tagger]:
  """One tagger per strength. On one thread, for the reason given in the linear probe."""
  from threadpoolctl import threadpool_limits

  mean = features.mean(axis=0)
  scale = np.maximum(features.std(axis=0), 1e-6)
  x = ((features - mean) / scale).astype(np.float64)
  bias = tags.mean(axis=0, dtype=np.float64)
  with threadpool_limits(1):
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    target = vectors.T @ (x.T @ (tags - bias) / len(x))
  values = np.maximum(values, 0)[:, None]
  return [Tagger(mean, scale, vectors @ (target / (values + l2)), bias, float(l2)) for l2 in l2s]
