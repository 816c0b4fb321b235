"""JSON lines, CSV and Parquet: what was written is what is read, and each mistake is one line."""

import base64
import concurrent.futures
import io
import json
import uuid

import numpy as np
import pytest
from own_data import COUNT, KINDS, OPTIONS, encode, picture, rows, write, write_own_data

from mmcontrast.data import pipeline, sources
from mmcontrast.data.sources import BadRecord, parquet
from mmcontrast.errors import UserError


def open_(dataset, split="train", **options):
  return sources.open_source({"dataset": dataset, "source": options}, split)


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
  return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_what_was_written(kind, folder):
  source = open_(write_own_data(folder, kind), **OPTIONS)
  assert len(source) == COUNT
  assert source.info.tag_names == ("old", "red", "round")
  assert source.info.label_names == {"kind": ("9", "10", "cat", "dog")}
  assert source.info.caption_fields == ("caption", "alt") and source.info.languages == ("de",)

  def check(index):
    record, row = source[index], rows()[index]
    assert record["images"] == {"image": picture(index)}
    assert record["captions"] == {"caption": [row["caption"]], "alt": [row["alt"]]}
    assert record["names"] == {"de": row["name_de"]}
    assert {source.info.tag_names[at] for at in np.flatnonzero(record["tags"])} == set(row["tags"].split(",")) - {""}
    assert source.info.label_names["kind"][record["labels"]["kind"]] == row["kind"]
    assert (record["id"] == source[index ^ 1]["id"]) and -(2**31) <= record["id"] < -(2**28)  # every key is of two rows
    return record["id"]

  order = np.random.default_rng(0).permutation(4 * COUNT) % COUNT
  with concurrent.futures.ThreadPoolExecutor(4) as pool:  # threads read at once what one would
    assert len(set(pool.map(check, order.tolist()))) == COUNT // 2


@pytest.mark.parametrize("key, expected", [
  ("cat", -359984453), ("17", 17), (17, 17), (2**31, -842603932), ("007", -658949704), (None, -2),
  ("9" * 5000, -1903588353), ("\ud800", -1193650201),  # more digits than Python reads, half a surrogate pair
])  # fmt: skip
def test_ids_are_the_same_everywhere(key, expected, tmp_path):
  path = write(str(tmp_path / "x.jsonl"), encode("jsonl", [{"key": key}]))
  assert open_(f"jsonl:{path}", image=None, caption=None, id="key")[0]["id"] == expected


@pytest.mark.parametrize("kind", KINDS)
def test_training_batches_come_out(kind, tmp_path, data_dir):
  config = dict(dataset=write_own_data(str(tmp_path), kind), source=OPTIONS, image_size=12,
                tokenizer=str(data_dir / "emoji_views" / "tokenizer.model"))  # fmt: skip
  spec = pipeline.spec(config, 8)
  batches = pipeline.train_batches(config, seed=0, batch_size=8)
  batch = next(batches)
  batches.close()
  assert spec.examples == COUNT and spec.tag_names == ("old", "red", "round")
  assert batch["image"].shape == (8, 2, 12, 12, 3) and batch["tags"].shape == (8, 3)
  assert batch["labels"]["kind"].shape == (8,) and set(batch["labels"]["kind"]) <= {0, 1, 2, 3}


@pytest.mark.parametrize("kind", KINDS)
def test_splits_by_share_keep_rows_of_one_id_together(kind, tmp_path):
  dataset = write_own_data(str(tmp_path), kind)
  splits = {"validation": 0.4, "train": 0.6}
  parts = {split: open_(dataset, split, **OPTIONS, splits=splits) for split in (*splits, "all")}
  ids = {split: [source[index]["id"] for index in range(len(source))] for split, source in parts.items()}
  assert set(ids["train"]) & set(ids["validation"]) == set()
  assert sorted(ids["train"] + ids["validation"]) == sorted(ids["all"]) and len(ids["all"]) == COUNT
  assert parts["train"].info == parts["validation"].info  # one vocabulary
  again = open_(dataset, "train", **OPTIONS, splits=dict(sorted(splits.items())))  # as it is read from a checkpoint
  assert [again[index]["id"] for index in range(len(again))] == ids["train"]
  with pytest.raises(UserError, match="no such choice 'test'"):
    open_(dataset, "test", **OPTIONS, splits=splits)
  with pytest.raises(UserError, match=r"sum to 1\.5"):
    open_(dataset, splits={"train": 0.9, "validation": 0.6})
  with pytest.raises(UserError, match="larger share"):
    open_(dataset, "validation", splits={"train": 0.9, "validation": 1e-9})


def test_splits_by_path(tmp_path):
  for split, count in (("train", 5), ("validation", 3)):
    write(str(tmp_path / f"{split}.jsonl"), encode("jsonl", rows()[:count]))
  dataset = f"jsonl:{tmp_path}/{{split}}.jsonl"
  assert [len(open_(dataset, split)) for split in ("train", "validation", "all")] == [5, 3, 8]
  with pytest.raises(UserError, match=r"test\.jsonl: no such file; did you mean 'train\.jsonl'"):
    open_(dataset, "test")
  with pytest.raises(UserError, match=r"has no split 'validation'.*splits=dict"):
    open_(f"jsonl:{tmp_path}/train.jsonl", "validation")
  with pytest.raises(UserError, match="leave one of them out"):
    open_(dataset, splits={"train": 1.0})


