"""The COCO-format source, on a small fixture made from emoji."""

import numpy as np
import pytest
from coco_fixture import COUNT, make_coco, read, write

from mmcontrast.data import pipeline, sources
from mmcontrast.data.evaluation_set import load_configured_set
from mmcontrast.data.images import decode
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError


@pytest.fixture
def root(data_dir, tmp_path):
  return make_coco(tmp_path, data_dir, "val")


def test_records(root, data_dir):
  source = sources.open_source({"dataset": f"coco:{root}"}, "validation")
  drawn = emoji.open_built("emoji_views", "train", data_dir)
  assert len(source) == COUNT
  assert source.info.tag_names == drawn.info.label_names["group"]
  for index in range(COUNT):
    record, n = source[index], COUNT - 1 - index  # by image id, ascending
    assert record["id"] == 1000 - n and record["name"] == f"{1000 - n}.jpg"
    assert record["captions"] == drawn[40 * n]["captions"]
    expected = np.eye(len(source.info.tag_names), dtype=np.uint8)[drawn[40 * n]["labels"]["group"]]
    np.testing.assert_array_equal(record["tags"], expected if n % 4 else 0 * expected)
    assert decode(record["images"]["image"]).shape == (96, 96, 3)


def test_boxes_of_instances_are_regions(root):
  table = read(root, "instances")
  for image in table["images"]:
    image |= {"width": 96, "height": 48}
  table["annotations"][0] |= {"bbox": [24, 12, 48, 36]}
  table["annotations"][2] |= {"bbox": [90, 0, 12, 6]}
  write(root, "instances", **table)
  write(root, "captions", **{**read(root, "captions"), "images": table["images"]})
  source = sources.open_source({"dataset": f"coco:{root}", "source": {"regions": True}}, "validation")
  records = {number_of(source, index): index for index in range(COUNT)}
  record = source[records[table["annotations"][0]["image_id"]]]
  (region,) = record["regions"]
  assert region.box == (0.25, 0.25, 0.75, 1.0) and len(region.texts) == 1 and record["tags"].sum() == 1
  with pytest.raises(sources.BadRecord, match=r"\.jpg: column 'bbox', box 0: 0\.9375, 0, 1\.0625, 0\.125 lies outside"):
    source[records[table["annotations"][2]["image_id"]]]
  for image in table["images"]:
    del image["width"]
  write(root, "captions", **{**read(root, "captions"), "images": table["images"]})
  source = sources.open_source({"dataset": f"coco:{root}", "source": {"regions": True}}, "validation")
  with pytest.raises(sources.BadRecord, match=r"no 'width' and 'height' among 'images'"):
    source[records[table["annotations"][0]["image_id"]]]
  with pytest.raises(UserError, match=r"data\.source\.regions: boxes are those of instances"):
    sources.open_source({"dataset": f"coco:{root}", "source": {"regions": True, "instances": None}}, "validation")


def number_of(source, index):
  """The id of the image of a record."""
  return int(source._rows[index]["id"])


def test_training_batches_and_evaluation_set(root, data_dir):
  config = dict(dataset=f"coco:{root}", split="val", image_size=20,
                tokenizer=str(data_dir / "emoji_views" / "tokenizer.model"))  # fmt: skip
  iterator = pipeline.train_batches(config, seed=0, batch_size=8)
  batch = next(iterator)
  iterator.close()
  assert batch["image"].shape == (8, 2, 20, 20, 3) and "labels" not in batch
  assert batch["tags"].shape == (8, 9) and set(batch["id"]) <= set(range(977, 1001))
  assert not (batch["image"][:, 0] == batch["image"][:, 1]).all()  # two crops of one image
  found = load_configured_set("mine", dict(split="val"), dict(image_size=20, dataset=f"coco:{root}", split="train"))
  assert found.things["image"].values.shape == (COUNT, 20, 20, 3) and set(found.things["text"].concept) == set(
    found.things["image"].concept
  )
  assert len(found.things["text"].values) == len(read(root, "captions")["annotations"]) > COUNT
  assert set(found.split) == {"validation"} and found.labels == {}


def test_a_missing_image_file_is_named(root):
  (root / "val2017" / "990.jpg").unlink()
  with pytest.raises(UserError, match=r"990\.jpg"):
    load_configured_set("mine", dict(split="val"), dict(image_size=20, dataset=f"coco:{root}", split="train"))


def test_what_is_wrong_with_the_files_is_named(root, tmp_path):
  def open_(**options):
    return sources.open_source({"dataset": f"coco:{root}", "source": options}, "val")

  with pytest.raises(UserError, match="no folder"):
    open_(images="nowhere")
  with pytest.raises(UserError, match=r"data\.source\.captions: no file"):
    open_(captions="nowhere.json")
  with pytest.raises(UserError, match="did you mean 'captions'"):
    open_(caption="x.json")
  table = read(root, "instances")
  del table["categories"]
  write(root, "instances", **table)
  with pytest.raises(UserError, match="has no 'categories'"):
    open_()
  table = read(root, "captions")
  table["annotations"][0]["image_id"] = 5
  write(root, "captions", **table)
  with pytest.raises(UserError, match=r"image 5, which is not in|has no 'categories'"):
    open_()
  (root / "annotations" / "captions_val2017.json").write_text("{")
  with pytest.raises(UserError, match="not JSON"):
    open_()
