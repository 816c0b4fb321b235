"""Which records of a large set are kept: rules, duplicates, entries; each against all comparisons, or by hand."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcontrast.data.curation import near, prints, rules
from mmcontrast.data.curation.entries import Entries, balanced
from mmcontrast.errors import UserError

GOLDEN = 0xCE62D0A4FEC4F22A


def picture(width, height, seed=0, format="png", **options):
  small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, format, **options)
  return buffer.getvalue()


@pytest.mark.parametrize(
  ("captions", "size", "why"),
  [
    (["one fine dog"], (600, 200), ""),
    (["one dog", "one fine dog"], (200, 200), ""),  # one caption that passes is enough
    (["one dog"], (200, 200), "min_words"),
    (["a b c"], (200, 200), "min_characters"),
    ([" "], (200, 200), "no caption"),
    (["one fine dog"], (199, 400), "min_side"),
    (["one fine dog"], (601, 200), "max_aspect"),
    (["one fine dog"], None, "no image"),
  ],
)
def test_datacomps_basic_rules(captions, size, why):
  record = {"captions": {"caption": captions}, "names": {}, "images": {"image": picture(*size)} if size else {}}
  assert rules.judge(record, rules.RULES["datacomp"]) == why


def test_a_share_of_the_best_scores():
  scores = np.array([0.3, 0.1, 0.5, 0.4, 0.2])
  assert rules.most_scored(scores, 0.4) == 0.3  # in place int(5 x 0.4) from the top, as DataComp's script
  assert rules.most_scored(scores, 1.0) == 0.1


def test_exact_prints():
  one = prints.exact_print({"a": b"x", "b": b"y"})
  assert np.array_equal(one, prints.exact_print({"b": b"y", "a": b"x"}))
  for other in ({"a": b"xb", "b": b""}, {"a": b"y", "b": b"x"}, {"a": b"x"}):
    assert not np.array_equal(one, prints.exact_print(other))
  assert prints.same_as_before(np.array([[1, 2], [2, 1], [1, 2], [1, 2]])).tolist() == [False, False, True, True]


def test_a_perceptual_print_is_that_of_imagehash():
  # imagehash.phash of ImageHash 4.3.2 with Pillow, of this picture.
  assert prints.perceptual_print_of_file(picture(240, 180, 5)) == GOLDEN
  near_ones = [picture(120, 90, 5), picture(240, 180, 5, "jpeg", quality=30)]
  for other in near_ones:
    assert (prints.perceptual_print_of_file(other) ^ GOLDEN).bit_count() <= 4
  assert (prints.perceptual_print_of_file(picture(240, 180, 6)) ^ GOLDEN).bit_count() > 12


@pytest.mark.parametrize("bits", [0, 1, 4, 9])
def test_prints_near_in_bits_are_those_of_all_comparisons(bits):
  draw = np.random.default_rng(bits)
  found = draw.integers(0, 2**63, 120, np.uint64)
  for n in range(60):  # near ones, of every distance up to 12
    found[60 + n] = found[n] ^ np.bitwise_or.reduce(
      np.uint64(1) << draw.choice(64, n % 13, False).astype(np.uint64), initial=0
    )
  apart = np.bitwise_count(found[:, None] ^ found[None])
  expected = np.argwhere(np.triu(apart <= bits, 1))
  np.testing.assert_array_equal(prints.near_in_bits(found, bits), expected)


def test_the_first_of_what_is_alike_is_kept():
  chain = np.array([[0, 1], [1, 2], [2, 3]])
  assert prints.like_an_earlier(np.arange(5), np.arange(5), chain, 5).tolist() == [0, 1, 0, 1, 0]
  # Record 2 equals record 1, which is left out as it is like record 0.
  assert prints.like_an_earlier(np.arange(3), np.array([1, 0, 0]), np.array([[1, 0]]), 3).tolist() == [0, 1, 1]
  # Two rows a record, which may be alike themselves.
  assert prints.like_an_earlier(np.array([0, 0, 1, 1]), np.array([4, 5, 6, 5]), np.array([[4, 5]]), 3).tolist() == [
    0,
    1,
    0,
  ]


def test_near_rows_are_nearly_all_those_of_all_comparisons():
  draw = np.random.default_rng(0)
  rows = draw.standard_normal((3000, 256), np.float32)
  rows[2000:] = rows[draw.integers(0, 2000, 1000)] + draw.uniform(0, 0.5, (1000, 1)) * draw.standard_normal((1000, 256))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)

  def pairs(**options):
    found = near.near_pairs(lambda: iter(np.split(rows, 3)), lambda at: rows[at], len(rows), 0.95, **options)
    return {(one, other) for one, other in found.tolist()}

  every = {(one, other) for one, other in np.argwhere(np.triu(rows @ rows.T >= 0.95, 1)).tolist()}
  assert len(every) > 500 and pairs() == every
  some = pairs(exact=0)
  assert some <= every and len(some) >= 0.99 * len(every)
  assert near.near_pairs(lambda: iter([rows[:1]]), None, 1, 0.95).shape == (0, 2)


def test_too_many_pairs_are_said(monkeypatch):
  monkeypatch.setattr(near, "MOST_PAIRS", 1000)
  rows = np.ones((100, 1), np.float32)
  with pytest.raises(UserError, match=r"--near 0\.9: more than .* pairs are that near.*; raise it, or leave out equal"):
    near.near_pairs(lambda: iter([rows]), lambda at: rows[at], 100, 0.9)


def test_entries_stand_between_blanks_as_metaclip_finds_them():
  entries = Entries(["dog", "red dog", "St. Louis", "Dog", "a b c", "cat"])
  for text, expected in (
    ("a red dog, asleep", ["dog", "red dog"]),
    ("dogs hotdog", []),
    ("red  dog", ["dog"]),  # two blanks are not one
    ("St. Louis", []),  # punctuation is apart in the text, not in the entry
    ("Dog!\ncat", ["Dog", "cat"]),
    ("a b c", ["a b c"]),
    ("", []),
  ):
    assert [entries.entries[number] for number in entries.named(text)] == expected, text


def test_balancing_keeps_what_is_rare_and_thins_out_the_rest():
  # Entry 0 in 4,000 captions, 1 in 10, 2 in none; record 4,010 names nothing.
  record = np.r_[np.arange(4000), 4000 + np.arange(10)]
  matches = np.stack([record, np.zeros_like(record), (record >= 4000).astype(int)], 1)
  kept, counts = balanced(matches, 4011, 3, 100, seed=1)
  assert counts.tolist() == [4000, 10, 0] and kept[4000:].tolist() == [True] * 10 + [False]
  assert 70 < kept[:4000].sum() < 130
  order = np.random.default_rng(0).permutation(len(matches))
  assert np.array_equal(balanced(matches[order], 4011, 3, 100, seed=1)[0], kept)
  assert not np.array_equal(balanced(matches, 4011, 3, 100, seed=2)[0], kept)
  # A record is kept when any of its captions is, by any of its entries: here of probability 1 - 0.5^2.
  record = np.arange(4000)
  both = np.concatenate([np.stack([record, np.zeros_like(record), entry + 0 * record], 1) for entry in (0, 1)])
  assert abs(balanced(both, 4000, 2, 2000, 0)[0].mean() - 0.75) < 0.03
