"""Which caption a text view shows, and when two captions are one."""

import dataclasses
import types

import numpy as np
import pytest
from toy_source import Toy, take

from mmcontrast.data import captions, pipeline, tokenizers
from mmcontrast.data.record import id_of_row
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError
from mmcontrast.inference import Inference
from mmcontrast.modalities import MODALITIES

FIELDS = ("alt", "generated", "title")


class Fields(Toy):
  """An alt text, two generated captions and, in every third example, a title."""

  def __init__(self, count, broken=None):
    super().__init__(count, broken)
    self.info = dataclasses.replace(self.info, caption_fields=FIELDS)

  def __getitem__(self, index):
    found = {"alt": [f"alt {index}"], "generated": [f"made {index}", f"other {index}"]}
    found |= {"title": [f"title {index}"]} if index % 3 == 0 else {}
    return {**super().__getitem__(index), "captions": found, **self._broken.get(index, {})}


@pytest.fixture(scope="module")
def tokenizer(data_dir):
  """The path of one."""
  return str(data_dir / "emoji_views" / "tokenizer.model")


def shown(count, tokenizer, source=None, **settings):
  """(index, texts of the views) of each example of `count` batches of 90."""
  settings = dict(views=dict(text=2), tokenizer=tokenizer, text_length=24) | settings
  batches, iterator = take(count, settings, source or Fields(90), batch_size=90)
  decode = tokenizers.SentencePieceTokenizer(tokenizer).decode
  rows = [(int(index), decode(text)) for batch in batches
          for index, text in zip(batch["index"], batch["text"])]  # fmt: skip
  return rows, batches, iterator


def test_fields_are_drawn_by_weight(tokenizer):
  rows, _, _ = shown(8, tokenizer, captions=dict(alt=0.7, generated=0.3))
  firsts = np.array([[text.split()[0] for text in texts] for _, texts in rows])
  share = (firsts == "alt").mean(0)
  assert (np.abs(share - 0.7) < 0.06).all() and not (firsts == "title").any()
  both = firsts[(firsts != "alt").all(1)]
  assert len(both) > 20 and (both[:, 0] != both[:, 1]).all()  # two views of one field: two captions of it


def test_a_field_that_a_record_lacks_is_left_out(tokenizer):
  rows, _, _ = shown(4, tokenizer, captions=dict(alt=1.0, title=1.0))
  titles = np.array([[text.startswith("title") for text in texts] for _, texts in rows])
  has = np.array([index % 3 == 0 for index, _ in rows])
  assert not titles[~has].any() and 0.35 < titles[has].mean() < 0.65


def test_a_field_a_view(tokenizer):
  rows, _, _ = shown(2, tokenizer, captions=("generated", "alt"))
  assert all(texts[0].split()[0] in ("made", "other") and texts[1] == f"alt {index}" for index, texts in rows)
  settings = dict(captions=("title", "alt"), on_error=dict(max_share=0.9))
  rows, _, iterator = shown(1, tokenizer, **settings)
  assert {index % 3 for index, _ in rows} == {0} and "toy-1: no caption in field 'title'" in iterator.bad_records[1]
  rows, batches, iterator = shown(1, tokenizer, missing="mask", **settings, views=dict(text=2, image=1), image_size=8)
  np.testing.assert_array_equal(batches[0]["present"]["text"], batches[0]["index"] % 3 == 0)


@pytest.mark.parametrize(("given", "message"), [
  (("alt",), r"data.captions: \('alt',\) is not a list of 2 fields, one for each text view"),
  (dict(alto=1.0), "data.captions: no such choice 'alto'; did you mean 'alt'"),
  (dict(alt=0.0), "data.captions.alt: 0.0; give a number above 0, or leave the field out"),
])  # fmt: skip
def test_fields_that_make_no_sense(given, message, tokenizer):
  with pytest.raises(UserError, match=message):
    pipeline.train_batches(dict(views=dict(text=2), captions=given, tokenizer=tokenizer), seed=0,
                           batch_size=8, source=Fields(90))  # fmt: skip


def test_equal_captions_are_one_identity(tokenizer):
  twins = {3: dict(captions={"alt": ["A  Red Ｃar\n"]}), 8: dict(captions={"alt": ["a red car", "another"]})}
  _, (batch,), _ = shown(1, tokenizer, Fields(90, twins), identity="caption")
  ids = dict(zip(batch["index"].tolist(), batch["id"].tolist()))
  assert ids[3] == ids[8] == captions.identity({"alt": ["a red car"]}) and len(set(ids.values())) == 89
  assert min(ids.values()) >= 0
  ids = shown(1, tokenizer, Fields(90, twins))[1][0]
  assert (ids["id"] == 10 * ids["index"]).all()


