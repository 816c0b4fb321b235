"""What a source can be evaluated by, when nobody says: by what its examples have and what the model can do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

TEMPLATES = ("{}", "a photo of a {}")
_NO_NAMES = re.compile(r"\d+|n\d{8}")  # numbers, and WordNet's ids as ImageNet's folders have them


def evaluators_for(
  *,
  images: bool,
  captions: bool,
  labels: Mapping[str, Collection[str]],
  tags: bool,
  kinds: Collection[str],
  tokens: bool,
  bank: bool | None,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
  """The evaluators of a source, and why others are not among them.

  Captions are retrieved, classes are told from their names, and with a training set (a bank) labels and tags are
  probed.

  Args:
    images, captions, tags: whether examples have them. labels: the classes of each label.
    kinds: what the model embeds, of inference.KINDS.
    tokens: whether it compares tokens, which no mean of prompts can be made of.
    bank: whether there is a training set; None where there can be none.

  Returns:
    (`config.evaluation.evaluators`, a line each for what is left out).
  """
  found: dict[str, dict[str, Any]] = {}
  left_out = []
  joint, probed = {"image", "text"} <= set(kinds), "image_features" in kinds
  if not images:
    return {}, ["it has no images"]
  if captions and joint:
    found["retrieval"] = {}
  elif captions:
    left_out.append(
      "retrieval compares images with words, and this run has no two heads for that (config.evaluation.image and .text)"
    )
  named = [label for label, names in labels.items() if not all(_NO_NAMES.fullmatch(name) for name in names)]
  if named and joint and not tokens:
    found["zero_shot"] = {"label": tuple(named), "templates": TEMPLATES}
  elif labels and joint and not tokens:
    label = next(iter(labels))
    left_out.append(
      f"zero_shot needs names, and the classes of {label!r} are numbers: give them by "
      "--config.evaluation.evaluators.zero_shot.names=FILE"
    )
  if bank and probed:
    if labels:
      found |= {"knn": {"label": tuple(labels)}, "linear_probe": {"label": tuple(labels)}}
    if tags:
      found["tagging"] = {}
  elif probed and (labels or tags) and bank is not None:
    left_out.append(
      "k-NN and linear probes need a training set: --train_split train, of a source that has splits "
      "({split} in its path, or --source.splits)"
    )
  if not (captions or labels or tags):
    left_out.append("it has no captions, labels or tags (--source.labels=COLUMN, ...)")
  return found, left_out
