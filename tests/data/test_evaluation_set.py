"""Evaluation sets: counts, ids that join images and captions, splits, styles."""

import numpy as np
import pytest

from mmcontrast.data.evaluation_set import load_evaluation_set
from mmcontrast.errors import UserError


def test_emoji_views_by_style(data_dir):
  twemoji = load_evaluation_set("emoji_views", "all", dict(image_size=32), data_dir)
  openmoji = load_evaluation_set("emoji_views", "all", dict(image_size=32), data_dir, style="openmoji")
  assert twemoji.name == "emoji_views_twemoji" and twemoji.seen
  assert twemoji.images.shape == (1903, 32, 32, 3) and twemoji.images.dtype == np.uint8
  assert len(twemoji.captions) == 1903 and sorted(twemoji.image_id) == list(range(1903))
  assert twemoji.tags.shape == (1903, 241) and len(twemoji.tag_names) == 241
  assert (twemoji.image_id == openmoji.image_id).all()
  assert not (twemoji.images == openmoji.images).all()
  assert {s: int((twemoji.split == s).sum()) for s in ("train", "validation", "test")} == {
    "train": 1487, "validation": 214, "test": 202}  # fmt: skip
  row = list(twemoji.image_id).index(twemoji.captions.index("pizza"))
  assert twemoji.label_names["group"][twemoji.labels["group"][row]] == "Food & Drink"


def test_a_split_keeps_all_names_as_rivals(data_dir):
  test = load_evaluation_set("emoji_views", "test", dict(image_size=16), data_dir)
  assert len(test.images) == 202 and len(test.captions) == 1903
  assert set(test.split) == {"test"}


def test_trim_enlarges_the_style_with_wide_margins(data_dir):
  plain, trimmed = (
    load_evaluation_set("emoji_views", "test", dict(image_size=48, trim=trim), data_dir, style="openmoji")
    for trim in (False, True)
  )
  ink = [(s.images.min(axis=-1) < 250).mean() for s in (plain, trimmed)]
  assert ink[1] > 1.3 * ink[0]


@pytest.mark.parametrize("wrong, message", [
  (dict(name="emoji_veiws"), "did you mean 'emoji_views'"),
  (dict(name="emoji_views", style="twemojis"), "did you mean 'twemoji'"),
  (dict(name="emoji_views", split="tests"), "did you mean 'test'"),
])  # fmt: skip
def test_wrong_choices_are_named(data_dir, wrong, message):
  with pytest.raises(UserError, match=message):
    load_evaluation_set(data=dict(image_size=16), data_dir=data_dir, **wrong)
