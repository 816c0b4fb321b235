"""`mmcontrast match IMAGE TEXT [TEXT ...] --workdir RUN`: whether things belong together, by the head that matches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from mmcontrast.called import call_as
from mmcontrast.errors import UserError
from mmcontrast.inference import load
from mmcontrast.inference.matching import match_probabilities, matching_head
from mmcontrast.modalities import MODALITIES
from mmcontrast.search import called_query, read_query, seen_query


class Matched(NamedTuple):
  """A thing that was compared with the first."""

  probability: float  # that the two belong together
  name: str  # the words, or the path of the file

  @property
  def line(self) -> str:
    """In one line."""
    return f"{self.probability:.3f}  {self.name}"


def match(
  workdir: str | os.PathLike,
  first: Any,
  others: Sequence[Any],
  *,
  head: str | None = None,
  step: int | None = None,
  data_dir: str | os.PathLike | None = None,
) -> list[Matched]:
  """How probable it is that `first` belongs with each of `others`, in their order.

  Args:
    workdir: the run.
    first: words, or the path of an image or a sound, or the thing itself; others: of another modality, all of one.
    head: the head that matches; None: the one that retrieval is evaluated by, else the first.
    step: the checkpoint of this step instead of the newest.
  Raises UserError: no such run, a thing that cannot be read, a run without a head that matches the two modalities.
  """
  others = [others] if isinstance(others, str | bytes | os.PathLike) else list(others)
  if not others:
    raise UserError("match: nothing to compare with; give one or more")
  if any(isinstance(one, str) and not one.strip() for one in (first, *others)):
    raise UserError('match: words that say nothing; give some, such as "red heart", or the path of a file')
  asked, compared = read_query(first), [read_query(one) for one in others]
  kinds = list(dict.fromkeys(one.modality for one in compared))
  if len(kinds) > 1:
    nouns = " and ".join(MODALITIES[kind].nouns for kind in kinds)
    raise UserError(f"match: {called_query(first)} is compared with {nouns}; give things of one modality")
  model = load(workdir, step, data_dir)
  head = matching_head(model, (asked.modality, kinds[0]), f"{workdir}", head)
  values = [seen_query(model, one).value for one in (asked, *compared)]
  found = match_probabilities(model, head, (asked.modality, values[0]), (kinds[0], values[1:]))
  return [Matched(float(one), called_query(name)) for one, name in zip(found, others)]


call_as(__name__, match)
