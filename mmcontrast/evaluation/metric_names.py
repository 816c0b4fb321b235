"""The names of the results of an evaluation, before there is one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmcontrast.evaluation import baselines, knn, linear_probe, retrieval, zero_shot
from mmcontrast.evaluation.embedded_set import labels_of
from mmcontrast.evaluation.suite import EVALUATORS

_RETRIEVAL = (*(f"recall@{k}" for k in retrieval.RECALL_AT), "median_rank", "queries", "candidates")
_TAGGING = ("map_macro", "map_micro", "tags", "tags_left_out", "l2")

_PROBE = ("accuracy", "mean_per_class", "classes")

# (options, defaults included, label -> its classes) -> the metrics of one set
_METRICS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Sequence[str]]], list[str]]] = {
  "retrieval": lambda options, classes: [f"{way}/{name}" for way in ("image_to_text", "text_to_image")
                                         for name in _RETRIEVAL],
  "zero_shot": lambda options, classes: [f"zero_shot/{label}_top{k}" for label in _labels(options, zero_shot, classes)
                                         for k in (1, 5) if k == 1 or len(classes.get(label, range(6))) > k],
  "knn": lambda options, classes: [f"knn/{label}_{metric}" for label in _labels(options, knn, classes)
                                   for metric in (_PROBE if label != "concept" else _PROBE[:1])],
  "linear_probe": lambda options, classes: [f"linear_probe/{label}_{kind}"
                                            for label in _labels(options, linear_probe, classes)
                                            for kind in (*_PROBE, "l2")],
  "tagging": lambda options, classes: [f"tagging/{name}" for name in _TAGGING],
}  # fmt: skip


def metric_names(
  config: Mapping[str, Any], classes: Callable[[str], Mapping[str, Sequence[str]]], joined: Sequence[str] = ()
) -> list[str]:
  """The names that `suite.run_suite` gives its results.

  Args:
    config: `config.evaluation`.
    classes: name of a set -> label -> the names of its classes.
    joined: names of the terms whose keys are joined (joined.py).
  """
  sets = (config["sets"],) if isinstance(config["sets"], str) else tuple(config["sets"])
  names = []
  for evaluator, given in config["evaluators"].items():
    options = {name: one.default for name, one in inspect.signature(EVALUATORS[evaluator]).parameters.items()}
    options |= given or {}
    ways = [f"{term}_{way}" for term in joined for way in ("query_to_keys", "keys_to_query")]
    more = [f"{way}/{metric}" for way in ways for metric in _RETRIEVAL] if evaluator == "retrieval" else []
    names += [
      f"{one}/{baselines.named(metric, baseline)}"
      for one in options.get("sets", sets)
      for baseline in (None, *baselines.names(options))
      for metric in (*_METRICS[evaluator](options, classes(one)), *more)
    ]
  return names


def _labels(options: Mapping[str, Any], evaluator: Any, classes: Mapping[str, Sequence[str]]) -> list[str]:
  return labels_of(options["label"], evaluator.USUAL_LABEL, classes)
