"""A word and its parts: 3 to 5 letters at a time between "<" and ">" (Bojanowski et al., arXiv:1607.04606)."""

from __future__ import annotations

LETTERS = (3, 4, 5)


def parts_of(word: str) -> list[str]:
  """The word between "<" and ">", and each run of 3, 4 and 5 letters of that."""
  closed = f"<{word}>"
  return [closed, *(closed[at : at + size] for size in LETTERS for at in range(len(closed) - size + 1))]
