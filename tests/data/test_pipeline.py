"""The training pipeline: order, resume, slices, threads, views, bad records, settings."""

import dataclasses
import io

import ml_collections
import numpy as np
import pytest
from PIL import Image
from toy_source import BATCH, Toy, take

from mmcontrast.data import pipeline, tokenizers
from mmcontrast.data.images import decode
from mmcontrast.data.order import Epochs, Order
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError


@pytest.fixture(scope="module")
def config(data_dir):
  return dict(image_size=12, tokenizer=str(data_dir / "emoji_views" / "tokenizer.model"))


def assert_same(left, right):
  assert left.keys() == right.keys()
  for key in left:
    if key == "labels":
      assert_same(left[key], right[key])
    else:
      np.testing.assert_array_equal(left[key], right[key], err_msg=key)


def test_batch_of_real_data_keeps_the_contract(data_dir):
  config = ml_collections.ConfigDict(dict(split="all", image_size=24, views=dict(image=2, text=2)))
  iterator = pipeline.train_batches(config, seed=0, batch_size=64, data_dir=data_dir)
  batch = next(iterator)
  iterator.close()
  spec = pipeline.spec(config, 64, data_dir)
  flat = {**{k: v for k, v in batch.items() if k != "labels"},
          **{f"labels/{k}": v for k, v in batch["labels"].items()}}  # fmt: skip
  assert {k: (v.shape, v.dtype) for k, v in flat.items()} == spec.batch
  assert spec.examples == 1903 and spec.steps_per_epoch == 29 and spec.vocab_size == 2000
  assert batch["image"].shape == (64, 2, 24, 24, 3) and batch["text"].shape == (64, 2, 16)
  assert batch["valid"].all() and len(set(batch["id"])) == 64
  assert batch["image"].std(axis=(2, 3, 4)).min() > 0  # no view is blank


def test_views_are_two_drawings_and_two_captions(data_dir):
  source = emoji.open_built("emoji_views", "train", data_dir)
  whole = dict(scale=(1.0, 1.0), ratio=(1.0, 1.0))
  config = dict(image_size=96, crop=whole)
  iterator = pipeline.train_batches(config, seed=0, batch_size=64, data_dir=data_dir)
  batch = next(iterator)
  iterator.close()
  swapped = 0
  for row, index in enumerate(batch["index"]):
    record = source[int(index)]
    drawings = [decode(d) for d in record["images"].values()]
    views = list(batch["image"][row])
    straight = all((a == b).all() for a, b in zip(views, drawings))
    crossed = all((a == b).all() for a, b in zip(views, drawings[::-1]))
    assert straight or crossed
    swapped += crossed
    same_text = (batch["text"][row, 0] == batch["text"][row, 1]).all()
    assert same_text == (len(record["captions"]["caption"]) == 1)
  assert 16 < swapped < 48  # each style comes first about as often


def test_order_is_a_function_of_seed_and_step(config):
  source = Toy(200)
  batches, _ = take(9, config, source)
  again, _ = take(9, config, source)
  other, _ = take(9, config, source, seed=4)
  for left, right in zip(batches, again):
    assert_same(left, right)
  assert any((a["index"] != b["index"]).any() for a, b in zip(batches, other))
  epochs = [np.concatenate([b["index"] for b in batches[e : e + 4]]) for e in (0, 4)]
  for epoch in epochs:  # 4 steps an epoch: 192 of the 200, none twice
    assert len(set(epoch)) == 192
  assert (epochs[0] != epochs[1]).any()
  first, later = ({i: s for b in batches[e : e + 4] for i, s in zip(b["index"], b["seed"])}
                  for e in (0, 4))  # fmt: skip
  assert not any(first[i] == later[i] for i in first.keys() & later.keys())


@pytest.mark.parametrize("step", [1, 3, 4, 7])
def test_starts_at_any_step(config, step):
  source = Toy(200)
  batches, _ = take(9, config, source)
  resumed, iterator = take(9 - step, config, source, start_step=step)
  assert iterator.step == 9
  for left, right in zip(batches[step:], resumed):
    assert_same(left, right)


