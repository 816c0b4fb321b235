"""Linear SVMs on VOC 2007: the two public forms, which give two numbers of one file of features.

Of each of 20 classes a LinearSVC (squared hinge, L2, class weight 2 of what is shown), its cost chosen by the average
precision of 3-fold cross-validation on trainval, then fitted on all of it and tested on test. What is "difficult" is a
negative in training and left out of the test.

                     costs                                     features            average precision
  voc07-virtex       0.01, 0.1, 1, 10                          x / |x|             scikit-learn's, not interpolated
  voc07-vissl        0.01, 0.1, 1, 2, 5, 10, ..., 100, 1000    x / (|x| + 1e-5)    area under the monotone envelope

Sources: VirTex (arXiv:2006.06666), scripts/clf_voc07.py; VISSL (arXiv:1905.01235), svm_trainer.py and evaluate.py. Both
were written when LinearSVC's default was the dual problem, which is solved here too; the solver draws with seed 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.errors import UserError

FOLDS = 3


class Form(NamedTuple):
  """A form of the protocol: `costs` that are tried, `eps` beside the length of features, and the average precision."""

  costs: tuple[float, ...]
  eps: float
  average_precision: Callable[[np.ndarray, np.ndarray], float]


def envelope_average_precision(shown: np.ndarray, scores: np.ndarray) -> float:
  """Area under the precision that is made monotone, over recall; equal scores in the reverse of numpy's argsort.

  Args:
    shown: bool [N], at least one; scores: float [N].
  """
  order = np.argsort(scores)[::-1]
  hit = np.asarray(shown, bool)[order]
  precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
  recall = np.cumsum(hit) / hit.sum()
  best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
  return float((np.diff(recall, prepend=0.0) * best_from_here).sum())


def _sklearns(shown: np.ndarray, scores: np.ndarray) -> float:
  from sklearn.metrics import average_precision_score

  return float(average_precision_score(shown, scores))


FORMS = {
  "voc07-virtex": Form((0.01, 0.1, 1.0, 10.0), 0.0, _sklearns),
  "voc07-vissl": Form(
    (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0), 1e-5, envelope_average_precision
  ),
}


def check_targets(train_targets: np.ndarray, test_targets: np.ndarray, classes: Sequence[str], where: str) -> None:
  """Raises UserError, which begins with `where`, for a class that fewer than three pictures show in training, or fewer
  than three do not, or none in the test. Arguments as of `measure`."""
  for name, column, tested in zip(classes, train_targets.T, test_targets.T):
    shown = int((column == 1).sum())
    for count, words in ((shown, "show"), (len(column) - shown, "do not show")):
      if count < FOLDS:
        raise UserError(
          f"{where}: {count} training pictures {words} {name!r}; cross-validation needs {FOLDS}: add some, or leave "
          "the class out"
        )
    if not (tested == 1).any():
      raise UserError(
        f"{where}: no test picture shows {name!r}, so that it has no average precision; leave the class out"
      )


def measure(
  form: str,
  train: np.ndarray,
  train_targets: np.ndarray,
  test: np.ndarray,
  test_targets: np.ndarray,
  classes: Sequence[str],
) -> dict[str, float]:
  """`map`, the mean over classes; of each `ap_CLASS`, and `cost_CLASS`, the cost that was chosen.

  Args:
    form: of FORMS.
    train, test: float [N, F], features as they are.
    train_targets, test_targets: int [N, K]: 1 shown, 0 not, -1 difficult.
    classes: K names.
  Raises UserError as `check_targets`.
  """
  of = FORMS[form]
  check_targets(train_targets, test_targets, classes, form)
  train, test = (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + of.eps) for rows in (train, test))
  precisions, costs = [], []
  for column, tested in zip(train_targets.T, test_targets.T):
    labels = np.where(column == 1, 1, -1)
    cost, scores = _fitted(of, train, labels, test)
    kept = tested != -1
    precisions.append(of.average_precision(tested[kept] == 1, scores[kept]))
    costs.append(cost)
  out = {"map": float(np.mean(precisions))}
  out |= {f"ap_{name}": value for name, value in zip(classes, precisions)}
  return out | {f"cost_{name}": value for name, value in zip(classes, costs)}


def _fitted(of: Form, train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> tuple[float, np.ndarray]:
  """(the cost that was chosen, the first of equals; decision values of the test [N])."""
  from sklearn.exceptions import ConvergenceWarning
  from sklearn.model_selection import cross_val_score
  from sklearn.svm import LinearSVC
  from threadpoolctl import threadpool_limits

  made = [
    LinearSVC(C=cost, class_weight={1: 2, -1: 1}, loss="squared_hinge", dual=True, max_iter=2000, random_state=0)
    for cost in of.costs
  ]
  with threadpool_limits(1), warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # the number of iterations is part of the protocol
    found = [cross_val_score(one, train, labels, cv=FOLDS, scoring="average_precision").mean() for one in made]
    best = int(np.argmax(found))
    return of.costs[best], made[best].fit(train, labels).decision_function(test)
