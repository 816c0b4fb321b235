"""Rules on the captions and the size of an image, by which a record is kept or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmcontrast.data.captions import clean
from mmcontrast.data.images import header
from mmcontrast.data.record import Record
from mmcontrast.errors import UserError


@dataclasses.dataclass(frozen=True)
class Rules:
  """Bounds on a record; 0 is none. A record is kept when one of its captions and one of its images pass.

  Attributes:
    min_words, min_characters: of a caption; words are what stands between blanks.
    min_side: of an image, its shorter side in pixels.
    max_aspect: of an image, the longer side divided by the shorter.
  """

  min_words: int = 0
  min_characters: int = 0
  min_side: int = 0
  max_aspect: float = 0.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      if not (value := getattr(self, field.name)) >= 0:
        raise UserError(f"--{field.name} {value}: give a number of 0 or more")
    if 0 < self.max_aspect < 1:
      raise UserError(f"--max_aspect {self.max_aspect}: the longer side by the shorter is 1 or more")

  def __bool__(self) -> bool:
    return any(dataclasses.astuple(self))


NONE = Rules()
RULES: Mapping[str, Rules] = {"datacomp": Rules(min_words=3, min_characters=6, min_side=200, max_aspect=3.0)}
"""Rules by name. "datacomp": the basic filter of DataComp (arXiv 2304.14108; baselines/apply_filter.py) without its
test for English, which needs fastText's model: more than two words, more than five characters, a shorter side of at
least 200 pixels, at most 3 to 1."""

KEPT = ""
REASONS = (KEPT, "no caption", "min_words", "min_characters", "no image", "min_side", "max_aspect", "bad")
"""Why a record is left out: by the first rule that all of its captions, or images, fail."""


def judge(record: Record, rules: Rules) -> str:
  """Which of REASONS a record is left out for; KEPT where it is not."""
  why = KEPT
  if rules.min_words or rules.min_characters:
    texts = [clean(text, len(text)) for of in record["captions"].values() for text in of]
    texts = texts or list(record["names"].values() if "names" in record else ())
    why = _first_pass([_of_text(text, rules) for text in texts if text.strip()], "no caption")
  if not why and (rules.min_side or rules.max_aspect):
    why = _first_pass([_of_image(data, rules) for data in record["images"].values()], "no image")
  return why


def _first_pass(reasons: list[str], none: str) -> str:
  """KEPT where one is; else the reason of the one that came furthest."""
  return max(reasons, key=lambda why: (why == KEPT, REASONS.index(why)), default=none)


def _of_text(text: str, rules: Rules) -> str:
  if len(text.split()) < rules.min_words:
    return "min_words"
  return "min_characters" if len(text) < rules.min_characters else KEPT


def _of_image(data: bytes, rules: Rules) -> str:
  found = header(data)
  if found is None:
    return "bad"
  short, long = sorted(found[1])
  if short < rules.min_side:
    return "min_side"
  return "max_aspect" if rules.max_aspect and long > rules.max_aspect * short else KEPT


def most_scored(scores: np.ndarray, share: float) -> float:
  """The lowest score that is kept when `share` of all are.

  DataComp's threshold: the score in place int(N share) from the top, and what equals it is kept too.

  Args: scores: float [N], N > 0, without NaN.
  """
  return float(-np.sort(-np.asarray(scores))[min(int(len(scores) * share), len(scores) - 1)])
