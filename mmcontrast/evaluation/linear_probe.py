"""Linear probe: logistic regression on frozen features, L2 chosen inside the training part.

Protocol `lbfgs-l2-v1`. Features are standardised by the training part. The loss is the mean
cross entropy plus l2 / 2 * |W|^2 (the bias is free). Of a grid of l2 the one of the highest
accuracy on a held-out fifth of the training concepts is taken, the stronger of equals; then
it is fitted again on all of them. The test part is looked at once, and holds no image that is
trained on. Chosen on a grid because the best strength depends on the scale and width of the
features. The classes are those of the training part; one that the test part lacks has no share
in the mean per class.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of, nodes_of, task_of
from mmcontrast.evaluation.labelled import accuracies, gather, held_out_concepts, tested

USUAL_LABEL = "group"  # the emoji's; without it every label of the data
PROTOCOL = "lbfgs-l2-v1"
LARGE = 2**23  # numbers, from which on several threads gain
L2_GRID = (10.0, 1.0, 0.1, 0.01, 0.001)


@dataclasses.dataclass(frozen=True)
class LinearProbe:
  """A fitted probe. `mean`, `scale` float32 [F]; `weight` [F, K], `bias` [K]; `classes` [K]."""

  mean: np.ndarray
  scale: np.ndarray
  weight: np.ndarray
  bias: np.ndarray
  classes: np.ndarray
  l2: float
  protocol: str = PROTOCOL

  def predict(self, features: np.ndarray) -> np.ndarray:
    """float [N, F] -> the label of each row [N]."""
    scores = (features - self.mean) / self.scale @ self.weight + self.bias
    return self.classes[scores.argmax(axis=1)]

  def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of rows whose label is predicted."""
    return float(np.mean(self.predict(features) == labels))


def fit(
  features: np.ndarray,
  labels: np.ndarray,
  concept: np.ndarray | None = None,
  *,
  l2_grid: Sequence[float] = L2_GRID,
  steps: int = 200,
  seed: int = 0,
) -> LinearProbe:
  """Fits a probe, L2 chosen on a held-out part.

  Args:
    features: float [N, F]; labels: int [N].
    concept: int [N], rows of one concept are held out together; default each row its own.
    l2_grid: strengths to try.
    steps: most iterations of L-BFGS a fit.
    seed: of the held-out part.

  Raises:
    UserError: when there is one class only, or an l2 is not positive.
  """
  labels = np.asarray(labels)
  if len(np.unique(labels)) < 2:
    raise UserError("linear_probe: the training part has one class only, there is nothing to learn")
  grid = sorted(l2_grid, reverse=True)
  if not grid or grid[-1] <= 0:
    raise UserError(f"linear_probe.l2_grid: {tuple(l2_grid)} must be positive numbers")
  held_out = held_out_concepts(np.arange(len(labels)) if concept is None else concept, seed=seed)
  best = grid[0]
  if len(grid) > 1 and len(np.unique(labels[~held_out])) > 1:
    path = _path(features[~held_out], labels[~held_out], grid, steps)
    best = max(path, key=lambda probe: probe.accuracy(features[held_out], labels[held_out])).l2
  return _path(features, labels, [best], steps)[0]


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] | None = None,
  l2_grid: Sequence[float] = L2_GRID,
  steps: int = 200,
  test_splits: Sequence[str] = ("validation", "test"),
  node: str | Sequence[str] = "",
) -> dict[str, dict[str, float]]:
  """Accuracy (fraction), in all and per class, on held-out things of each set, of one probe on the seen sets.

  `node`: see embedded_set.nodes_of.
  """
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for of in nodes_of(node):
    for name in labels_of(label, USUAL_LABEL, bank[0].data.label_names):
      train = gather(bank, name, ("train",), "linear_probe.label", node=of)
      probe = fit(train.features, train.target, train.concept, l2_grid=l2_grid, steps=steps)
      for test in tests:
        query = tested(test, name, test_splits, "linear_probe.label", bank, train, of)
        found = accuracies(probe.predict(query.features), query.target) | {"l2": probe.l2}
        task = task_of("linear_probe", of)
        out[test.name] |= {f"{task}/{name}_{metric}": value for metric, value in found.items()}
  return out


def _path(features: np.ndarray, labels: np.ndarray, l2s: Sequence[float], steps: int) -> list[LinearProbe]:
  """One probe per strength, strongest first, each started from the one before."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.linear_model import LogisticRegression
  from threadpoolctl import threadpool_limits

  mean = features.mean(axis=0)
  scale = np.maximum(features.std(axis=0), 1e-6)
  x = features - mean
  x /= scale
  model = LogisticRegression(solver="lbfgs", warm_start=True, max_iter=steps)
  out = []
  for l2 in l2s:
    model.set_params(C=1.0 / (l2 * len(x)))
    # One thread where the products are small: waiting for a second one on a busy machine
    # takes ten times as long. Early stopping is part of the protocol.
    with threadpool_limits(1 if x.size < LARGE else None), warnings.catch_warnings():
      warnings.simplefilter("ignore", ConvergenceWarning)
      model.fit(x, labels)
    weight, bias = model.coef_.T.copy(), model.intercept_.copy()
    if weight.shape[1] == 1:  # two classes: one column of log odds
      weight, bias = np.hstack([-weight, weight]) / 2, np.hstack([-bias, bias]) / 2
    out.append(LinearProbe(mean, scale, weight, bias, model.classes_, float(l2)))
  return out
