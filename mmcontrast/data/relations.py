"""Relations between two regions of an image by where they lie and how large they are: true of the boxes, by rule.

    left of, right of    no column of pixels is in both boxes
    above, below         no row of pixels is in both
    larger than          an area of at least LARGER times the other's
    smaller than         the reverse

They are of the image as it is stored: of a mirrored one, left is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmcontrast.data.record import Region

LARGER = 1.5
"""How many times as large an area must be to be called larger."""


class Related(NamedTuple):
  """A relation of two regions: what is said of it, and their boxes, subject first."""

  text: str
  subject: tuple[float, float, float, float]
  object: tuple[float, float, float, float]


def holding(subject: Sequence[float], other: Sequence[float]) -> list[str]:
  """What is true of two boxes x0, y0, x1, y1: "left of", "above", "larger than" and their reverses; [] of boxes that
  overlap in both directions and are nearly of one size."""
  (x0, y0, x1, y1), (u0, v0, u1, v1) = subject, other
  area, others = (x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0)
  rules = {
    "left of": x1 <= u0,
    "right of": u1 <= x0,
    "above": y1 <= v0,
    "below": v1 <= y0,
    "larger than": area >= LARGER * others,
    "smaller than": others >= LARGER * area,
  }
  return [relation for relation, holds in rules.items() if holds]


def draw(shown: Sequence[tuple[Region, str]], views: int, draws: np.ndarray) -> list[Related | None]:
  """Of each of `views` pairs one relation that holds: number k is of the regions shown by k and by k + 1, the last with
  the first; None where a region is missing, or nothing holds.

  Args:
    shown: regions with the text that is shown of each.
    draws: [views] uniform numbers.
  """
  found: list[Related | None] = []
  for view, number in enumerate(draws[:views]):
    pair = [shown[place % len(shown)] for place in (view, view + 1)] if view < len(shown) > 1 else []
    true = holding(pair[0][0].box, pair[1][0].box) if pair else []
    if not true:
      found.append(None)
      continue
    (subject, name), (other, named) = pair
    found.append(Related(f"{name} {true[int(number * len(true))]} {named}", subject.box, other.box))
  return found
