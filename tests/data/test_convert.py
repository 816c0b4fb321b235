"""Converting a source to ArrayRecord files, and reading them back."""

import json

import numpy as np
import pytest
from shard_fixture import pairs, write_tar

from mmcontrast.data import convert as converting
from mmcontrast.data import sources
from mmcontrast.data.convert import convert
from mmcontrast.data.index_shards import index_shards
from mmcontrast.data.sources import BadRecord, array_record, emoji
from mmcontrast.errors import UserError

COUNT = 24


class Part:
  """The first examples of a source; those in `bad` cannot be read."""

  def __init__(self, source, bad=()):
    self._source, self._bad, self.info = source, bad, source.info

  def __len__(self):
    return COUNT

  def __getitem__(self, index):
    if index in self._bad:
      raise BadRecord(f"example {index} is torn")
    return self._source[index]


@pytest.fixture
def part(data_dir, monkeypatch):
  """Registers the source "part", COUNT examples of emoji_views; returns the function that makes some of it bad."""
  made = []

  def spoil(*bad):
    made[:] = [Part(emoji.open_built("emoji_views", "train", data_dir), bad)]
    converting._open.cache_clear()

  spoil()
  monkeypatch.setitem(sources.SOURCES, "part", lambda path, options, split, data_dir: made[0])
  return spoil


def read(folder, split="train"):
  return sources.open_source({"dataset": f"array_record:{folder}"}, split)


def assert_same(found, expected):
  assert {**found, "tags": None} == {**expected, "tags": None}
  np.testing.assert_array_equal(found["tags"], expected["tags"])
  assert found["tags"].dtype == expected["tags"].dtype


