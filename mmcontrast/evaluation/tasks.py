"""What each number of an evaluation was measured by: the protocol of its evaluator, and what run and config chose.

Every evaluator has a protocol here, so that no number is written without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.evaluation import (
  alignment,
  class_names,
  linear_probe,
  protocols,
  robustness,
  tagging,
  tags_by_text,
  zero_shot,
)
from mmcontrast.evaluation.adaptation import base_to_new
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of

if TYPE_CHECKING:
  from mmcontrast.data.evaluation_set import EvaluationSet

PROTOCOL_OF = {
  "retrieval": protocols.OURS,
  "zero_shot": protocols.OURS,
  "knn": "weighted_knn-v1",
  "linear_probe": linear_probe.PROTOCOL,
  "tagging": tagging.PROTOCOL,
  "similarity": "sts-v1",
  "captioning": "captioning-v1",
  "perplexity": "perplexity-v1",
  "masked_words": "masked_words-v1",
  **alignment.PROTOCOLS,
  "tags_by_text": tags_by_text.PROTOCOL,
  "robustness": robustness.PROTOCOL,
  "base_to_new": "base_to_new-v1",
  "text_transfer": "text_transfer-v1",
  "cross_version": "cross_version-v1",
  "counterfactual": "counterfactual-v1",
  "properties": "properties-v1",
  "entity_linking": "entity_linking-v1",
  "attribute_insertion": "attribute_insertion-v1",
}
_USUAL_LABELS = {"zero_shot": zero_shot, "robustness": robustness, "base_to_new": base_to_new}
_SAID_ELSEWHERE = (  # in a digest, under another key, or by the name of the task
  "templates", "template", "names", "test_splits", "protocol", "label", "node", "nodes", "layers", "of", "directions",
)  # fmt: skip


class Task(NamedTuple):
  """What a task of the results is of: the evaluator, its options with their defaults, and the set."""

  evaluator: str
  options: Mapping[str, Any]
  test: EmbeddedSet


def described(tasks: Mapping[str, Task], config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """ "set/task" -> the protocol that it was measured by, as it is written beside the results; see protocols.described.

  Args:
    config: of the run, all of it.
  """
  return {name: _described(name, task, config) for name, task in tasks.items()}


def _described(name: str, task: Task, config: Mapping[str, Any]) -> dict[str, Any]:
  by, options, data = name.rpartition("_by_")[2], task.options, task.test.data
  facts: dict[str, Any] = {"split": "+".join(sorted({str(one) for one in data.split} - {""})) or None}
  facts |= _prompts(task)
  if options.get("file"):
    facts |= {"texts": protocols.digest(folders.at(options["file"], "file").read_text().splitlines())}
  if task.evaluator == "retrieval" and "text" in name.rpartition("/")[2]:
    facts |= {"captions_a_thing": _captions_a_thing(data)}
  if "test_splits" in options:
    facts |= {"tested_on": list(options["test_splits"])}
  facts |= {"options": _plain({key: of for key, of in options.items() if key not in _SAID_ELSEWHERE}) or None}
  return protocols.described(by if by in protocols.PROTOCOLS else PROTOCOL_OF[task.evaluator], config, **facts)


def _prompts(task: Task) -> dict[str, Any]:
  """How many templates an evaluator put names into, and the digest of both; nothing of one that has none."""
  options, data = task.options, task.test.data
  if "templates" not in options and "template" not in options:
    return {}
  templates = tuple(options["templates"]) if "templates" in options else (options["template"],)
  names: list[Sequence[Any]] = [list(data.tag_names)]
  if task.evaluator in _USUAL_LABELS:
    labels = labels_of(options.get("label"), _USUAL_LABELS[task.evaluator].USUAL_LABEL, data.label_names)
    names = [_names(task, label) for label in labels]
  return {"templates": len(templates), "prompts": protocols.digest(templates, *names)}


def _names(task: Task, label: str) -> Sequence[Any]:
  """The names of the classes of a label; of a table that has only some of them, as base_to_new takes, all of it."""
  given, classes = class_names.read(task.options.get("names")), task.test.data.label_names[label]
  if isinstance(given, Mapping) and task.evaluator == base_to_new.WHERE:
    return sorted((str(key), value) for key, value in given.items())
  return class_names.choose(given, classes, label)


def _captions_a_thing(data: EvaluationSet) -> str | None:
  """How many captions a concept has, "1" or "1 to 5"."""
  if "text" not in data.things or not len(data.things["text"].concept):
    return None
  counts = np.unique(data.things["text"].concept, return_counts=True)[1]
  return f"{counts.min()}" if counts.min() == counts.max() else f"{counts.min()} to {counts.max()}"


def _plain(value: Any) -> Any:
  """Options as JSON has them, without those that are empty."""
  value = value.to_dict() if hasattr(value, "to_dict") else value
  if isinstance(value, Mapping):
    return {str(key): _plain(of) for key, of in value.items() if of is not None and of != () and of != "" and of != {}}
  return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
