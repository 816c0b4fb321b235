"""Evaluation sets: counts, ids that join images and captions, splits, styles."""

import numpy as np
import pytest
from own_data import COUNT, OPTIONS, encode, picture, rows, write, write_own_data

from mmcontrast.data import trained_on
from mmcontrast.data.evaluation_set import load_configured_set, load_evaluation_set, open_configured_set
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError

SEEN, HELD, OTHER = trained_on.TRAINED_ON, trained_on.HELD_OUT, trained_on.OTHER_DATA


def test_emoji_views_by_style(data_dir):
  twemoji = load_evaluation_set("emoji_views", "all", dict(image_size=32), data_dir)
  openmoji = load_evaluation_set("emoji_views", "all", dict(image_size=32), data_dir, style="openmoji")
  assert twemoji.name == "emoji_views_twemoji" and twemoji.seen
  assert twemoji.things["image"].values.shape == (1903, 32, 32, 3) and twemoji.things["image"].values.dtype == np.uint8
  assert len(twemoji.things["text"].values) == 1903 and sorted(twemoji.things["image"].concept) == list(range(1903))
  assert twemoji.tags.shape == (1903, 241) and len(twemoji.tag_names) == 241
  assert (twemoji.things["image"].concept == openmoji.things["image"].concept).all()
  assert not (twemoji.things["image"].values == openmoji.things["image"].values).all()
  assert {s: int((twemoji.split == s).sum()) for s in ("train", "validation", "test")} == {
    "train": 1487, "validation": 214, "test": 202}  # fmt: skip
  row = list(twemoji.things["image"].concept).index(twemoji.things["text"].values.index("pizza"))
  assert twemoji.label_names["group"][twemoji.labels["group"][row]] == "Food & Drink"


def test_a_split_keeps_all_names_as_rivals(data_dir):
  test = load_evaluation_set("emoji_views", "test", dict(image_size=16), data_dir)
  assert len(test.things["image"].values) == 202 and len(test.things["text"].values) == 1903
  assert set(test.split) == {"test"}


def test_trim_enlarges_the_style_with_wide_margins(data_dir):
  plain, trimmed = (
    load_evaluation_set("emoji_views", "test", dict(image_size=48, trim=trim), data_dir, style="openmoji")
    for trim in (False, True)
  )
  ink = [(s.things["image"].values.min(axis=-1) < 250).mean() for s in (plain, trimmed)]
  assert ink[1] > 1.3 * ink[0]


@pytest.mark.parametrize("wrong, message", [
  (dict(name="emoji_veiws"), "did you mean 'emoji_views'"),
  (dict(name="emoji_views", style="twemojis"), "did you mean 'twemoji'"),
  (dict(name="emoji_views", split="tests"), "did you mean 'test'"),
])  # fmt: skip
def test_wrong_choices_are_named(data_dir, wrong, message):
  with pytest.raises(UserError, match=message):
    load_evaluation_set(data=dict(image_size=16), data_dir=data_dir, **wrong)


def own(tmp_path, data=b"", trained_source=OPTIONS, **given):
  """A set of your own, of a folder with 24 images and two captions each, 16 px."""
  folder = tmp_path / "own"
  write_own_data(str(folder), "jsonl")
  if data:
    write(str(folder / "rows-001.jsonl"), data)
  trained_on = {"dataset": f"jsonl:{folder}/*.jsonl", "source": trained_source, "split": "train", "image_size": 16}
  return load_configured_set("mine", given, trained_on)


def test_a_set_of_your_own(tmp_path):
  found = own(tmp_path)
  assert (
    found.things["image"].values.shape == (COUNT, 16, 16, 3)
    and len(set(map(bytes, found.things["image"].values))) == COUNT
  )
  assert len(found.things["text"].values) == 2 * COUNT
  for index, row in enumerate(rows()):
    assert found.things["text"].values[2 * index : 2 * index + 2] == [row["caption"].replace("\n", " "), row["alt"]]
    assert (found.things["text"].concept[2 * index : 2 * index + 2] == found.things["image"].concept[index]).all()
    assert found.label_names["kind"][found.labels["kind"][index]] == row["kind"]
  assert found.tags.sum() == sum(n % 4 for n in range(COUNT)) and found.tag_names == ["old", "red", "round"]
  assert found.seen and set(found.split) == {"validation"}


