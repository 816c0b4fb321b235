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
  shown = [modality for modality in modalities if modality != PROMPTS]
  if not shown:
    lacks = space.probed or next(iter(space.joint or MODALITIES))
    return {}, [f"it has no {MODALITIES[lacks].nouns}"]
  evaluators: dict[str, dict[str, Any]] = {}
  left_out: list[str] = []
  parts = [_retrieval(tuple(modalities), space), _probes(modalities, labels, tags, space, bank)]
  if not tokens:
    parts.insert(1, _zero_shot(shown, labels, space))
  for chosen, lines in parts:
    evaluators |= chosen
    left_out += lines
  if len(modalities) < 2 and not (labels or tags):
    left_out.append("it has no captions, labels or tags (--source.labels=COLUMN, ...)")
  return evaluators, left_out


Part = tuple[dict[str, dict[str, Any]], list[str]]
"""Evaluators, and a line for what is left out."""


def _retrieval(modalities: tuple[str, ...], space: Space) -> Part:
  if any(set(way) <= set(modalities) for way in space.ways()):
    return {"retrieval": {}}, []
  if len(modalities) < 2:
    return {}, []
  words = " with ".join("words" if modality == PROMPTS else MODALITIES[modality].nouns for modality in modalities)
  keys = " and ".join((f"config.evaluation.{modalities[0]}", *(f".{modality}" for modality in modalities[1:])))
  return {}, [f"retrieval compares {words}, and this run has no two heads for that ({keys})"]


def _zero_shot(shown: list[str], labels: Mapping[str, Collection[str]], space: Space) -> Part:
  able = [modality for modality in shown if PROMPTS in (space.joint or {}).get(modality, ())]
  if not (able and labels):
    return {}, []
  named = [label for label, names in labels.items() if not all(_NO_NAMES.fullmatch(name) for name in names)]
  if not named:
    line = (
      f"zero_shot needs names, and the classes of {next(iter(labels))!r} are numbers: give them by "
      "--config.evaluation.evaluators.zero_shot.names=FILE"
    )
    return {}, [line]
  options: dict[str, Any] = {"label": tuple(named), "templates": TEMPLATES}
  if classified(space) not in able:
    options["of"] = able[0]
  return {"zero_shot": options}, []


def _probes(
  modalities: Collection[str], labels: Mapping[str, Collection[str]], tags: bool, space: Space, bank: bool | None
) -> Part:
  if not space.probed or space.probed not in modalities:
    return {}, []
  if bank:
    of_labels = {"knn": {"label": tuple(labels)}, "linear_probe": {"label": tuple(labels)}} if labels else {}
    return of_labels | ({"tagging": {}} if tags else {}), []
  if bank is None or not (labels or tags):
    return {}, []
  line = (
    "k-NN and linear probes need a training set: --train_split train, of a source that has splits "
    "({split} in its path, or --source.splits)"
  )
  return {}, [line]
