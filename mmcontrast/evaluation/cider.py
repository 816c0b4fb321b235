"""CIDEr-D: how much a caption says what several people say (Vedantam et al., arXiv:1411.5726)."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence

import numpy as np

N_GRAMS = 4
_SIGMA = 6.0  # of the Gaussian penalty of another length
_SCALE = 10.0

Vector = Mapping[tuple[str, ...], float]


def cider_d(captions: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> np.ndarray:
  """float64 [N], 0 to 10: of each of N captions, lists of words, against its references.

  Words of n-grams weigh the more the fewer of the N things have them in a reference. Source: pycocoevalcap, CiderScorer
  (github.com/salaniz/pycocoevalcap), whose numbers the tests hold.
  """
  counted = [[_count(one) for one in of_thing] for of_thing in references]
  having = collections.Counter(gram for of_thing in counted for gram in set().union(*of_thing))
  rarity = {gram: math.log(len(references)) - math.log(max(1.0, count)) for gram, count in having.items()}
  unseen = math.log(len(references)) if references else 0.0
  scores = []
  for caption, of_thing, raw in zip(captions, counted, references, strict=True):
    own = _weighted(_count(caption), rarity, unseen)
    found = [_similarity(own, _weighted(one, rarity, unseen), _length(caption) - _length(ref)) for one, ref in
             zip(of_thing, raw)]  # fmt: skip
    scores.append(_SCALE * np.mean(found) if found else 0.0)
  return np.array(scores, np.float64)


def _count(words: Sequence[str]) -> collections.Counter:
  return collections.Counter(
    tuple(words[at : at + n]) for n in range(1, N_GRAMS + 1) for at in range(len(words) - n + 1)
  )


def _length(words: Sequence[str]) -> int:
  """As the reference has it: how many pairs of words."""
  return max(len(words) - 1, 0)


def _weighted(counts: Mapping, rarity: Mapping, unseen: float) -> list[Vector]:
  """A vector of n-grams for each n."""
  vectors: list[dict] = [{} for _ in range(N_GRAMS)]
  for gram, count in counts.items():
    vectors[len(gram) - 1][gram] = count * rarity.get(gram, unseen)
  return vectors


def _similarity(caption: Sequence[Vector], reference: Sequence[Vector], difference: int) -> float:
  found = []
  for one, other in zip(caption, reference):
    norm = math.sqrt(sum(x * x for x in one.values())) * math.sqrt(sum(x * x for x in other.values()))
    shared = sum(min(value, other[gram]) * other[gram] for gram, value in one.items() if gram in other)
    found.append(shared / norm if norm else 0.0)
  return float(np.mean(found)) * math.exp(-(difference**2) / (2 * _SIGMA**2))
