"""Words and their parts as tokens, by hash: no vocabulary to train, and a word that no text had is made of parts that
texts did have (fastText, Bojanowski et al., arXiv:1607.04606).

The parts are those that a graph's nodes are hashed by (modalities/hashed_words.py), so what a node and a text have in
common is the same on both sides. For towers that add tokens up: those of a word, 19 for one of seven letters, say where
they stand in it, not the word where it stands.
"""

from __future__ import annotations

import re
import zlib

from mmcontrast.data.tokenizers.tokenizer import Tokenizer

_SPECIALS = 3  # pad 0, bos 1, eos 2
_PLACES = 8192
LETTERS = (3, 4, 5)
_WORD = re.compile(r"\w+")


class WordPartsTokenizer(Tokenizer):
  """Each word and each 3 to 5 letters of it, hashed to one of 8,192 ids after pad, bos and eos. The way back, from ids
  to texts, is not known: a part is shown as "#" and its id."""

  def __init__(self, *, lower: bool | str = True):
    super().__init__("word_parts", vocab_size=_PLACES + _SPECIALS, pad_id=0, bos_id=1, eos_id=2, lower=lower)

  def _pieces(self, texts: list[str]) -> list[list[int]]:
    return [
      [zlib.crc32(part.encode()) % _PLACES + _SPECIALS for word in _WORD.findall(text) for part in parts_of(word)]
      for text in texts
    ]

  def _text(self, ids: list[int]) -> str:
    return " ".join(f"#{i}" for i in ids if i >= _SPECIALS)


def parts_of(word: str) -> list[str]:
  """A word between "<" and ">", and each run of 3, 4 and 5 letters of that."""
  closed = f"<{word}>"
  return [closed, *(closed[at : at + size] for size in LETTERS for at in range(len(closed) - size + 1))]