def test_a_far_step_costs_no_more(config):
  order = Order(Epochs(200, 0, BATCH), BATCH, start_step=10**9)
  epochs, indices = order[0]
  assert (epochs == 10**9 // 4).all() and len(set(indices)) == len(indices) == 24


@pytest.mark.parametrize("options", [
  dict(read=dict(threads=1, prefetch=1)), dict(read=dict(threads=7, prefetch=9)),
  dict(cache="none"), dict(cache="decoded"),
])  # fmt: skip
def test_threads_and_cache_change_nothing(config, options):
  source = Toy(200)
  for left, right in zip(take(6, config, source)[0], take(6, {**config, **options}, source)[0]):
    assert_same(left, right)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_process_slices_make_up_the_global_batch(config, count):
  source = Toy(200)
  whole, _ = take(5, config, source)
  parts = [take(5, config, source, process_index=i, process_count=count)[0] for i in range(count)]
  for step, batch in enumerate(whole):
    for key in ("index", "image", "text", "seed", "tags"):
      joined = np.concatenate([part[step][key] for part in parts])
      np.testing.assert_array_equal(joined, batch[key])


class TwoDrawings(Toy):
  """A dark and a light drawing of each, brighter from left to right."""

  def __getitem__(self, index):
    record = super().__getitem__(index)
    for style, colour in (("a", 10), ("b", 190)):
      ramp = np.tile(np.arange(12, dtype=np.uint8) * 3 + colour, (12, 1))
      buffer = io.BytesIO()
      Image.fromarray(np.stack([ramp] * 3, -1)).save(buffer, "png")
      record["images"][style] = buffer.getvalue()
    return record


def test_drawings_option(config):
  def share_equal(option):
    batch = take(1, {**config, "drawings": option}, TwoDrawings(100), batch_size=96)[0][0]
    light = batch["image"][:, :, 0, 0, 0] > 100
    assert 0 < light.mean() < 1
    return (light[:, 0] == light[:, 1]).mean()

  assert share_equal("distinct") == 0 and share_equal("same") == 1
  assert 0.3 < share_equal("any") < 0.7


def test_four_views_are_two_drawings_twice(config):
  """Each comes again in the same order, cropped anew; either may come first."""
  batch = take(1, {**config, "views": dict(image=4)}, TwoDrawings(100), batch_size=96)[0][0]
  light = batch["image"].mean((2, 3, 4)) > 100  # [96, 4]
  np.testing.assert_array_equal(light[:, 2:], light[:, :2])
  assert (light[:, 0] != light[:, 1]).all() and 24 < light[:, 0].sum() < 72
  again = (batch["image"][:, :2] == batch["image"][:, 2:]).all((2, 3, 4))
  assert again.mean() < 0.05


def test_a_modality_may_be_left_out(config):
  batch = take(1, {**config, "views": dict(image=2)}, Toy(60))[0][0]
  assert "text" not in batch and batch["image"].shape[1] == 2
  batch = take(1, {**config, "views": dict(text=1)}, Toy(60))[0][0]
  assert "image" not in batch and batch["text"].shape == (BATCH, 1, 16)


@pytest.mark.parametrize("broken, reason", [
  (dict(images={"a": b"not an image", "b": b""}), "readable image"),
  (dict(captions={"caption": ["", "  "]}), "empty caption"),
  (dict(images={}), "no image"),
])  # fmt: skip
def test_a_bad_record_is_replaced_and_counted(config, broken, reason):
  bad = Toy(200, {17: broken})
  config = {**config, "on_error": dict(max_share=0.01), "missing": "bad"}
  batches, iterator = take(8, config, bad)
  good, _ = take(8, config, Toy(200))
  wanted = np.concatenate([batch["index"] for batch in good])
  found = np.concatenate([batch["index"] for batch in batches])
  assert 17 not in found and (found[wanted == 17] == 18).all()
  assert (found[wanted != 17] == wanted[wanted != 17]).all()
  assert iterator.counts["data/skipped"] == (wanted == 17).sum() >= 1
  assert list(iterator.bad_records) == [17] and reason in iterator.bad_records[17]
  resumed, _ = take(4, config, bad, start_step=4)
  for left, right in zip(batches[4:], resumed):
    assert_same(left, right)


def test_records_without_an_image_are_left_out_and_no_fault(config):
  lacking = {index: dict(images={}, captions={}) for index in range(0, 200, 5)}  # as failed downloads are
  config = {**config, "on_error": dict(max_share=0.01)}
  batches, iterator = take(8, config, Toy(200, lacking))
  found = np.concatenate([batch["index"] for batch in batches])
  assert not (found % 5 == 0).any() and not iterator.bad_records and iterator.filtered["no image"] > 20
  assert "0 bad records" in iterator.summary() and "(no image " in iterator.summary()
  kept, iterator = take(8, {**config, "missing": "mask"}, Toy(200, {5: dict(images={})}))
  assert 5 in np.concatenate([batch["index"] for batch in kept]) and not iterator.filtered
  with pytest.raises(UserError, match=r"toy-\d+: no image; \d of 200 records are bad, more than data.on_error"):
    take(8, {**config, "missing": "bad"}, Toy(200, lacking))
  with pytest.raises(UserError, match=r"0 bad, 60 filtered \(no image 60\); no image: does data.source.image name"):
    take(1, config, Toy(60, {index: dict(images={}) for index in range(60)}))


def test_records_without_a_caption_are_left_out_and_no_fault(config):
  lacking = {index: dict(captions={"caption": []} if index % 2 else {}) for index in range(0, 200, 5)}
  config = {**config, "on_error": dict(max_share=0.01)}
  batches, iterator = take(8, config, Toy(200, lacking))
  found = np.concatenate([batch["index"] for batch in batches])
  assert not (found % 5 == 0).any() and not iterator.bad_records and iterator.filtered["no caption"] > 20
  with pytest.raises(UserError, match=r"toy-\d+: no caption; \d of 200 records are bad"):
    take(8, {**config, "missing": "bad"}, Toy(200, lacking))
  with pytest.raises(UserError, match=r"\(no caption 60\); no caption: does data.source.caption name where they are"):
    take(1, config, Toy(60, {index: dict(captions={}) for index in range(60)}))


def test_too_many_bad_records_stop_the_run(config):
  broken = {index: dict(captions={"caption": [""]}) for index in (5, 50, 150)}
  expected = r"toy, record \d+: toy-\d+: empty caption; 3 of 200 .*max_share"
  with pytest.raises(UserError, match=expected):
    take(8, config, Toy(200, broken))
  with pytest.raises(UserError, match="1 of 200"):
    take(8, {**config, "on_error": dict(max_share=0.0)}, Toy(200, {5: broken[5]}))


def test_a_file_that_cannot_be_read_is_a_bad_record(config):
  class Unreadable(Toy):
    def __getitem__(self, index):
      if index == 3:
        raise FileNotFoundError(2, "No such file", "three.jpg")
      return super().__getitem__(index)

  _, iterator = take(8, config, Unreadable(200))
  assert "three.jpg" in iterator.bad_records[3]


@pytest.mark.parametrize("wrong, message", [
  (dict(image_sise=3), "did you mean 'image_size'"),
  (dict(centre_crop=1.5), "data.centre_crop: 1.5; give a share"),
  (dict(crop=dict(scail=(0.1, 1))), "data.crop.scail: unknown key; did you mean 'scale'"),
  (dict(crop=dict(scale=(0.5, 1.5))), "data.crop.scale"),
  (dict(views=dict(audoi=1)), "data.views.audoi: unknown key; did you mean 'audio'"),
  (dict(views=dict(audio=1)), "data.views.audio: dataset toy has no sounds"),
  (dict(views=dict(image=0, text=0)), "no view at all"),
  (dict(drawings="distict"), "did you mean 'distinct'"),
  (dict(token_ids=dict(eos=9)), "eos_id is 2, the config says 9"),
  (dict(tokenizer="sentencepiece"), "toy has no tokenizer"),
  (dict(text_length=2), "data.text_length"),
  (dict(views=3), "data.views: 3 is not a table"),
])  # fmt: skip
def test_wrong_settings_are_named(config, wrong, message):
  with pytest.raises(UserError, match=message):
    take(1, {**config, **wrong}, Toy(60))


def test_batches_that_cannot_be(config, data_dir):
  with pytest.raises(UserError, match="more than the 60 examples"):
    take(1, config, Toy(60), batch_size=61)
  with pytest.raises(UserError, match="does not divide over 3 processes"):
    take(1, config, Toy(60), batch_size=50, process_count=3)
  with pytest.raises(UserError, match="did you mean 'emoji_views'"):
    pipeline.spec(dict(dataset="emoji_view"), 8, data_dir)


def languages_of(config, data_dir, batch_size=64):
  """One batch of emoji_views with these settings, and its records."""
  source = emoji.open_built("emoji_views", "all", data_dir)
  config = dict(config, split="all", image_size=12)
  batch = take(1, config, source, batch_size, data_dir=data_dir)[0][0]
  return batch, [source[int(index)] for index in batch["index"]]


def test_text_views_in_languages(data_dir):
  languages = ("en", "ja", "de")
  batch, records = languages_of(dict(views=dict(text=3), languages=languages, text_length=80), data_dir)
  tokenizer = tokenizers.SentencePieceTokenizer(data_dir / "emoji_views" / "tokenizer.model")
  for view, language in enumerate(languages):
    names = [record["names"][language] for record in records]
    np.testing.assert_array_equal(batch["text"][:, view], tokenizer.encode(names, 80), err_msg=language)


def test_fewer_views_than_languages_are_drawn_from_them(data_dir):
  languages = ("en", "ja", "ru")
  batch, records = languages_of(dict(views=dict(text=2), languages=languages, text_length=120), data_dir)
  tokenizer = tokenizers.SentencePieceTokenizer(data_dir / "emoji_views" / "tokenizer.model")
  drawn = np.zeros((2, 3), int)
  for row, record in enumerate(records):
    options = tokenizer.encode([record["names"][language] for language in languages], 120)
    found = [next(k for k, option in enumerate(options) if (option == view).all()) for view in batch["text"][row]]
    assert found[0] != found[1]
    drawn[np.arange(2), found] += 1
  assert (drawn > 5).all()  # each language in each view


def test_an_example_without_a_name_in_a_language_is_a_bad_record(config):
  named = {"en": "one", "de": "eins"}
  source = Toy(100, {index: {"names": {**named, "de": " "} if index == 7 else named} for index in range(100)})
  source.info = dataclasses.replace(source.info, languages=("en", "de"))
  settings = dict(config, views=dict(text=2), languages=("en", "de"))
  batches, iterator = take(2, settings, source)
  assert iterator.bad_records == {7: "toy-7: no name in language 'de'"}
  assert not any((batch["index"] == 7).any() for batch in batches)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (dict(languages="de"), r"data.languages: 'de' is not a list of different languages, such as \('en', 'de'\)"),
    (dict(languages=("de", "de")), "is not a list of different languages"),
    (dict(languages=("en", "dr")), "data.languages: no such choice 'dr'; did you mean 'tr'"),
    (dict(languages=("en",)), "data.views.text: 2 views of 1 languages; set it to 1"),
    (dict(languages=("en", "de"), views=dict(image=2)), "data.views.text: 0 views of 2 languages"),
  ],
)
def test_languages_that_make_no_sense(change, message, data_dir):
  with pytest.raises(UserError, match=message):
    pipeline.spec(dict(split="all", **change), 16, data_dir)


def test_a_dataset_without_languages_says_so(config):
  with pytest.raises(UserError, match="dataset toy has no names in any language; leave it empty"):
    pipeline.train_batches(dict(config, languages=("en", "de")), seed=0, batch_size=16, source=Toy(100))
