"""Counterfactual retrieval: the true caption of a thing among edits of it (RCAD, arXiv:2407.13094).

A thing is looked up among its caption and counterfactual ones, in which an action or a word was exchanged: five each in
Feint6K. The rank of the true one is one more than the number of others that score at least as high, so that a tie is a
miss: the authors' code places the true one first there, and gives a model that scores all alike a recall of 100 %.

The captions are those of a file, a line of JSON a thing, the true caption first:

    {"id": 17, "texts": ["a person opens a box", "a person closes a box", ...]}

`id` is that of things of the evaluation set; all that have it are looked up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast import folders
from mmcontrast.errors import UserError, note
from mmcontrast.evaluation.embed import cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.retrieval import ROUNDING
from mmcontrast.evaluation.zero_shot import PROMPTS, classified

WHERE = "counterfactual"
METRICS = ("recall@1", "recall@3", "mean_rank", "median_rank", "queries")


def rank_of_first(scores: np.ndarray) -> int:
  """1 for the first of C scores being above all others, at most C; ties, within rounding, count against it."""
  return 1 + int(np.sum(scores[1:] >= scores[0] - ROUNDING))


def summary(ranks: Sequence[int]) -> dict[str, float]:
  """Recall at 1 and 3 (fractions), mean and median rank, and of how many that is."""
  ranks = np.asarray(ranks)
  values = (np.mean(ranks <= 1), np.mean(ranks <= 3), ranks.mean(), np.median(ranks), len(ranks))
  return {name: float(value) for name, value in zip(METRICS, values)}


def read_edits(path: str, where: str = f"evaluation.evaluators.{WHERE}.file") -> dict[int, list[str]]:
  """The texts of each id, the true one first; UserError naming the line that is none."""
  if not path:
    raise UserError(f'{where}: name a file; each line is such as {{"id": 17, "texts": ["true", "edited"]}}')
  try:
    lines = folders.at(path, where).read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{where}: {path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
  found: dict[int, list[str]] = {}
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
      texts, identity = row["texts"], int(row["id"])
    except (ValueError, KeyError, TypeError):
      texts, identity = [], -1
    if not isinstance(texts, list) or len(texts) < 2 or not all(isinstance(one, str) and one.strip() for one in texts):
      raise UserError(
        f"{where}: {path}, line {number}: needs an id and two texts or more, the true one first, such as "
        '{"id": 17, "texts": ["a person opens a box", "a person closes a box"]}'
      )
    if identity in found:
      raise UserError(
        f"{where}: {path}, line {number}: id {identity} stands in an earlier line too; put all its texts in one"
      )
    found[identity] = texts
  if not found:
    raise UserError(f"{where}: {path} is empty; each line is an id and its texts")
  return found


def check(options: Mapping[str, Any]) -> None:
  """Raises UserError where the option `file` names none that can be read."""
  read_edits(options.get("file", ""))


def evaluate(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet], *, file: str = ""
) -> dict[str, dict[str, float]]:
  """How often the true caption comes before its edits: "counterfactual/recall@1", see METRICS; `bank` is not used.

  Args:
    file: the captions, a line of JSON a thing: {"id": 17, "texts": ["the true one", "an edit", ...]}.
  Raises UserError for a file that cannot be read, a run that compares nothing with texts by single vectors, and a set
  of which no thing is in the file.
  """
  del bank
  edits, out = read_edits(file), {}
  for test in tests:
    modality = classified(test.space, list(test.data.things))
    if test.compare is not cosines or not modality or PROMPTS not in (test.space.joint or [PROMPTS]):
      raise UserError(
        f"{WHERE}: needs a run with two heads of single vectors, of texts and of what is looked up; leave it out of "
        "config.evaluation.evaluators"
      )
    things = test.data.things[modality]
    places = np.flatnonzero(np.isin(things.concept, list(edits)))
    if not len(places):
      raise UserError(f"{WHERE}.file: none of its ids is of a thing of {test.name!r}; leave the set out with `sets`")
    if missing := len(edits) - len(set(things.concept[places].tolist())):
      note(f"{WHERE}: {missing} of {len(edits)} ids of {file} are not in {test.name!r}; they are left out")
    shown = list(dict.fromkeys(things.concept[places].tolist()))
    texts = unit(test.embed(PROMPTS, [text for one in shown for text in edits[one]]))
    ends = np.cumsum([len(edits[one]) for one in shown])
    of = {one: texts[end - len(edits[one]) : end] for one, end in zip(shown, ends)}
    rows = test.joint(modality)[places]
    ranks = [rank_of_first(of[int(one)] @ row) for one, row in zip(things.concept[places], rows)]
    out[test.name] = {f"{WHERE}/{name}": value for name, value in summary(ranks).items()}
  return out