@pytest.mark.parametrize("how", ["bytes", "base64", "data_url", "hugging_face"])
def test_embedded_images(how, tmp_path):
  text = base64.b64encode(picture(3)).decode()
  value = {"bytes": picture(3), "base64": text, "data_url": f"data:image/png;base64,{text}",
           "hugging_face": {"bytes": picture(3), "path": "a.png"}}[how]  # fmt: skip
  kind = "parquet" if how in ("bytes", "hugging_face") else "jsonl"
  path = write(str(tmp_path / "x"), encode(kind, [{"image": value, "caption": ["one", "two"], "tags": ["a", "b"]}]))
  record = open_(f"{kind}:{path}", tags="tags", base64=how == "base64")[0]
  assert record["images"] == {"image": picture(3)}
  assert record["captions"] == {"caption": ["one", "two"]} and record["tags"].tolist() == [1, 1]
  assert record["id"] == 0 and record["name"].startswith(path)


def test_parquet_of_hugging_face_brings_its_class_names(tmp_path):
  import pyarrow
  import pyarrow.parquet

  table = pyarrow.Table.from_pylist([{"image": picture(0), "label": 1}, {"image": picture(1), "label": 0}])
  features = {"image": {"_type": "Image"}, "label": {"names": ["dog", "cat"], "_type": "ClassLabel"}}
  metadata = {"huggingface": json.dumps({"info": {"features": features}})}
  pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "x.parquet")
  source = open_(f"parquet:{tmp_path}/x.parquet", caption=None, labels="label")
  assert source.info.label_names == {"label": ("dog", "cat")}
  assert [source[index]["labels"]["label"] for index in range(2)] == [1, 0]
  own = open_(f"parquet:{tmp_path}/x.parquet", caption=None, labels="label", label_names={"label": ["a", "b"]})
  assert own.info.label_names == {"label": ("a", "b")}


def test_styles_and_missing_values(tmp_path):
  table = [{"left": "l.png", "right": None, "caption": None, "kind": 1}, {"left": "l.png", "right": "r.png", "kind": 0}]
  write(str(tmp_path / "l.png"), picture(1))
  write(str(tmp_path / "r.png"), picture(2))
  source = open_(f"jsonl:{write(str(tmp_path / 'x.jsonl'), encode('jsonl', table))}",
                 image={"a": "left", "b": "right"}, labels="kind", label_names={"kind": ["cat", "dog"]})  # fmt: skip
  assert source.info.styles == ("a", "b")
  assert list(source[0]["images"]) == ["a"] and source[1]["images"] == {"a": picture(1), "b": picture(2)}
  assert source[0]["captions"] == {"caption": []} == source[1]["captions"]
  assert [source[index]["labels"]["kind"] for index in range(2)] == [1, 0]  # numbers count the names given


def test_a_bad_line_of_json_is_a_bad_record_with_its_place(tmp_path):
  good = json.dumps({"caption": "fine"}).encode()
  lines = [good, b'{"caption": "torn', b'{"caption": "\xff\xfe"}', b"[1, 2]", b"", b"[" * 100_000, good]
  path = write(str(tmp_path / "x.jsonl"), b"\xef\xbb\xbf" + b"\r\n".join(lines))
  source = open_(f"jsonl:{path}", image=None)
  assert len(source) == 6  # the empty line is none
  for index, (line, reason) in enumerate([(2, "not JSON"), (3, "not UTF-8"), (4, "a list, not"), (6, "not JSON")], 1):
    with pytest.raises(BadRecord, match=rf"x\.jsonl:{line}: {reason}"):
      source[index]
  assert [source[index]["captions"]["caption"] for index in (0, 5)] == [["fine"], ["fine"]]
  assert source[5]["name"].endswith("x.jsonl:7")
  split = open_(f"jsonl:{path}", "all", image=None, tags="caption", id="caption", splits={"train": 1.0})
  assert split.info.tag_names == ("fine",) and len(split) == 6  # neither a vocabulary nor ids stumble on it


def test_a_bad_row_of_csv_is_a_bad_record_with_its_place(tmp_path):
  text = b'\xef\xbb\xbfimage, caption\n"a\nb.png",one\n\nc.png\nd.png,\xff\ne.png,"say ""two"""\n'
  source = open_(f"csv:{write(str(tmp_path / 'x.csv'), text)}", image=None)
  assert len(source) == 4
  assert source[0]["captions"]["caption"] == ["one"] and source[3]["captions"]["caption"] == ['say "two"']
  with pytest.raises(BadRecord, match=r"x\.csv:5: has 1 cells, the header 2"):
    source[1]
  with pytest.raises(BadRecord, match=r"x\.csv:6: not UTF-8"):
    source[2]
  tags = open_(f"csv:{tmp_path}/x.csv", image=None, tags="caption").info.tag_names
  assert tags == ("one", 'say "two"')  # bad rows give no vocabulary
  tabs = open_("csv:" + write(str(tmp_path / "x.tsv"), text.replace(b",", b"\t")), image=None)
  assert tabs[3]["captions"] == source[3]["captions"]


