"""The names of the results of an evaluation, before there is one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmcontrast.evaluation import (
  alignment,
  baselines,
  captioning,
  knn,
  linear_probe,
  masked_words,
  retrieval,
  robustness,
  similarity,
  tags_by_text,
  zero_shot,
)
from mmcontrast.evaluation.adaptation import (
  attribute_insertion,
  base_to_new,
  counterfactual,
  cross_version,
  entity_linking,
  properties,
  text_transfer,
)
from mmcontrast.evaluation.embed import way_of
from mmcontrast.evaluation.embedded_set import labels_of, nodes_of, task_of
from mmcontrast.evaluation.protocols import CLIP_BENCHMARK, OURS, names_of
from mmcontrast.evaluation.protocols.clip_benchmark import RECALL_AT
from mmcontrast.evaluation.suite import EVALUATORS

if TYPE_CHECKING:
  from mmcontrast.evaluation.joined import JoinedTerm

_RETRIEVAL = (*(f"recall@{k}" for k in retrieval.RECALL_AT), "median_rank", "queries", "candidates")
_TAGGING = ("map_macro", "map_micro", "tags", "tags_left_out", "l2")
_PROBE = ("accuracy", "mean_per_class", "classes")

Classes = Mapping[str, Sequence[str]]
"""Label -> the names of its classes."""
Ways = Callable[[str], Sequence[tuple[str, str]]]
"""Name of a set -> (query, gallery) of the modalities that are compared in it."""


def metric_names(
  config: Mapping[str, Any],
  classes: Callable[[str], Classes],
  joined: Sequence[JoinedTerm] = (),
  ways: Ways = lambda name: (("image", "text"), ("text", "image")),
  probed: str = "",
  matches: Mapping[str, tuple[str, ...]] | None = None,
) -> list[str]:
  """The names that `suite.run_suite` gives its results.

  Args:
    config: `config.evaluation`.
    classes: name of a set -> label -> the names of its classes.
    joined: the terms whose keys are joined.
    ways: of each set; see `Space.ways`.
    probed: the modality that zero-shot classifies where nobody says which.
    matches: of `Space`.
  """
  sets = (config["sets"],) if isinstance(config["sets"], str) else tuple(config["sets"])
  names = []
  for evaluator, given in config["evaluators"].items():
    first = tuple((given or {}).get("sets", sets))[:1]
    options = {name: one.default for name, one in inspect.signature(EVALUATORS[evaluator]).parameters.items()}
    options |= {
      **(given or {}),
      "ways": ways,
      "joined": joined,
      "probed": probed,
      "matches": matches or {},
      "first": first,
    }
    names += [
      f"{one}/{baselines.named(metric, baseline)}"
      for one in options.get("sets", sets)
      for baseline in (None, *baselines.names(options))
      for metric in _METRICS[evaluator](one, options | ({"match": ""} if baseline else {}), classes(one))
    ]
  return names


def _of_retrieval(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  wanted = options["directions"]
  every = [wanted] if isinstance(wanted, str) else list(wanted) or [way_of(*way) for way in options["ways"](name)]
  pairs = list(every)
  if head := options["match"]:
    pair = options["matches"].get(head, ())
    every += [f"{way}_by_{head}" for way in every if way in (way_of(*pair), way_of(*pair[::-1]))]
  every += [way_of(*way) for pair in retrieval.pairs_of(options["nodes"]) for way in (pair, pair[::-1])]
  every += [way for term in options["joined"] for way in term.ways]
  protocols = names_of(options["protocol"])
  every = every if OURS in protocols else [way for way in every if way not in pairs]
  names = [f"{way}/{metric}" for way in every for metric in _RETRIEVAL]
  if CLIP_BENCHMARK in protocols:
    names += [f"{way}_by_{CLIP_BENCHMARK}/recall@{k}" for way in pairs for k in RECALL_AT]
  return names


def _of_zero_shot(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  wanted = [options["of"]] if isinstance(options["of"], str) else list(options["of"]) or [""]
  names = []
  for modality in wanted:
    task = task_of("zero_shot", "" if modality == options["probed"] else modality)
    for label in labels_of(options["label"], zero_shot.USUAL_LABEL, classes):
      count = len(classes.get(label, range(6)))
      for protocol in names_of(options["protocol"]):
        if protocol == OURS:
          names += [f"{task}/{label}_top{k}" for k in (1, 5) if k == 1 or count > k]
        else:
          metrics = ("acc1", *(("acc5",) if count >= 5 else ()), "mean_per_class_recall")
          names += [f"{task}_by_{protocol}/{label}_{metric}" for metric in metrics]
  return names


def _of_knn(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  return [
    f"{task_of('knn', node)}/{label}_{metric}"
    for node in nodes_of(options["node"])
    for label in labels_of(options["label"], knn.USUAL_LABEL, classes)
    for metric in (_PROBE if label != "concept" else _PROBE[:1])
  ]


def _of_linear_probe(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  return [
    f"{task_of('linear_probe', node)}/{label}_{metric}"
    for node in nodes_of(options["node"])
    for label in labels_of(options["label"], linear_probe.USUAL_LABEL, classes)
    for metric in (*_PROBE, "l2")
  ]


def _of_base_to_new(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  methods = [options["method"]] if isinstance(options["method"], str) else list(options["method"])
  return [
    f"{base_to_new.WHERE}/{label}_{method}_{part}"
    for label in labels_of(options["label"], base_to_new.USUAL_LABEL, classes)
    for method in ("zero_shot", *methods)
    for part in base_to_new.PARTS
  ]


def _of_text_transfer(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  labels = labels_of(options["label"], text_transfer.USUAL_LABEL, classes)
  return [f"{text_transfer.WHERE}/{label}_{metric}" for label in labels for metric in text_transfer.METRICS]


def _of_tagging(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  return [f"{task_of('tagging', node)}/{metric}" for node in nodes_of(options["node"]) for metric in _TAGGING]


def _of_similarity(name: str, options: Mapping[str, Any], classes: Classes) -> list[str]:
  here = not options["file"] or name in options["first"]  # a file is of the first set
  return [f"text_similarity/{metric}" for metric in similarity.METRICS] if here else []


# (name of a set, options, defaults included, its classes) -> the metrics of the set
_METRICS = {
  "retrieval": _of_retrieval,
  "zero_shot": _of_zero_shot,
  "knn": _of_knn,
  "linear_probe": _of_linear_probe,
  "tagging": _of_tagging,
  "similarity": _of_similarity,
  "captioning": lambda *_: [f"captioning/{metric}" for metric in captioning.METRICS],
  "perplexity": lambda *_: [f"perplexity/{metric}" for metric in captioning.PERPLEXITY],
  "base_to_new": _of_base_to_new,
  "text_transfer": _of_text_transfer,
  "counterfactual": lambda *_: [f"{counterfactual.WHERE}/{metric}" for metric in counterfactual.METRICS],
  "entity_linking": lambda *_: [f"{entity_linking.WHERE}/{metric}" for metric in entity_linking.METRICS],
  "properties": lambda name, options, classes: properties.metric_names(options["changes"]),
  "attribute_insertion": lambda *_: [f"{attribute_insertion.WHERE}/{one}" for one in attribute_insertion.METRICS],
  "cross_version": lambda name, options, classes: cross_version.metric_names(options, _RETRIEVAL),
  "alignment": lambda name, options, classes: [
    f"{task(pair)}/{metric}"
    for key, task, metrics in (
      ("nodes", alignment.task_of_nodes, alignment.METRICS),
      ("layers", alignment.task_of_layers, alignment.LAYERS),
    )
    for pair in retrieval.pairs_of(options[key])
    for metric in metrics
  ],
  "modality_gap": lambda name, options, classes: [
    f"modality_gap_of_{way_of(*way)}/{metric}" for way in list(options["ways"](name))[::2] for metric in alignment.GAP
  ],
  "tags_by_text": lambda *_: [f"tags_by_text/{metric}" for metric in tags_by_text.METRICS],
  "robustness": lambda name, options, classes: [
    f"robustness/{label}_{metric}"
    for label in labels_of(options["label"], robustness.USUAL_LABEL, classes)
    for metric in ("clean", *names_of(options["corruptions"]), "corrupted")
  ],
  "masked_words": lambda *_: [f"masked_words/{metric}" for metric in masked_words.METRICS],
}
