"""What a model made of each example of a set, and the metrics of it: of all examples, or of some that are drawn.

A metric is a function of how often each example counts, so that the same code gives the number and its bootstrap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.evaluation import bootstrap

Outcomes = Mapping[str, np.ndarray]
"""Arrays by name, kept in one file a set:
  of classes: label, pred int [N], acc1, acc5 bool [N];
  of several classes a picture: scores float32 [N, K], targets bool [N, K];
  of captions: image_of_text int [T]; image_retrieval_recall@k bool [T], text_retrieval_recall@k bool [N];
  of a caption among its edits: image_acc, text_acc, acc, edits bool [N];
  of several captions a picture, each among its edits: image_of_case int [T], edits bool [T];
  of captions in several languages: recall@1_LANGUAGE bool [N], mean_rank_variance float [N]."""

MRV, RECALL = "mean_rank_variance", "recall@1"
NO_SHARE = (MRV,)  # metrics that are no share of anything, and are not given per cent
F1, MEAN_RECALL = "F1-macro_all", "mean_recall@1"


def examples(outcomes: Outcomes) -> int:
  """How many things are drawn anew: images."""
  if "image_of_text" in outcomes:
    return len(next(value for name, value in outcomes.items() if name.startswith("text_retrieval")))
  if "image_of_case" in outcomes:
    return int(outcomes["image_of_case"].max()) + 1
  return len(next(iter(outcomes.values())))


def metrics(outcomes: Outcomes, counts: np.ndarray | None = None, only: Sequence[str] = ()) -> dict[str, float]:
  """The metrics of a set.

  Args:
    counts: int [N], how often each image counts; None: once each. A caption counts as often as its image.
    only: these; none: all.
  """
  counts = np.ones(examples(outcomes), np.int64) if counts is None else counts
  if "targets" in outcomes:
    return {"mean_average_precision": _mean_average_precision(outcomes, counts)}
  out = {}
  for name, hits in outcomes.items():
    if (hits.dtype == bool or name in NO_SHARE) and (not only or name in only):
      of = counts[outcomes["image_of_text"]] if name.startswith("image_retrieval") else counts
      of = counts[outcomes["image_of_case"]] if "image_of_case" in outcomes else of
      out[name] = float((hits * of).sum() / of.sum())
  if "image_of_text" in outcomes and (not only or MEAN_RECALL in only):
    both = [f"{one}_retrieval_recall@1" for one in ("image", "text")]
    out[MEAN_RECALL] = sum(metrics(outcomes, counts, both).values()) / 2
  languages = [name for name in outcomes if name.startswith(f"{RECALL}_")]
  if languages and (not only or RECALL in only):
    out[RECALL] = sum(metrics(outcomes, counts, languages).values()) / len(languages)
  if "label" in outcomes:
    if not only or "mean_per_class_recall" in only:
      out["mean_per_class_recall"] = _per_class(outcomes, counts)
    if not only or F1 in only:
      out[F1] = _f1(outcomes, counts)
  return out


def compared(one: Outcomes, other: Outcomes, draws: int = bootstrap.DRAWS, seed: int = 0) -> dict[str, list[float]]:
  """Metric -> [first minus second, low, high] of two models on the same examples: 95 % of a paired bootstrap."""
  out = {}
  for name in metrics(one):
    of = lambda counts, name=name: tuple(metrics(x, counts, (name,))[name] for x in (one, other))  # noqa: E731
    out[name] = list(bootstrap.paired(of, examples(one), draws, seed))
  return out


def _per_class(outcomes: Outcomes, counts: np.ndarray) -> float:
  label = outcomes["label"]
  each = np.bincount(label, counts)
  right = np.bincount(label, counts * (outcomes["pred"] == label))
  return float((right[each > 0] / each[each > 0]).mean())


def _f1(outcomes: Outcomes, counts: np.ndarray) -> float:
  """F1 of each class that has a picture, their mean: as scikit-learn's, over the classes that are there."""
  label, pred = outcomes["label"], outcomes["pred"]
  classes = max(label.max(), pred.max()) + 1
  there, said = (np.bincount(x, counts, classes) for x in (label, pred))
  both = np.bincount(label, counts * (pred == label), classes)
  return float((2 * both / np.maximum(there + said, 1))[there > 0].mean())


def _mean_average_precision(outcomes: Outcomes, counts: np.ndarray) -> float:
  scores, targets = outcomes["scores"], outcomes["targets"]
  order = np.argsort(-scores.astype(np.float64), axis=0, kind="stable")
  found = []
  for column in range(scores.shape[1]):
    truth = np.repeat(targets[order[:, column], column], counts[order[:, column]])
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    found.append((precision * truth).sum() / max(truth.sum(), 1))
  return float(np.mean(found))
