"""Keys of records: another record in the place of one has another key, and the same data the same."""

import io
import json
import os

import numpy as np
import pytest
from own_data import picture
from PIL import Image
from shard_fixture import pairs, write_tar

from mmcontrast.data.index_shards import index_shards
from mmcontrast.data.record import Record
from mmcontrast.data.sources import open_source
from mmcontrast.data.sources.keys import digest_of, key_of


def _write(folder, kind):
  folder.mkdir(exist_ok=True)
  for number in range(3):
    (folder / f"{number}.png").write_bytes(picture(number))
    os.utime(folder / f"{number}.png", ns=(0, 10**9))
  if kind == "folder":
    (folder / "1.txt").write_text("one\n")
  rows = [{"image": f"{number}.png", "caption": f"thing {number}"} for number in range(3)]
  if kind == "jsonl":
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  if kind == "csv":
    lines = ["image,caption", *(f"{row['image']},{row['caption']}" for row in rows), ""]
    (folder / "rows.csv").write_text("\n".join(lines))
  return {"folder": f"folder:{folder}"}.get(kind, f"{kind}:{folder}/rows.{kind}")


def _keys(dataset):
  source = open_source({"dataset": dataset, "source": {}}, "train")
  return [key_of(source, index) for index in range(len(source))]


@pytest.mark.parametrize("kind", ["folder", "jsonl", "csv"])
def test_one_record_that_is_exchanged_has_another_key(tmp_path, kind):
  dataset = _write(tmp_path / "d", kind)
  before = _keys(dataset)
  assert len(set(before)) == 3 and _keys(dataset) == before
  (tmp_path / "d" / "1.png").write_bytes(picture(9))  # as many bytes, or nearly
  changed = _keys(dataset)
  assert [a == b for a, b in zip(before, changed)] == [True, False, True]
  if kind == "folder":
    (tmp_path / "d" / "1.txt").write_text("another\n")
  else:
    file = tmp_path / "d" / f"rows.{kind}"
    file.write_text(file.read_text().replace("thing 1", "thing 8"))
  assert [a == b for a, b in zip(changed, _keys(dataset))] == [True, False, True]


def test_samples_of_a_shard(tmp_path):
  write_tar(tmp_path / "a.tar", pairs(0, 3))
  index_shards(str(tmp_path / "a.tar"), 1)
  before = _keys(f"webdataset:{tmp_path}/a.tar")
  assert len(set(before)) == 3 and _keys(f"webdataset:{tmp_path}/a.tar") == before
  write_tar(tmp_path / "a.tar", pairs(1, 3))
  os.utime(tmp_path / "a.tar", ns=(0, 10**9))
  index_shards(str(tmp_path / "a.tar"), 1)
  assert not set(before) & set(_keys(f"webdataset:{tmp_path}/a.tar"))


def test_a_source_without_keys_is_told_by_its_records():
  out = io.BytesIO()
  Image.new("RGB", (4, 4)).save(out, "PNG")
  one = Record(
    images={"image": out.getvalue()},
    captions={"caption": ["a", "b"]},
    names={},
    tags=np.zeros(2, np.uint8),
    labels={"class": 1},
    id=3,
    name="x",
    mirror_safe=True,
  )
  assert key_of([one], 0) == key_of([], 0, one)
  for change in (
    dict(captions={"caption": ["ab"]}),
    dict(id=4),
    dict(tags=np.array([0, 1], np.uint8)),
    dict(images={"image": out.getvalue() + b"\0"}),
  ):
    assert key_of([{**one, **change}], 0) != key_of([one], 0)


def test_a_digest_tells_what_is_where():
  values = (
    ["a", "b"],
    ["ab"],
    ["a", ["b"]],
    "ab",
    b"ab",
    [1],
    ["1"],
    None,
    "None",
    {"a": 1},
    {"a": [1]},
    np.array(["a", "b"], object),
    np.zeros(2),
    np.zeros(2, int),
    [],
  )
  assert len({digest_of(value) for value in values}) == len(values) - 1  # an array of objects is the list of them
  assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
