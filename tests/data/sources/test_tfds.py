"""TFDS datasets: emoji_views as one of any, and a small coco_captions of the real one's features."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from shard_fixture import jpeg

from mmcontrast.data.sources import emoji, open_source
from mmcontrast.errors import MissingData, UserError


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  """A folder with coco_captions, three examples a split: n captions, n objects, one group."""
  folder = tmp_path_factory.mktemp("tfds")
  with tfds.core.registered.skip_registration():

    class CocoCaptions(tfds.core.GeneratorBasedBuilder):
      VERSION = tfds.core.Version("1.1.0")
      BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014")]  # noqa: RUF012

      def _info(self):
        classes = tfds.features.ClassLabel(names=["person", "cat"])
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
          "image": tfds.features.Image(encoding_format="jpeg"),
          "image/filename": tfds.features.Text(),
          "image/id": np.int64,
          "captions": tfds.features.Sequence({"id": np.int64, "text": np.str_}),
          "objects": tfds.features.Sequence({"label": classes, "bbox": tfds.features.BBoxFeature()}),
          "group": tfds.features.ClassLabel(names=["10", "1"]),
        }))  # fmt: skip

      def _split_generators(self, download_manager):
        return {"train": self._generate_examples(0), "val": self._generate_examples(100)}

      def _generate_examples(self, first):
        box = tfds.features.BBox(0.0, 0.0, 0.5, 1.0)
        for n in range(3):
          yield n, {"image": io.BytesIO(jpeg(n)), "image/filename": f"{n}.jpg", "image/id": first + n,
                    "captions": [{"id": k, "text": f"Käse {k}"} for k in range(n)],
                    "objects": [{"label": 1, "bbox": box}] * n, "group": n - 1}  # fmt: skip

  builder = CocoCaptions(data_dir=folder, file_format="array_record")
  tfds.disable_progress_bar()
  builder.download_and_prepare()
  return folder


def records(config, split, data_dir):
  source = open_source(config, split, data_dir)
  return source, sorted((source[n] for n in range(len(source))), key=lambda record: record["id"])


def test_coco_captions_by_its_name(prepared):
  source, found = records({"dataset": "coco_captions", "source": {"labels": ()}}, "validation", prepared)
  assert [record["id"] for record in found] == [100, 101, 102]
  assert [record["name"] for record in found] == ["0.jpg", "1.jpg", "2.jpg"]
  assert [record["captions"]["captions/text"] for record in found] == [[], ["Käse 0"], ["Käse 0", "Käse 1"]]
  assert source.info.tag_names == ("person", "cat")
  assert [list(record["tags"]) for record in found] == [[0, 0], [0, 1], [0, 1]]
  assert found[1]["images"] == {"image": jpeg(1)}  # as stored
  assert len(open_source({"dataset": "coco_captions", "source": {"labels": ()}}, "all", prepared)) == 6


def test_class_labels_are_labels(prepared):
  source = open_source({"dataset": "tfds:coco_captions/2014", "source": {"tags": None, "name": "image/filename"}},
                       "train", prepared)  # fmt: skip
  assert source.info.label_names == {"group": ("10", "1")} and not source.info.tag_names
  labels = {}
  for n in range(3):
    try:
      record = source[n]
      labels[record["name"]] = record["labels"]["group"]
    except ValueError as error:
      assert "'group' is empty" in str(error)  # TFDS writes -1 where there is none
  assert labels == {"1.jpg": 0, "2.jpg": 1}


def test_any_dataset(data_dir):
  options = {"image": {"drawn": "images/twemoji"}, "tags": "tags", "id": "id", "name": "key", "labels": "labels/group",
             "languages": {"en": "names/en", "de": "names/de"}}  # fmt: skip
  source = open_source({"dataset": "tfds:emoji_views", "source": options}, "test", data_dir)
  expected = emoji.open_built("emoji_views", "test", data_dir)
  assert len(source) == len(expected) and source.info.tag_names == expected.info.tag_names
  assert source.info.languages == ("de", "en") and source.info.styles == ("drawn",)
  for n in (0, 17):
    found, wanted = source[n], expected[n]
    assert found["images"]["drawn"] == wanted["images"]["twemoji"]
    assert found["captions"] == {"captions": wanted["captions"]["caption"]}
    assert (found["id"], found["name"]) == (wanted["id"], wanted["name"])
    assert found["labels"] == {"labels/group": wanted["labels"]["group"]}
    assert found["names"]["de"] == wanted["names"]["de"]
    np.testing.assert_array_equal(found["tags"], wanted["tags"])


def test_what_is_not_prepared_says_how(tmp_path, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
  for dataset, words in {
    "coco_captions": rf"builder\('coco_captions', data_dir='{tmp_path}/own', file_format='array_record'\).*coco:ROOT",
    "imagenet2012": f"ILSVRC2012_img_train.tar.*{tmp_path}/own/downloads/manual.*folder:ROOT",
    "tfds:mnist": r"not prepared in .* or .*own; where TensorFlow is installed, run: python .*builder\('mnist'",
  }.items():
    with pytest.raises(MissingData, match=words):
      open_source({"dataset": dataset}, "train", tmp_path)


def test_mistakes(data_dir, prepared, tmp_path):
  for dataset, options, split, folder, words in (
    ("tfds:emoji_views", {}, "tset", data_dir, "data.split: no such choice 'tset'; did you mean 'test'"),
    ("tfds:emoji_views", {"image": "twemoji"}, "train", data_dir, "no column 'twemoji', which data.source.image names"),
    ("tfds:emoji_views", {"lables": "group"}, "train", data_dir, "did you mean 'labels'"),
    ("tfds:emoji_views", {"labels": "key"}, "train", data_dir, "data.source.label_names: give"),
    ("tfds:a b", {}, "train", tmp_path, "tfds:a b: "),
  ):
    with pytest.raises(UserError, match=words):
      open_source({"dataset": dataset, "source": options}, split, folder)


def test_another_format_has_no_random_access(prepared, tmp_path):
  shutil.copytree(prepared / "coco_captions", tmp_path / "coco_captions")
  file = tmp_path / "coco_captions/2014/1.1.0/dataset_info.json"
  file.write_text(json.dumps({**json.loads(file.read_text()), "fileFormat": "tfrecord"}))
  with pytest.raises(UserError, match=r"is tfrecord, which has no random access;.*data_dir='NEW'"):
    open_source({"dataset": "coco_captions"}, "train", tmp_path)