def test_the_split_says_what_is_seen_and_what_probes_train_on(tmp_path):
  source = {**OPTIONS, "splits": {"train": 0.5, "validation": 0.5}}
  parts = [own(tmp_path, trained_source=source, split=split) for split in ("train", "validation")]
  assert [part.seen for part in parts] == [True, False]
  assert [set(part.split) for part in parts] == [{"train"}, {"validation"}]
  assert sum(len(part.things["image"].values) for part in parts) == COUNT
  mixture = {"a": {"dataset": "emoji_views"}, "b": {"dataset": f"jsonl:{tmp_path}/own/*.jsonl"}}
  seen = [load_configured_set("mine", {**mixture[name], **given}, {"dataset": "", "split": "train", "mixture": mixture,
                       "image_size": 4}, tmp_path).seen for name, given in (
    ("b", {"split": "all", "source": {}}), ("b", {"split": "validation", "source": source}))]  # fmt: skip
  assert seen == [True, True]  # without shares of its own, all of b is trained on
  one_file = own(tmp_path, dataset=f"jsonl:{tmp_path}/own/rows-000.jsonl", source={"image": "image"})
  assert len(one_file.things["image"].values) == COUNT // 2 and one_file.seen and one_file.labels == {}


SHARES = {"splits": {"train": 0.8, "validation": 0.2}}


@pytest.mark.parametrize("trained, given, expected", [
  (dict(dataset="csv:/d/a.csv", source=SHARES), dict(dataset="csv:/d/a.csv", source=SHARES, split="validation"), HELD),
  (dict(dataset="csv:/d/a.csv", source=SHARES), dict(dataset="csv:/d/../d/a.csv", source=SHARES, split="all"), SEEN),
  (dict(dataset="csv:/d/a.csv", source=SHARES, split="all"),
   dict(dataset="csv:/d/a.csv", source=SHARES, split="validation"), SEEN),
  (dict(dataset="csv:/d/a.csv"), dict(dataset="csv:/d/a.csv", source=SHARES, split="validation"), SEEN),
  (dict(dataset="csv:/d/train.csv"), dict(dataset="csv:/d/val.csv"), HELD),
  (dict(dataset="csv:/d/{split}.csv"), dict(dataset="csv:/d/{split}.csv", split="val"), HELD),
  (dict(dataset="csv:/d/{split}.csv"), dict(dataset="csv:/d/train.csv", split="all"), SEEN),
  (dict(dataset="folder:/d/{split}"), dict(dataset="folder:/d/{split}", split="val"), HELD),
  (dict(dataset="folder:/d/train"), dict(dataset="folder:/d"), SEEN),
  (dict(dataset="coco:/d"), dict(dataset="coco:/d", split="val"), HELD),
  (dict(dataset="coco:/d", split="val"), dict(dataset="coco:/d", split="validation"), SEEN),
  (dict(dataset="folder:/d"), dict(dataset="emoji_views"), OTHER),
  (dict(dataset="csv:/d/a.csv"), dict(dataset="csv:/e/a.csv"), OTHER),
  (dict(dataset="emoji_views"), dict(dataset="emoji_noto"), HELD),
  (dict(dataset="emoji_views"), dict(dataset="emoji_views", split="validation"), SEEN),
  (dict(mixture={"a": {"dataset": "folder:/d"}, "b": {"dataset": "csv:/d/a.csv"}}), dict(dataset="csv:/d/a.csv"), SEEN),
])  # fmt: skip
def test_what_is_trained_on_and_what_is_held_out(trained, given, expected):
  data = resolve({"image_size": 4, **trained})
  given = {"source": {}, "split": "train", **given}
  assert trained_on.relation(data=data, **given) == expected


def test_the_emoji_are_other_data_to_a_run_that_trains_on_a_folder(data_dir, capsys):
  found = load_evaluation_set("emoji_views", "test", dict(image_size=4, dataset="folder:/d/a folder"), data_dir)
  assert not found.seen and found.trains_probes
  said = capsys.readouterr().err
  assert said.strip() == (
    "evaluation set emoji_views is of other data (emoji_views) than the run trains on (folder:/d/a folder)"
  )


def test_a_run_that_was_imported_has_trained_on_nothing_known(tmp_path, data_dir, capsys):
  assert not load_evaluation_set("emoji_views", "test", dict(image_size=4), data_dir, trained=False).seen
  write_own_data(str(tmp_path), "jsonl")
  given = {"dataset": f"jsonl:{tmp_path}/*.jsonl", "source": OPTIONS}
  assert not load_configured_set("mine", given, {"image_size": 4}, trained=False).seen
  assert "other data" not in capsys.readouterr().err


def test_ids_that_stand_for_rows_are_of_their_own_data(tmp_path):
  source = {"caption": "caption"}
  parts = [own(tmp_path, dataset=f"jsonl:{tmp_path}/own/rows-00{n}.jsonl", source=source) for n in (0, 1)]
  assert (parts[0].things["image"].concept == parts[1].things["image"].concept).all() and parts[0].id_space[0] != parts[
    1
  ].id_space[0]
  keyed = [own(tmp_path, dataset=f"jsonl:{tmp_path}/own/rows-00{n}.jsonl", source={**source, "id": "key"})
           for n in (0, 1)]  # fmt: skip
  assert keyed[0].id_space[0] == keyed[1].id_space[0]
  table = [row | ({"key": None} if n % 2 else {}) for n, row in enumerate(rows(4))]
  path = write(str(tmp_path / "some.jsonl"), encode("jsonl", table))
  some = own(tmp_path, dataset=f"jsonl:{path}", source={"image": None, "caption": "caption", "id": "key"})
  assert len(set(some.things["text"].concept.tolist())) == 4  # two keys, and two rows without


