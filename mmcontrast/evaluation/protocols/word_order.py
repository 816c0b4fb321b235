"""Captions whose words stand in another order, as ARO makes them of COCO and Flickr30k, by a plain stated rule.

ARO (arXiv:2210.01936) asks whether a model prefers a caption to four shuffles of its words, of which two need to know
nouns and adjectives; it takes these from spaCy's tagger, whose model is no package that this one could ask for. Here:

    nouns and adjectives   all words but those of FUNCTION_WORDS, and those of more than four letters that end in -ing,
                           -ed or -ly: verbs and adverbs, as a rule
    words                  small letters, without . ! " ( ) * # : ; ~ with commas and question marks apart; the first
                           30, of the caption itself too (so ARO, but for commas)
    edits                  shuffle_nouns_and_adj (among themselves, where ARO shuffles nouns and adjectives apart),
                           shuffle_allbut_nouns_and_adj, shuffle_within_trigrams, shuffle_trigrams
    drawn                  by a seed and the number of the caption; anew where the order is the old one, which it may be
                           in ARO. A caption that has no other order of that kind lacks that edit
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

MOST = 30  # words of a caption
_TRIES = 100
_FUNCTION_WORDS = """
  a an the this that these those some any each every all both either neither no another other such what which whose
  i you he she it we they me him her us them my your his its our their mine yours hers ours theirs myself itself himself
  herself themselves one's who whom there here
  and or but nor so yet as if than because while when where whereas although though unless until since whether
  of in on at by to from with without into onto over under above below between among amongst through across along around
  about against behind beside besides near next off out up down inside outside toward towards during before after for
  upon beneath underneath within via per like
  is are was were be been being am has have had having do does did doing done can could will would shall should may
  might must 's 're 've 'll 'd n't not
  very too also just only even still then now again once ever never always often together away back quite rather much
  more most less least many few several
  , ?
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())


def words_of(caption: str) -> list[str]:
  """The words of a caption, at most MOST: see above."""
  plain = re.sub(r"[.!\"()*#:;~]", " ", caption.lower())
  return re.sub(r"([,?])", r" \1 ", plain).split()[:MOST]


def is_content(word: str) -> bool:
  """Whether a word is taken for a noun or an adjective."""
  return word not in FUNCTION_WORDS and not (len(word) > 4 and word.endswith(("ing", "ed", "ly")))


def _at(words: Sequence[str], places: Sequence[int], draw: np.random.Generator) -> list[str]:
  """The words with those at `places` among themselves in another order."""
  out = list(words)
  for place, other in zip(places, draw.permutation(places)):
    out[place] = words[other]
  return out


def _threes(words: Sequence[str]) -> list[list[str]]:
  return [list(words[start : start + 3]) for start in range(0, len(words), 3)]


def _shuffled(parts: Sequence[Sequence[str]], draw: np.random.Generator) -> list[str]:
  return _joined(parts[place] for place in draw.permutation(len(parts)))


def _joined(parts: Iterable[Sequence[str]]) -> list[str]:
  return [word for part in parts for word in part]


EDITS: dict[str, Callable[[Sequence[str], np.random.Generator], list[str]]] = {
  "shuffle_nouns_and_adj": lambda words, draw: _at(words, [i for i, one in enumerate(words) if is_content(one)], draw),
  "shuffle_allbut_nouns_and_adj": lambda words, draw: _at(
    words, [i for i, one in enumerate(words) if not is_content(one)], draw
  ),
  "shuffle_within_trigrams": lambda words, draw: _joined(
    _at(part, list(range(len(part))), draw) for part in _threes(words)
  ),
  "shuffle_trigrams": lambda words, draw: _shuffled(_threes(words), draw),
}


def edits_of(words: Sequence[str], number: int, seed: int = 0) -> dict[str, list[str]]:
  """Name of an edit -> the words in another order, of the edits that there are.

  Args:
    words: of `words_of`.
    number: of the caption among all; seed: with it says what is drawn.
  """
  found = {}
  for place, (name, edit) in enumerate(EDITS.items()):
    draw = np.random.default_rng([seed, number, place])
    made = next((other for _ in range(_TRIES) if (other := edit(words, draw)) != list(words)), None)
    found |= {} if made is None else {name: made}
  return found
