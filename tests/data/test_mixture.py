"""Mixtures of sources, and examples that lack a modality: schema, ids, errors, and what a train step makes of them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny import LENGTH, SIZE, tiny_config
from toy_source import Toy, take

from mmcontrast.cost import dry_run
from mmcontrast.data import pipeline, sources
from mmcontrast.data.settings import resolve
from mmcontrast.errors import MissingData, UserError
from mmcontrast.training.program import make_method, shapes_of
from mmcontrast.training.step import init_state, train_step


class Pictures(Toy):
  """Images only, of other tags and with a label more."""

  def __init__(self, count):
    super().__init__(count)
    self.info = sources.Info("pictures", ("a",), ("new", "even"), {"kind": ("x", "y")}, caption_fields=())

  def __getitem__(self, index):
    return {**super().__getitem__(index), "captions": {}, "tags": np.array([1, index % 2], np.uint8),
            "labels": {"kind": 1}, "name": f"picture-{index}"}  # fmt: skip


class Elsewhere(Toy):
  """A dataset that is not on this machine."""

  def __init__(self, count):
    raise MissingData("dataset elsewhere: not here; build it")


@pytest.fixture(autouse=True)
def kinds(monkeypatch):
  """toy:COUNT, pictures:COUNT and elsewhere: as kinds of data."""
  for name, kind in (("toy", Toy), ("pictures", Pictures), ("elsewhere", Elsewhere)):
    monkeypatch.setitem(sources.SOURCES, name, lambda path, options, split, data_dir, kind=kind: kind(int(path)))


BOTH = dict(texts=dict(dataset="toy:90", weight=2.0), pictures=dict(dataset="pictures:60"))


@pytest.fixture(scope="module")
def config(data_dir):
  return dict(mixture=BOTH, image_size=8, views=dict(image=1, text=1), missing="mask",
              tokenizer=str(data_dir / "emoji_views" / "tokenizer.model"))  # fmt: skip


def test_a_mixture_has_one_schema():
  mixture = sources.open_source(dict(mixture=BOTH), "train")
  info = mixture.info
  assert len(mixture) == 150 and list(mixture.members) == ["pictures", "texts"]  # by name, however written
  assert info.styles == ("a", "b") and info.tag_names == ("new", "even") and info.caption_fields == ("caption",)
  assert info.label_names == {"kind": ("x", "y"), "parity": ("even", "odd")}
  assert mixture.weights == pytest.approx({"pictures": 1 / 3, "texts": 2 / 3})
  picture, text = mixture[1], mixture[60 + 2]
  assert picture["name"] == "picture-1" and picture["tags"].tolist() == [1, 1]
  assert picture["labels"] == {"kind": 1, "parity": -1}
  assert text["name"] == "toy-2" and text["tags"].tolist() == [0, 1] and text["labels"] == {"kind": -1, "parity": 0}
  assert len({mixture[index]["id"] for index in range(150)}) == 150  # both count from 0, and do not meet
  with pytest.raises(IndexError):
    mixture[150]


def test_batches_of_a_mixture(config):
  batches, iterator = take(6, config, None, batch_size=24)
  for batch in batches:
    assert (batch["index"] < 60).sum() == 8 and len(set(batch["seed"])) == 24
    np.testing.assert_array_equal(batch["present"]["text"], batch["index"] >= 60)
    assert batch["present"]["image"].all()
    np.testing.assert_array_equal(batch["labels"]["parity"] == -1, batch["index"] < 60)
    assert (batch["text"][~batch["present"]["text"]][:, 0, 2:] == 0).all()  # an empty text: bos, eos, padding
  spec = pipeline.spec(config, 24)
  flat = dict(pipeline_leaves(batches[0]))
  assert {name: (leaf.shape, leaf.dtype) for name, leaf in flat.items()} == dict(spec.batch)
  assert spec.examples == 150 and spec.steps_per_epoch == 6 and iterator.counts["data/skipped"] == 0


def pipeline_leaves(batch):
  for name, leaf in batch.items():
    yield from ((f"{name}/{key}", value) for key, value in leaf.items()) if isinstance(leaf, dict) else [(name, leaf)]


def test_a_bad_record_is_replaced_by_one_of_its_own_source(config, monkeypatch):
  broken = dict(images={"a": b"?"})
  monkeypatch.setitem(sources.SOURCES, "toy", lambda *_: Toy(90, {0: broken, 89: broken}))
  batches, iterator = take(12, {**config, "on_error": dict(max_share=0.05)}, None, batch_size=24)
  found = np.concatenate([batch["index"] for batch in batches])
  assert {60, 149}.isdisjoint(found) and iterator.counts["data/bad_records"] == 2
  assert list(iterator.bad_records) == [60, 149]
  assert (found < 60).sum() == 12 * 8
  with pytest.raises(UserError, match=r"dataset texts \(toy\), record (0|89): .* 1 of 90 records are bad"):
    take(12, {**config, "on_error": dict(max_share=0.01)}, None, batch_size=24)


def test_any_step_and_any_process_see_the_same_of_a_mixture(config, monkeypatch):
  """Replacements and masks, too."""
  broken = {index: dict(images={"a": b"?"}) for index in (4, 5)} | {9: dict(captions={"caption": ["x" * 99]})}
  monkeypatch.setitem(sources.SOURCES, "toy", lambda *_: Toy(90, broken))
  settings = {**config, "filter": dict(max_caption=50), "on_error": dict(max_share=0.05)}
  whole = [dict(pipeline_leaves(batch)) for batch in take(6, settings, None, batch_size=24)[0]]
  halves = [take(3, settings, None, batch_size=24, start_step=3, process_index=number, process_count=2)[0]
            for number in range(2)]  # fmt: skip
  for expected, *parts in zip(whole[3:], *halves):
    first, second = (dict(pipeline_leaves(part)) for part in parts)
    assert expected.keys() == first.keys()
    for name, leaf in expected.items():
      np.testing.assert_array_equal(np.concatenate([first[name], second[name]]), leaf, err_msg=name)


@pytest.mark.parametrize(("mixture", "message"), [
  (dict(a="toy:9"), "data.mixture.a: 'toy:9' names no dataset; give dict"),
  (dict(a=dict(dataset="toy:9", wait=1)), "data.mixture.a: no option 'wait'; did you mean 'weight'"),
  (dict(a=dict(dataset="toy:9", weight=0)), "data.mixture.a.weight: 0; give a number above 0, or leave 'a' out"),
  (dict(a=dict(dataset="toy:9", weight=-1.0)), "data.mixture.a.weight: -1.0; give a number above 0"),
  (dict(a=dict(dataset="toi:9")), "data.mixture.a: data.dataset: no such choice 'toi'; did you mean 'toy'"),
  (dict(a=dict(dataset="toy:0"), b=dict(dataset="toy:9")), "data.mixture.a: toy has no examples; leave it out"),
])  # fmt: skip
def test_a_wrong_mixture_is_named(mixture, message):
  with pytest.raises(UserError, match=message):
    sources.open_source(dict(mixture=mixture), "train")


def test_labels_of_one_name_must_agree(monkeypatch):
  other = Toy(9)
  other.info = dataclasses.replace(other.info, label_names={"parity": ("odd", "even")})
  monkeypatch.setitem(sources.SOURCES, "pictures", lambda *_: other)
  with pytest.raises(UserError, match="label 'parity' has other classes in 'texts' than in 'pictures'"):
    sources.open_source(dict(mixture=BOTH), "train")


def test_a_share_of_more_than_there_is(config):
  mixture = {**BOTH, "pictures": dict(dataset="pictures:5")}
  with pytest.raises(UserError, match=r"data.mixture.pictures.weight: makes 8 rows of a batch of 24, more than its 5"):
    pipeline.spec({**config, "mixture": mixture}, 24)


def test_captions_that_are_nowhere_are_an_error_before_anything_is_read(config):
  expected = "data.views.text: dataset pictures has no captions at all; set it to 0, or data.missing='mask' to train"
  with pytest.raises(UserError, match=expected):
    pipeline.spec({**config, "missing": "skip"}, 24)
  alone = {**config, "mixture": {}, "dataset": "pictures:60"}
  for missing in ("skip", "mask"):
    with pytest.raises(UserError, match=r"dataset pictures has no captions at all; set it to 0$"):
      pipeline.spec({**alone, "missing": missing}, 24)


def test_a_record_without_a_caption_or_an_image_is_left_out_or_bad_or_masked(config):
  broken = {1: dict(captions={}), 2: dict(images={}), 3: dict(captions={"caption": [" "]}, images={})}
  settings = {**config, "mixture": {}, "on_error": dict(max_share=0.1)}
  batches, iterator = take(1, {**settings, "missing": "bad"}, Toy(60, broken), batch_size=60)
  assert set(iterator.bad_records) == {1, 2, 3} and "present" not in batches[0]
  batches, iterator = take(1, {**settings, "missing": "skip"}, Toy(60, broken), batch_size=60)
  assert not iterator.bad_records and iterator.filtered == {"no image": 2, "no caption": 1}
  assert "present" not in batches[0]
  (batch,), iterator = take(1, settings, Toy(60, broken), batch_size=60)
  assert iterator.bad_records == {3: "toy-3: nothing that the views need"}
  where = {index: list(batch["index"]).index(index) for index in (1, 2)}
  assert not batch["present"]["text"][where[1]] and not batch["present"]["image"][where[2]]
  assert batch["present"]["image"].sum() == 59 == batch["present"]["text"].sum()
  assert not batch["image"][where[2]].any() and batch["image"][where[1]].any()


def test_dry_run_knows_of_masks_without_the_data(config):
  whole = tiny_config(data={**config, "mixture": dict(a=dict(dataset="elsewhere:1"))})
  spec, text = dry_run.find_spec(whole, None)
  assert spec.batch["present/text"] == ((16,), np.dtype(bool)) and "data.mixture.a: dataset elsewhere" in text
  spec, text = dry_run.find_spec(tiny_config(data=config), None)
  assert "present/image" in spec.batch and text == "texts + pictures, 150 examples"


def test_an_example_without_a_text_is_nothing_to_the_terms_of_texts(config):
  """Not its loss, not its counts, not its gradient: as if it were padding."""
  settings = {**config, "image_size": SIZE, "text_length": LENGTH, "views": dict(image=2, text=1)}
  terms = dict(
    images=dict(query="image[0]/image_ssl", key="image[1]/image_ssl", temperature=0.1),
    pairs=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both", temperature=0.1),
  )
  heads = {head: dict(tower=head.split("_")[0], name="linear", dim=8)
           for head in ("image_ssl", "image_joint", "text_joint")}  # fmt: skip
  whole = tiny_config(data=resolve(settings), objective=terms, heads=heads, augment=dict(image="none"),
                      optimizer=dict(name="sgd", learning_rate=1.0))  # fmt: skip
  spec = pipeline.spec(settings, 16)
  method = make_method(whole, spec)
  batch = take(1, settings, None, batch_size=16)[0][0]
  absent = ~batch["present"]["text"]
  assert 0 < absent.sum() < 16
  assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes_of(spec)) == jax.tree.map(
    lambda leaf: (leaf.shape, leaf.dtype), batch
  )
  start = jax.jit(functools.partial(init_state, method))(batch)
  step = jax.jit(functools.partial(train_step, method, None))
  after, there = step(start, batch)
  images = np.where(absent[:, None, None, None, None], 255 - batch["image"], batch["image"])
  texts = np.where(absent[:, None, None], batch["text"][:, :, ::-1], batch["text"])
  after_other, other = step(start, {**batch, "image": images, "text": texts})
  padding = step(start, {**batch, "valid": ~absent})[1]
  for name in (name for name in there if name.startswith("pairs/")):
    np.testing.assert_allclose(other[name], there[name], rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(padding[name], there[name], rtol=1e-5, err_msg=name)
  towers = [jax.tree.leaves(state.params["towers"]["text"]) for state in (start, after, after_other)]
  assert any((np.abs(was - now) > 1e-4).any() for was, now, _ in zip(*towers))
  for _, now, same in zip(*towers):
    np.testing.assert_allclose(same, now, rtol=1e-4, atol=1e-6)
  assert abs(other["images/loss"] - there["images/loss"]) > 1e-3 < abs(padding["images/loss"] - there["images/loss"])
  everyone = step(start, {**batch, "present": {**batch["present"], "text": np.ones(16, bool)}})[1]
  assert abs(everyone["pairs/loss"] - there["pairs/loss"]) > 1e-3
