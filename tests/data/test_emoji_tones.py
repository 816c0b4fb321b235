"""The emoji in skin tones: what they are, and what is refused."""

import collections

import pytest

from mmcontrast.data.datasets import emoji_tones
from mmcontrast.data.sources import open_source
from mmcontrast.errors import MissingData, UserError


def test_every_concept_has_all_tones():
  variants = emoji_tones.variants()
  tones = collections.defaultdict(list)
  for variant in variants:
    tones[variant.concept.key].append(variant.tone)
  assert len(tones) == 316 and all(found == [-1, 0, 1, 2, 3, 4] for found in tones.values())
  assert len({variant.key for variant in variants}) == len(variants)
  by_key = {variant.key: variant for variant in variants}
  assert by_key["1f44b-1f3fd"].tone == 2 and by_key["1f44b"].tone == -1
  assert emoji_tones.captions(by_key["1f44b-1f3fd"])[0] == "waving hand medium skin tone"
  assert emoji_tones.captions(by_key["1f44b"])[0] == "waving hand"


def test_what_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"data\.dataset: emoji_tones takes no path and no data\.source"):
    open_source(dict(dataset="emoji_tones", source=dict(a=1)), "train", tmp_path)
  with pytest.raises(MissingData, match=r"emoji_tones is not in .*; run: mmcontrast data build emoji_tones"):
    open_source(dict(dataset="emoji_tones"), "train", tmp_path)