def test_records_come_back_byte_for_byte(part, tmp_path, data_dir):
  said = convert("part", {}, "train", tmp_path / "out", shards=5, workers=1)
  assert said.startswith(f"{COUNT} records in 5 files") and f"array_record:{tmp_path}/out" in said
  found, expected = read(tmp_path / "out"), emoji.open_built("emoji_views", "train", data_dir)
  assert len(found) == COUNT
  for index in range(COUNT):
    assert_same(found[index], expected[index])
  tokenizer = found.info.tokenizer
  assert tokenizer.read_bytes() == expected.info.tokenizer.read_bytes() and tokenizer.parent == tmp_path / "out"
  for name in ("name", "styles", "tag_names", "label_names", "concepts", "languages", "caption_fields"):
    assert getattr(found.info, name) == getattr(expected.info, name), name
  names = sorted(path.name for path in (tmp_path / "out").iterdir())
  assert names == ["metadata.json", "tokenizer.model", *(f"train-{n:05d}-of-00005.array_record" for n in range(5))]
  some = read(tmp_path / "out" / "train-{00001,00003}-of-00005.array_record")
  assert len(some) == 10
  assert_same(some[5], expected[3 * COUNT // 5])
  with pytest.raises(IndexError):
    found[COUNT]
  assert "already" in convert("part", {}, "train", tmp_path / "out", shards=5, workers=1)


def test_it_takes_up_where_it_was_interrupted(part, tmp_path, monkeypatch):
  out, write, shards = tmp_path / "out", array_record.pack, 4
  written = []

  def pack(record):
    if len(written) == 15:
      raise KeyboardInterrupt
    written.append(record["id"])
    return write(record)

  monkeypatch.setattr(array_record, "pack", pack)
  with pytest.raises(KeyboardInterrupt):
    convert("part", {}, "train", out, shards, workers=1)
  files = sorted(path.name for path in out.glob("*.array_record"))
  assert len(files) == 2 and not (out / "metadata.json").exists()  # 15 of 6 + 6 + 6 + 6
  with pytest.raises(UserError, match=r"no metadata\.json, so no finished conversion"):
    read(out)
  with pytest.raises(UserError, match="holds another conversion"):
    convert("part", {}, "train", out, shards=3, workers=1)
  before = {file: (out / file).stat().st_mtime_ns for file in files}
  written.clear()
  monkeypatch.setattr(array_record, "pack", lambda record: written.append(record["id"]) or write(record))
  convert("part", {}, "train", out, shards, workers=1)
  assert len(written) == 12 and {file: (out / file).stat().st_mtime_ns for file in files} == before
  found = read(out)
  assert [found[n]["name"] for n in range(COUNT)] == [sources.SOURCES["part"]("", {}, "", None)[n]["name"]
                                                     for n in range(COUNT)]  # fmt: skip


def test_bad_records_are_left_out_and_named(part, tmp_path, data_dir, monkeypatch):
  whole = emoji.open_built("emoji_views", "train", data_dir)
  monkeypatch.setattr(converting, "MOST_BAD", 0.1)
  part(3, 20)
  said = convert("part", {}, "train", tmp_path / "out", shards=4, workers=1)
  assert said.startswith("22 records in 4 files") and "2 bad records left out: record 3: example 3 is torn" in said
  found = read(tmp_path / "out")
  assert len(found) == 22
  for place, index in ((2, 2), (3, 4), (18, 19), (19, 21)):
    assert_same(found[place], whole[index])
  assert json.loads((tmp_path / "out" / "metadata.json").read_text())["bad"].keys() == {"3", "20"}


def test_too_many_bad_records_are_refused_and_mended(part, tmp_path):
  part(3)  # one of 24 is more than 1 %
  with pytest.raises(UserError, match=r"1 of 24 records are bad, more than 1%: record 3: example 3 is torn; fix"):
    convert("part", {}, "train", tmp_path / "out", shards=4, workers=1)
  assert not list((tmp_path / "out").glob("train-00000-*"))
  part()
  convert("part", {}, "train", tmp_path / "out", shards=4, workers=1)
  assert len(read(tmp_path / "out")) == COUNT


def test_by_several_processes(tmp_path):
  write_tar(tmp_path / "0.tar", pairs(0, 30))
  index_shards(str(tmp_path / "0.tar"), workers=1)
  convert(f"webdataset:{tmp_path}/0.tar", {"caption": ("txt",)}, "train", tmp_path / "out", shards=3, workers=2)
  found = read(tmp_path / "out")
  assert [found[n]["captions"] for n in range(30)] == [{"txt": [f"caption {n}"]} for n in range(30)]
  assert found.info.caption_fields == ("txt",)


def test_damaged_and_missing_files(part, tmp_path):
  out = tmp_path / "out"
  convert("part", {}, "train", out, shards=2, workers=1)
  first, second = sorted(out.glob("*.array_record"))
  data = bytearray(first.read_bytes())
  picture = read(out)[4]["images"]["twemoji"]
  data[data.index(picture) + 100] ^= 1
  first.write_bytes(data)
  second.unlink()
  found = read(out)
  assert found[5]["name"] and found[3]["name"]
  with pytest.raises(BadRecord, match=r"train-00000-of-00002\.array_record:4: "):
    found[4]
  with pytest.raises(OSError, match=r"train-00001-of-00002\.array_record:0: .*No such file"):
    found[12]
  first.write_bytes(data[: len(data) // 2])
  with pytest.raises(BadRecord, match=r"train-00000-of-00002\.array_record:0: "):
    read(out)[0]


def test_mistakes(part, tmp_path):
  out = tmp_path / "out"
  convert("part", {}, "train", out, workers=1)
  table = json.loads((out / "metadata.json").read_text())
  for words, do in {
    "--out .*: holds another conversion": lambda: convert("part", {}, "validation", out, workers=1),
    "--out .*: is not empty": lambda: convert("part", {}, "train", tmp_path, workers=1),
    "--shards 0": lambda: convert("part", {}, "train", tmp_path / "new", shards=0),
    "--out gs://": lambda: convert("part", {}, "train", "gs://bucket/new"),
    "no such choice 'prat'": lambda: convert("prat:x", {}, "train", tmp_path / "new"),
    "holds split 'train', not data.split 'validation'": lambda: read(out, "validation"),
    "reads from a disk": lambda: read("gs://bucket/new"),
    "no such file": lambda: read(tmp_path / "nowhere"),
    "those of convert: data.source: no option 'a'": lambda: sources.open_source(
      {"dataset": f"array_record:{out}", "source": {"a": 1}}, "train"
    ),
  }.items():
    with pytest.raises(UserError, match=words):
      do()
  assert not (tmp_path / "new").exists()
  (out / "more.array_record").write_bytes(b"")
  with pytest.raises(UserError, match=r"more\.array_record: not one of the files"):
    read(out / "*.array_record")
  (out / "metadata.json").write_text(json.dumps({**table, "format": 0}))
  with pytest.raises(UserError, match="of format 0, not 1"):
    read(out)
  (out / "metadata.json").write_text("{")
  with pytest.raises(UserError, match="not what convert writes"):
    read(out)
