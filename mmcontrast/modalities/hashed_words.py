"""A text as numbers that nothing has learned: its words and their parts, hashed into places of a vector.

Source: Weinberger et al., "Feature hashing for large scale multitask learning" (arXiv:0902.2206), on words and their
3 to 5 letters at a time between "<" and ">", as Bojanowski et al. (arXiv:1607.04606) cut them.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence

import numpy as np

from mmcontrast.data.tokenizers.word_parts import parts_of

_WORD = re.compile(r"\w+")


def hashed_words(texts: Sequence[str], width: int) -> np.ndarray:
  """float32 [N, width]: of each text the sum of its words' vectors at length 1; zeros of one without a word."""
  words = [(row, *_parts(word)) for row, text in enumerate(texts) for word in _WORD.findall(text.lower())]
  found = np.zeros((len(texts), width), np.float32)
  if words:
    rows = np.repeat([row for row, _, _ in words], [len(places) for _, places, _ in words])
    places, signs = (np.concatenate(parts) for parts in list(zip(*words))[1:])
    found += np.bincount(rows * width + places % width, signs, len(texts) * width).reshape(found.shape)
  return found / np.maximum(np.sqrt((found**2).sum(1, keepdims=True)), 1e-12)


@functools.lru_cache(maxsize=100_000)
def _parts(word: str) -> tuple[np.ndarray, np.ndarray]:
  """The hashes of a word and of its parts, and the numbers that are added there; a word weighs 1 in all."""
  parts = parts_of(word)
  hashes = np.array([zlib.crc32(part.encode()) for part in parts], np.int64)
  return hashes >> 1, np.where(hashes & 1, 1, -1).astype(np.float32) / np.sqrt(len(parts), dtype=np.float32)
