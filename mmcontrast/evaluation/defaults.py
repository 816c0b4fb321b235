"""What a source can be evaluated by, when nobody says: by what its examples have and what the model can do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from mmcontrast.evaluation.embed import Space
from mmcontrast.evaluation.zero_shot import PROMPTS, classified
from mmcontrast.modalities import MODALITIES

TEMPLATES = ("{}", "a photo of a {}")
_NO_NAMES = re.compile(r"\d+|n\d{8}")  # numbers, and WordNet's ids as ImageNet's folders have them


def evaluators_for(
  *,
  modalities: Collection[str],
  labels: Mapping[str, Collection[str]],
  tags: bool,
  space: Space,
  tokens: bool,
  bank: bool | None,
) -> tuple[dict[str, dict[str, Any]], list[str]]:
  """The evaluators of a source, and why others are not among them.

  What the run compares is retrieved, classes are told from their names, and with a training set (a bank) labels and
  tags are probed.

  Args:
    modalities: those that examples have. labels: the classes of each label. tags: whether examples have them.
    space: what the model embeds.
    tokens: whether it compares tokens, which no mean of prompts can be made of.
    bank: whether there is a training set; None where there can be none.

  Returns:
    (`config.evaluation.evaluators`, a line each for what is left out).
  """
  found: dict[str, dict[str, Any]] = {}
  left_out = []
  shown = [one for one in modalities if one != PROMPTS]
  able = [one for one in shown if PROMPTS in (space.joint or {}).get(one, ())]
  probed = bool(space.probed) and space.probed in modalities
  if not shown:
    lacks = space.probed or next(iter(space.joint or MODALITIES))
    return {}, [f"it has no {MODALITIES[lacks].nouns}"]
  if any(set(way) <= set(modalities) for way in space.ways()):
    found["retrieval"] = {}
  elif len(modalities) > 1:
    words = " with ".join(MODALITIES[one].nouns if one != PROMPTS else "words" for one in modalities)
    keys = " and ".join((f"config.evaluation.{modalities[0]}", *(f".{one}" for one in modalities[1:])))
    left_out.append(f"retrieval compares {words}, and this run has no two heads for that ({keys})")
  named = [label for label, names in labels.items() if not all(_NO_NAMES.fullmatch(name) for name in names)]
  if named and able and not tokens:
    found["zero_shot"] = {"label": tuple(named), "templates": TEMPLATES}
    if classified(space) not in able:
      found["zero_shot"]["of"] = able[0]
  elif labels and able and not tokens:
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
  if len(modalities) < 2 and not (labels or tags):
    left_out.append("it has no captions, labels or tags (--source.labels=COLUMN, ...)")
  return found, left_out
