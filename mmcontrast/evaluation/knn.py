"""Weighted k-nearest-neighbour classification, without training.

Each of the k nearest things of the bank, by cosine, votes for its class with the weight
exp(cosine / 0.07) (Wu et al., arXiv 1805.01978; DINO's `eval_knn.py`).

For a class label the bank is the train-split images of the sets that probes train on and the
queries are the images of the other splits of each set. For `label="concept"` the bank is all
images of the *other* such sets and the queries are all images whose concept (id) is among them:
the same thing, drawn by another hand. A query whose very pixels are in the bank is left out, and
a line says how many are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation import nearest
from mmcontrast.evaluation.embed import row_chunks, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of, nodes_of, task_of
from mmcontrast.evaluation.labelled import Labelled, accuracies, concepts, gather, leave_out, tested

USUAL_LABEL = "subgroup"  # the emoji's; without it every label of the data


def classify(
  queries: np.ndarray, bank: np.ndarray, bank_labels: np.ndarray, *, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
  """Class of each query; of classes with equal votes the lowest number.

  Args:
    queries: float [Q, D]; bank: float [N, D].
    bank_labels: int [N], 0 or more.
    k: neighbours, at most N of them.
    temperature: of the weights exp(cosine / temperature).

  Returns:
    int [Q].

  Raises:
    UserError: for an empty bank, k < 1 or temperature <= 0.
  """
  if not len(bank):
    raise UserError("knn: the bank is empty; no image has the label and the split that were asked for")
  if k < 1 or temperature <= 0:
    raise UserError(f"knn: k={k} and temperature={temperature} must be positive")
  queries, bank, bank_labels = unit(queries), unit(bank), np.asarray(bank_labels)
  k, classes = min(k, len(bank)), int(bank_labels.max()) + 1
  out = np.empty(len(queries), np.int64)
  near = nearest.of_each(queries, bank, k)
  for rows in row_chunks(len(queries), max(classes, k)):
    cosine, count = near.cosine[rows].astype(np.float64), rows.stop - rows.start
    weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / temperature)
    cell = np.arange(count)[:, None] * classes + bank_labels[near.index[rows]]
    votes = np.bincount(cell.ravel(), weight.ravel(), minlength=count * classes)
    out[rows] = votes.reshape(count, classes).argmax(axis=1)
  return out


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] | None = None,
  k: int = 20,
  temperature: float = 0.07,
  test_splits: Sequence[str] = ("validation", "test"),
  node: str | Sequence[str] = "",
) -> dict[str, dict[str, float]]:
  """Accuracy (fraction) of weighted k-NN on the features of a node, per set and label; of a label per class too.

  `node`: see embedded_set.nodes_of.
  """
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for of in nodes_of(node):
    for name in labels_of(label, USUAL_LABEL, bank[0].data.label_names):
      for test in tests:
        if name == "concept":
          near, query = _other_hands(test, bank, of)
        else:
          near = gather(bank, name, ("train",), "knn.label", node=of)
          query = tested(test, name, test_splits, "knn.label", bank, near, of)
        names, numbers = np.unique(near.target, return_inverse=True)
        guess = names[classify(query.features, near.features, numbers, k=k, temperature=temperature)]
        found = accuracies(guess, query.target)
        wanted = ("accuracy",) if name == "concept" else found
        out[test.name] |= {f"{task_of('knn', of)}/{name}_{metric}": found[metric] for metric in wanted}
  return out


def _other_hands(test: EmbeddedSet, bank: Sequence[EmbeddedSet], node: str) -> tuple[Labelled, Labelled]:
  """All things of the other sets of the bank, and those of `test` whose concept is there."""
  others = [one for one in bank if one.name != test.name]
  if not others:
    raise UserError(f"knn.label: 'concept' needs a training set other than {test.name!r}; leave it out")
  known = np.unique(np.concatenate([concepts(one, one.things_of(node, "knn.node")) for one in others]))
  if not np.isin(concepts(test, test.things_of(node, "knn.node")), known).any():
    raise UserError(
      f"knn.label: {test.name!r} shares no concept with the other training sets; ids of different data "
      "match only where data.source.id names a column of them"
    )
  near = gather(others, "concept", None, "knn.label", node=node)
  query = gather([test], "concept", None, "knn.label", node=node)
  query = query.only(np.isin(query.target, near.target))
  return near, leave_out(query, near, test, "knn.label", node)
