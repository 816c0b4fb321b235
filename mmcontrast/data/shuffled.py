"""Captions put with wrong images on purpose: noise that is known, to see what a method makes of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from mmcontrast.data import noise
from mmcontrast.data.record import Record, Source
from mmcontrast.errors import UserError

DEFAULTS = {"share": 0.0, "seed": 0}
LABEL = "caption_of"
"""The label that says whose captions a record has: "itself" (0) or "another" (1)."""


class ShuffledCaptions:
  """A source of which `share` of the records, chosen by `seed`, have the captions and names of one another.

  They are a random cycle, so that none keeps its own. Images, tags, labels and ids stay. Which records, and whose
  captions they get, depends on the seed and on their number alone.
  """

  def __init__(self, source: Source, share: float, seed: int):
    count = round(share * len(source))
    if count < 2:
      raise UserError(
        f"data.shuffled_captions.share: {share:g} of {len(source)} examples is {count}, and captions change places "
        "between two or more; raise it, or set it to 0"
      )
    order = np.argsort(noise.hashed(seed, np.arange(len(source)), noise.stream(LABEL)), kind="stable")[:count]
    self._source, self._of = source, np.full(len(source), -1, np.int64)
    self._of[order] = np.roll(order, -1)
    info = source.info
    if LABEL in info.label_names:
      raise UserError(f"data.shuffled_captions: dataset {info.name} has a label {LABEL!r}; rename it")
    note = f"{count:,} of {len(source):,} examples have another's captions (data.shuffled_captions, seed {seed})"
    labels = {**info.label_names, LABEL: ("itself", "another")}
    self.info = dataclasses.replace(info, label_names=labels, notes=(*info.notes, note))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> Record:
    record, other = self._source[index], int(self._of[index])
    labels = {**record["labels"], LABEL: int(other >= 0)}
    if other < 0:
      return {**record, "labels": labels}
    texts = self._source[other]
    return {**record, "labels": labels, "captions": texts["captions"], "names": texts["names"]}


def check(given: dict) -> None:
  """Raises UserError for a share or a seed that is none."""
  share, seed = given["share"], given["seed"]
  if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
    raise UserError(f"data.shuffled_captions.share: {share!r} is not in [0, 1]; 0.4 is 40 % of the examples")
  if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
    raise UserError(f"data.shuffled_captions.seed: {seed!r} is not a whole number of 0 or more")
