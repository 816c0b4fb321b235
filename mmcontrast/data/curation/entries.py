"""Balancing by entries: captions that name what many others name are thinned out, those of rare things all stay.

Source: MetaCLIP (arXiv 2309.16671), algorithm 1; metaclip/substr_matching.py and balancing.py of its code.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from mmcontrast import folders
from mmcontrast.data import noise
from mmcontrast.errors import UserError

_SPACED = str.maketrans({**{mark: f" {mark} " for mark in ",.;:?!`"}, **dict.fromkeys("\t\n\r", " ")})
_STREAM = noise.stream("entries")


class Entries:
  """A list of entries, each a word or several, and which of them a text names."""

  def __init__(self, entries: Sequence[str]):
    self.entries = list(entries)
    self._numbers = {entry: number for number, entry in enumerate(self.entries)}
    self._lengths = sorted({entry.count(" ") + 1 for entry in self.entries})

  def named(self, text: str) -> list[int]:
    """Numbers of the entries that stand in `text` between blanks, punctuation apart; ascending, each once.

    Case counts, as in MetaCLIP.
    """
    words = f" {text} ".translate(_SPACED).split(" ")
    found = set()
    for length in self._lengths:
      for start in range(1, len(words) - length):  # the first and the last are empty
        number = self._numbers.get(" ".join(words[start : start + length]))
        if number is not None:
          found.add(number)
    return sorted(found)


def read_entries(path: str) -> list[str]:
  """The entries of a file: a JSON list of texts, or a text a line. Raises UserError."""
  try:
    text = folders.at(path, "--entries").read_text()
    found = json.loads(text) if text.lstrip().startswith("[") else [line.strip() for line in text.splitlines()]
  except (OSError, ValueError) as error:
    raise UserError(f"--entries {path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
  if not all(isinstance(entry, str) for entry in found):
    raise UserError(f"--entries {path}: is no list of texts; write a text on each line, or a JSON list of them")
  found = list(dict.fromkeys(entry for entry in found if entry))
  if not found:
    raise UserError(f"--entries {path}: is empty; write a text on each line, or a JSON list of them")
  return found


def balanced(matches: np.ndarray, records: int, entries: int, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(which records are kept, bool [N]; how many captions name each entry, int64 [E]).

  A caption is kept by each entry it names with probability min(1, most / captions that name it), and a record when one
  of its captions is. The draws are a function of the seed, the record, the caption and the entry alone.

  Args:
    matches: int [M, 3] of record, number of its caption, entry.
    most: of an entry, about how many captions are kept (20,000 in MetaCLIP's 400 M).
  """
  record, caption, entry = matches.T
  counts = np.bincount(entry, minlength=entries)
  keeps = most / np.maximum(counts, most)
  draws = (noise.hashed(seed, _STREAM, record, caption, entry) >> np.uint64(11)) * 2.0**-53
  kept = np.zeros(records, bool)
  kept[record[draws < keeps[entry]]] = True
  return kept, counts
