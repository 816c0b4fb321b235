"""Semantic textual similarity (STS): do texts that people call alike have embeddings that are?

The rank correlation (Spearman) of the cosines of pairs of texts with how alike the pairs are called, and Pearson's.
The pairs are those of a file, as of the STS benchmark (Cer et al., arXiv:1708.00055), or all pairs of captions of a set
whose examples have tags: how alike they are is then the share of their tags that they share (Jaccard).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.errors import UserError
from mmcontrast.evaluation.embed import cosines, unit
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.zero_shot import PROMPTS

METRICS = ("spearman", "pearson", "pairs")
HEADER = ("sentence1", "sentence2", "score")
"""The columns of a file that has a header; without one they are score, text, text, as SentEval's files have them."""


class Pairs(NamedTuple):
  """P pairs of texts: the texts, int [P, 2] places among them, and float [P] how alike they are."""

  texts: Sequence[str]
  places: np.ndarray
  alike: np.ndarray


def read_pairs(path: str, where: str) -> Pairs:
  """The pairs of a file, its columns divided by tabs, or of a .csv by commas; UserError naming the line where it
  cannot be read."""
  try:
    lines = folders.at(path, where).read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{where}: {path} cannot be read ({getattr(error, 'strerror', None) or error})") from None
  comma = path.endswith(".csv")
  rows = list(csv.reader(lines) if comma else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
  if not any(rows):
    raise UserError(f"{where}: {path} is empty; each line is a score and two texts")
  columns, first = (1, 2, 0), 0
  if set(HEADER) <= set(rows[0]):
    columns, first = tuple(map(rows[0].index, HEADER)), 1
  texts: dict[str, int] = {}
  places, alike = [], []
  for number, row in enumerate(rows[first:], start=first + 1):
    try:
      one, other, score = (row[column] for column in columns)
      if not math.isfinite(float(score)):
        raise ValueError("no number")
      alike.append(float(score))
    except (IndexError, ValueError):
      parted = "commas" if comma else "tabs"
      raise UserError(
        f"{where}: {path}, line {number}: {' | '.join(row)[:60]!r} is no score and two texts, parted by {parted}; or "
        f"the first line names the columns {', '.join(HEADER)}"
      ) from None
    places.append([texts.setdefault(text, len(texts)) for text in (one, other)])
  return Pairs(list(texts), np.array(places), np.array(alike))


def pairs_by_tags(texts: Sequence[str], tags: np.ndarray, most: int) -> Pairs:
  """All pairs of at most `most` texts, evenly taken, of examples with tags uint8 [N, T]: Jaccard's index of these."""
  known = np.flatnonzero(tags.any(1))
  known = known[np.linspace(0, len(known) - 1, min(most, len(known))).round().astype(int)] if len(known) else known
  one, other = np.triu_indices(len(known), 1)
  own = tags[known].astype(np.float32)
  shared, count = own @ own.T, own.sum(1)
  alike = (shared / (count[:, None] + count[None] - shared).clip(1))[one, other]
  return Pairs([texts[place] for place in known], np.stack([one, other], 1), alike)


def correlations(cosines: np.ndarray, alike: np.ndarray) -> dict[str, float]:
  """Spearman's and Pearson's correlation of [P] with [P], 0 where either is all the same, and how many pairs."""
  from scipy import stats  # half a second

  found = {"spearman": 0.0, "pearson": 0.0}
  if len(alike) > 1 and np.ptp(cosines) > 0 and np.ptp(alike) > 0:
    found = {
      "spearman": float(stats.spearmanr(cosines, alike).statistic),
      "pearson": float(stats.pearsonr(cosines, alike).statistic),
    }
  return found | {"pairs": float(len(alike))}


def check(options: Mapping[str, Any]) -> None:
  """Raises UserError for a file that cannot be read, before data or model."""
  if options.get("file"):
    read_pairs(options["file"], "evaluation.evaluators.similarity.file")


def evaluate(
  tests: Sequence[EmbeddedSet], bank: Sequence[EmbeddedSet], *, file: str = "", most: int = 1000, node: str = ""
) -> dict[str, dict[str, float]]:
  """Spearman's and Pearson's correlation, "text_similarity/spearman"; of a file under the first set's name.

  Args:
    file: of pairs, its lines "score TAB text TAB text", or with a header that names score, sentence1 and sentence2;
      "": the captions of each set, by the tags of their examples.
    most: how many captions of a set are compared, each with each.
    node: whose output is compared; by default the head config.evaluation.text, else the text tower of
      config.evaluation.features.

  Raises:
    UserError: a file that cannot be read, a set without tags, a run without such a head.
  """
  del bank
  if most < 2:
    raise UserError(f"evaluation.evaluators.similarity.most: {most}; give 2 or more")
  out = {}
  for test in tests[:1] if file else tests:
    where = f"evaluation.evaluators.similarity, set {test.name!r}"
    if file:
      pairs = read_pairs(file, "evaluation.evaluators.similarity.file")
    else:
      pairs = pairs_by_tags(test.data.things[PROMPTS].values, _tags(test, where), most)
    if len(pairs.alike) < 2:
      raise UserError(f"{where}: there are fewer than two pairs; name a file with more, or a set with tags")
    kind = _kind(test, node, where)
    if kind == PROMPTS and test.compare is not cosines:
      raise UserError(f"{where}: the run compares tokens and has no single vector; name a node, such as node='text'")
    rows = unit(test.embed(kind, list(pairs.texts)))
    one, other = rows[pairs.places.T]
    out[test.name] = {
      f"text_similarity/{name}": value
      for name, value in correlations(np.einsum("pd,pd->p", one, other), pairs.alike).items()
    }
  return out


def _tags(test: EmbeddedSet, where: str) -> np.ndarray:
  """uint8 [N, T] of the texts of a set: the tags of the examples that show the same."""
  test.check(PROMPTS, where)
  test.tags(where, test.data.things[PROMPTS])  # UserError without any
  ids, place = np.unique(test.data.example_id, return_inverse=True)
  of_id = np.zeros((len(ids) + 1, test.data.tags.shape[1]), np.uint8)  # the last is of none
  np.maximum.at(of_id, place, np.asarray(test.data.tags))
  concept = np.asarray(test.data.things[PROMPTS].concept)
  found = np.searchsorted(ids, concept).clip(0, len(ids) - 1)
  return of_id[np.where(ids[found] == concept, found, len(ids))]


def _kind(test: EmbeddedSet, node: str, where: str) -> str:
  """What of the model embeds a text."""
  if node:
    kind = test.space.kind_of(node, f"{where}.node")
    if kind.partition("/")[0] != PROMPTS:
      raise UserError(f"{where}.node: {node!r} is of {kind.partition('/')[0]}; name a tower or head of texts")
    return kind
  if test.space.joint is None or PROMPTS in test.space.joint:
    return PROMPTS
  if test.space.probed == PROMPTS:
    return f"{PROMPTS}_features"
  raise UserError(f"{where}: config.evaluation.text names no head of this run; name one, or a node of texts")
