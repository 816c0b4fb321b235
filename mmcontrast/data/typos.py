"""Texts as people mistype and misplace them: what Pixel-Linguist's first stage is trained to see through.

Pixel-Linguist (arXiv:2402.08183) perturbs texts by sight: typing errors and words in another order. Which errors, and
how many, is ours.
"""

from __future__ import annotations

import numpy as np


def mistyped(text: str, share: float, draw: float) -> str:
  """A text with a typing error in about a `share` of its words of three letters and more: two neighbours change
  places, a letter is left out, or it stands twice. The first letter stays.

  Args:
    draw: a uniform number in [0, 1), which the errors are a function of.
  """
  numbers, words = _generator(draw), text.split(" ")
  for place, word in enumerate(words):
    chosen, at, kind = numbers.random(3)
    if len(word) < 3 or chosen >= share:
      continue
    at = 1 + int(at * (len(word) - 2))
    left, letter, right = word[:at], word[at], word[at + 1 :]
    words[place] = (left + right[0] + letter + right[1:], left + right, left + 2 * letter + right)[int(3 * kind)]
  return " ".join(words)


def shuffled(text: str, share: float, draw: float) -> str:
  """A text of which about a `share` of the words change places among themselves. `draw` as of `mistyped`."""
  numbers, words = _generator(draw), text.split(" ")
  moved = np.flatnonzero(numbers.random(len(words)) < share)
  for place, word in zip(moved, [words[other] for other in numbers.permutation(moved)]):
    words[place] = word
  return " ".join(words)


def _generator(draw: float) -> np.random.Generator:
  return np.random.Generator(np.random.Philox(int(draw * 2**53)))
