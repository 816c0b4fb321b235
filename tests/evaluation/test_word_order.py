"""Captions in another order of their words: what moves and what stays, drawn once for all, and what has no other."""

import collections

import numpy as np
import pytest

from mmcontrast.evaluation.protocols.outcomes import compared, examples, metrics
from mmcontrast.evaluation.protocols.word_order import EDITS, FUNCTION_WORDS, MOST, edits_of, is_content, words_of

CAPTION = "A small brown dog, running on the wet grass (quickly) near a red ball."


def test_words_and_nouns():
  words = words_of(CAPTION)
  expected = "a small brown dog , running on the wet grass quickly near a red ball"
  assert " ".join(words) == expected
  assert [word for word in words if is_content(word)] == ["small", "brown", "dog", "wet", "grass", "red", "ball"]
  assert is_content("king") and is_content("red") and not is_content("parked") and not is_content(",")
  assert len(words_of("word " * 50)) == MOST and {"the", "with", "is"} < FUNCTION_WORDS


def test_what_moves_and_what_stays():
  words = words_of(CAPTION)
  for number in range(20):
    found = edits_of(words, number)
    assert list(found) == list(EDITS) and found == edits_of(words, number)
    for name, made in found.items():
      assert made != words and collections.Counter(made) == collections.Counter(words), name
    for name, moves in (("shuffle_nouns_and_adj", True), ("shuffle_allbut_nouns_and_adj", False)):
      assert all(new == old for new, old in zip(found[name], words) if is_content(old) != moves), name
    within, threes = found["shuffle_within_trigrams"], [tuple(words[at : at + 3]) for at in range(0, len(words), 3)]
    assert all(sorted(within[at : at + 3]) == sorted(words[at : at + 3]) for at in range(0, len(words), 3))
    made = " ".join(found["shuffle_trigrams"])
    assert all(" ".join(three) in made for three in threes)
  assert len({tuple(edits_of(words, number)["shuffle_trigrams"]) for number in range(9)}) > 1
  assert edits_of(words, 0, seed=1) != edits_of(words, 0)


def test_captions_without_another_order_lack_the_edit():
  assert edits_of(["heart"], 0) == edits_of([], 0) == edits_of(["red"] * 7, 0) == {}
  swapped = ["heart", "red"]
  assert edits_of(["red", "heart"], 0) == {"shuffle_nouns_and_adj": swapped, "shuffle_within_trigrams": swapped}
  assert set(edits_of(["a", "dog", "on", "a", "mat"], 0)) == set(EDITS)
  assert "shuffle_allbut_nouns_and_adj" not in edits_of(["a", "dog", "a", "mat"], 0)  # "a" and "a"


def test_captions_of_a_picture_are_drawn_together():
  """Its two captions count as often as the picture does."""
  one = {"image_of_case": np.array([0, 0, 1, 2]), "edits": np.array([True, False, True, True])}
  assert examples(one) == 3 and metrics(one)["edits"] == 0.75
  assert metrics(one, np.array([2, 0, 1]))["edits"] == pytest.approx(3 / 5)
  other = {**one, "edits": np.array([False, False, True, True])}
  difference, low, high = compared(one, other)["edits"]
  assert difference == pytest.approx(0.25) and low == 0 < high