def test_parquet_keeps_few_row_groups_in_memory(tmp_path):
  table = [{"image": np.random.default_rng(row).bytes(10_000), "caption": "x"} for row in range(40)]
  path = write(str(tmp_path / "x.parquet"), encode("parquet", table))
  groups = parquet.RowGroups(120_000)
  seen = []
  for key in (0, 1, 2, 0, 3, 3):
    groups.get(key, lambda key=key: seen.append(key) or _Group(50_000))
    assert groups.bytes <= 120_000
  assert seen == [0, 1, 2, 0, 3]  # of three groups two fit: the third pushed out the one used longest ago
  source = open_(f"parquet:{path}", cache_bytes=0)
  assert [source[row]["images"]["image"] for row in range(40)] == [row["image"] for row in table]


class _Group:
  def __init__(self, nbytes):
    self.nbytes = nbytes


@pytest.mark.parametrize("kind, data, options, message", [
  ("jsonl", b'{"captoin": "x"}\n', {}, r"no column 'caption', which data\.source\.caption names; did you mean 'capt"),
  ("csv", b"image,text\n", {"image": None}, r"no column 'caption'.*set it to None"),
  ("jsonl", b'{"caption": "x"}\n', {"captoin": "x"}, r"data\.source: no option 'captoin'; did you mean 'caption'"),
  ("jsonl", b'{"caption": "x"}\n', {"tags": ["a"]}, r"data\.source\.tags: \['a'\] is not the name of a column"),
  ("jsonl", b'{"caption": "x"}\n', {"languages": "de"}, r"data\.source\.languages: 'de' is not a table"),
  ("jsonl", b'{"caption": "x"}\n', {"label_names": {"kind": ["a"]}}, r"label_names\.kind: not in data\.source\.labels"),
  ("jsonl", b"image,caption\n", {}, "its first row is not JSON"),
  ("jsonl", b"", {"caption": None}, "has none of its 0 rows"),
  ("csv", b"", {}, "is empty; expected a header"),
  ("csv", b"caption,caption\n", {}, "names a column twice"),
  ("csv", b'caption\n"open\nx\n', {}, r"x:2: unexpected end of data; fix the quotes"),
  ("csv", b"caption\n", {"delimiter": ";;"}, r"data\.source\.delimiter: ';;' is not one character"),
  ("parquet", b"PAR1 no", {}, "is not a readable Parquet file"),
  ("parquet", b"", {"cache_bytes": "1"}, r"data\.source\.cache_bytes: '1' is not a number"),
])  # fmt: skip
def test_mistakes_are_one_line(kind, data, options, message, tmp_path):
  path = write(str(tmp_path / "x"), data)
  with pytest.raises(UserError, match=message) as error:
    open_(f"{kind}:{path}", **{"image": None, **options})
  assert "\n" not in str(error.value)


def test_a_compressed_file_is_refused(tmp_path):
  with pytest.raises(UserError, match=r"compressed.*unpack it"):
    open_(f"jsonl:{write(str(tmp_path / 'x.jsonl.gz'), b'')}")


@pytest.mark.parametrize("row, options, message", [
  ({"image": "none.png"}, {}, r"none\.png: no such file"),
  ({"image": 5}, {}, "column 'image' is a int"),
  ({"image": "@@"}, {"base64": True}, "not base64: '@@'"),
  ({"image": "x" * 5000}, {}, r"not a path.*set data\.source\.base64"),
  ({"image": "data:image/png,x"}, {}, "a data URL that is not base64"),
  ({"caption": {"a": 1}}, {"image": None}, "column 'caption' is a dict, not text"),
  ({"kind": "cow"}, {"image": None, "labels": "kind", "label_names": {"kind": ["cat"]}}, "'cow', which is not one of"),
  ({"kind": None}, {"image": None, "labels": "kind", "label_names": {"kind": ["cat"]}}, "a label is needed"),
])  # fmt: skip
def test_bad_values_are_bad_records(row, options, message, tmp_path):
  path = write(str(tmp_path / "x.jsonl"), encode("jsonl", [{"caption": "x", **row}]))
  source = open_(f"jsonl:{path}", **options)
  with pytest.raises((BadRecord, OSError), match=message):
    source[0]


def test_a_file_that_shrinks_is_an_error_of_reading(tmp_path):
  path = write(str(tmp_path / "x.jsonl"), encode("jsonl", rows()))
  source = open_(f"jsonl:{path}", image=None)
  io.FileIO(path, "r+").truncate(100)
  with pytest.raises(OSError, match="it is truncated"):
    source[COUNT - 1]