def test_text_views_of_each_example(tmp_path):
  found = own(tmp_path)  # two text views of two fields, one caption each
  table = rows()
  texts = [[found.views["text"].values[place] for place in view] for view in found.views["text"].index]
  assert [texts[1][n] for n in (0, 5)] == [table[n]["alt"] for n in (0, 5)]
  assert texts[0][0] == table[0]["caption"].replace("\n", " ")
  assert (found.views["image"].index == np.arange(COUNT)).all()
  assert (found.example_id == found.things["image"].concept).all()


def test_images_alone_and_captions_alone(tmp_path):
  images = own(tmp_path, source={"caption": None})
  assert [*images.things] == ["image"] and len(images.things["image"].values) == COUNT
  assert images.tags.shape == (COUNT, 0)
  texts = own(tmp_path, source={"image": None})
  assert len(texts.things["text"].values) == COUNT and [*texts.things] == ["text"]


def test_few_bad_records_are_left_out_and_named(tmp_path, capsys):
  torn = encode("jsonl", rows(200)[COUNT // 2 : COUNT] * 20) + b'{"image": "images/00.png", "caption'
  found = own(tmp_path, torn)
  assert len(found.things["image"].values) == len(found.labels["kind"]) == len(found.tags) == COUNT // 2 * 21
  assert "1 of 253 records cannot be used, such as" in (said := capsys.readouterr().err)
  assert "rows-001.jsonl:241: not JSON" in said and "left out" in said
  with pytest.raises(UserError, match=r"1 of 14 records.*rows-001\.jsonl:1: not JSON.*max_share=0\.01"):
    own(tmp_path, b'{"torn\n' + encode("jsonl", rows(1)))


@pytest.mark.parametrize("name, given, message", [
  ("mine", {"datset": "x"}, r"evaluation\.data\.mine\.datset: unknown key; did you mean 'dataset'"),
  ("mine", "jsonl:x", "is not a table such as"),
  ("a:b", {}, "no ':' or '/'"),
  ("emoji_views", {}, "is none of emoji_views"),
  ("mine", {"dataset": "jsonl:/nowhere.jsonl"}, r"evaluation\.data\.mine: /nowhere\.jsonl: no such file"),
  ("mine", {"split": "validation"}, r"evaluation\.data\.mine: .*has no split 'validation'"),
])  # fmt: skip
def test_mistakes_in_a_set_of_your_own(name, given, message, tmp_path):
  path = write(str(tmp_path / "x.jsonl"), encode("jsonl", rows()))
  with pytest.raises(UserError, match=message):
    open_configured_set(name, given, {"dataset": f"jsonl:{path}", "source": {"image": None}})


def test_records_without_an_image_are_left_out_as_in_training(tmp_path, capsys):
  table = rows()
  for number, row in enumerate(table):
    write(f"{tmp_path}/{row['image']}", b"" if number == 0 else picture(number))
    row["image"] = None if number % 4 == 3 else row["image"]  # a failed download
  path = write(f"{tmp_path}/rows.jsonl", encode("jsonl", table))
  data = dict(dataset=f"jsonl:{path}", image_size=8, on_error=dict(max_share=0.05))
  found = load_configured_set("mine", {}, data)
  assert (
    len(found.things["image"].values) == len(found.things["text"].values) == COUNT * 3 // 4 - 1
  )  # the empty file is a bad record
  error = capsys.readouterr().err
  assert "6 of 24 records have no image and are left out" in error and "1 of 24 records cannot be used" in error
  assert len(load_configured_set("mine", {}, {**data, "missing": "mask"}).things["text"].values) == COUNT - 1
  path = write(f"{tmp_path}/texts.jsonl", encode("jsonl", table[3::4]))
  texts = load_configured_set("texts", dict(dataset=f"jsonl:{path}"), data)
  assert len(texts.things["image"].values) == 0 and len(texts.things["text"].values) == 6
  write(f"{tmp_path}/none.jsonl", encode("jsonl", [{"image": None, "caption": None}] * 3))
  with pytest.raises(UserError, match=r"3 of 3 records cannot be used, such as .*none\.jsonl:1: neither an"):
    load_configured_set("none", dict(dataset=f"jsonl:{tmp_path}/none.jsonl"), data)