@pytest.mark.parametrize("text", ["a\ndog", " a  dog\r\n", "A\tDog", "a\x00dog", "\ud800 a\x1b\x1bdog"])
def test_one_text_has_one_preparation_wherever_it_comes_from(text):
  """The ids of training are those of evaluation, search and encode_text, with the tokenizer that mends least."""
  settings = dict(views=dict(text=1), tokenizer="bytes", text_length=24)
  batches, _ = take(1, settings, Toy(20, {row: {"captions": {"caption": [text]}} for row in range(20)}), batch_size=20)
  tokenizer = tokenizers.make_tokenizer("bytes", lower=True)
  model = types.SimpleNamespace(data=resolve({"text_length": 24}), tokenizer=tokenizer)
  ids = Inference.seen(model, "text", [text])
  np.testing.assert_array_equal(batches[0]["text"][0], ids)
  same = "? a dog" if "\ud800" in text else "a dog"
  np.testing.assert_array_equal(Inference.seen(model, "text", [same]), ids)
  assert captions.clean(captions.clean(text, 99), 99) == captions.clean(text, 99)  # once more changes nothing


def test_records_without_a_caption_share_no_identity_with_those_that_have_one():
  """Two of one id, and without a caption to compare, are not one thing; nor are they one with a given number."""
  lacking = {index: {"captions": {"caption": []}, "id": 7} for index in range(4)}
  settings = dict(views=dict(image=1, text=1), tokenizer="bytes", missing="mask", identity="caption", image_size=8)
  batches, _ = take(1, settings, Toy(20, lacking), batch_size=20)
  assert len(set(batches[0]["id"].tolist())) == 20
  where = dict(zip(batches[0]["index"].tolist(), batches[0]["id"].tolist()))
  assert [where[index] for index in range(4)] == [id_of_row(index) for index in range(4)]


def test_words_change_places():
  text = "one two three four"
  assert captions.swapped(text, np.array([0.0, 0.0])) == "two one three four"
  assert captions.swapped(text, np.array([0.9, 0.99])) == "one two four three"
  assert captions.swapped(text, np.array([0.0, 0.0, 0.0, 0.0])) == text  # and back
  assert captions.swapped("one", np.array([0.3, 0.4])) == "one" and captions.swapped("a  b", np.zeros(0)) == "a  b"
  draws = np.random.default_rng(0).random((500, 2))
  made = {captions.swapped(text, own) for own in draws}
  assert len(made) == 6 and text not in made  # all exchanges of two of four


def test_a_copy_with_words_in_other_places():
  """View 1 shows the caption of view 0, two of whose words have changed places, the same at every reading."""
  settings = resolve(dict(views=dict(image=1, text=2), texts="same", word_swaps=(0, 1)))
  text, value = MODALITIES["text"], {"caption": ["a b c d", "e f g h"]}
  counts = text.numbers(settings)
  shown = set()
  for seed in range(20):
    numbers = {stream: np.random.default_rng([seed, stream]).random(count) for stream, count in counts.items()}
    one, other = text.view(value, numbers, settings, {})
    assert one in value["caption"] and one != other and sorted(one) == sorted(other)
    assert text.view(value, numbers, settings, {}) == [one, other]
    assert text.view(value, numbers, {**settings, "as_evaluated": True}, {}) == [one, one]
    shown.add(one)
  assert shown == set(value["caption"])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(texts="equal"), r"data\.texts: no such choice 'equal'"),
    (dict(texts="same", languages=("en", "de")), r"data\.texts: 'same' shows one caption in all views"),
    (dict(texts="same", captions=("a", "b")), r"data\.texts: 'same' shows one caption in all views"),
    (dict(word_swaps=(0,)), r"data\.word_swaps: \(0,\) is not a list of 2 numbers"),
    (dict(word_swaps=(0, -1)), r"data\.word_swaps: \(0, -1\) is not a list of 2 numbers"),
    (dict(word_swaps=1), r"data\.word_swaps: 1 is not a list of 2 numbers"),
  ],
)
def test_wrong_copies(changes, message):
  with pytest.raises(UserError, match=message):
    resolve(dict(views=dict(image=1, text=2)) | changes)
