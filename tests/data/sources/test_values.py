"""What a value says, whichever program wrote it: missing is missing, 7.0 is 7, " cat" is "cat", no id is by accident
another's."""

import json
import math

import numpy as np
import pytest
from own_data import encode, picture, write
from shard_fixture import jpeg, write_tar

from mmcontrast.data import record, sources
from mmcontrast.data.index_shards import index_shards
from mmcontrast.data.sources import BadRecord
from mmcontrast.data.sources.values import id_of, is_missing, name_of
from mmcontrast.errors import UserError

NAN = math.nan


def open_(dataset, split="train", **options):
  return sources.open_source({"dataset": dataset, "source": options}, split)


def table(kind, folder, rows, **options):
  """A source of rows without images."""
  name = str(folder / f"rows.{kind}")
  return open_(f"{kind}:{write(name, encode(kind, rows))}", **{"image": None, **options})


class NAType:
  """As pandas.NA: equal to nothing, and neither true nor false."""

  def __ne__(self, other):
    return self

  def __bool__(self):
    raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize("value, missing", [
  (None, True), (NAN, True), (np.float32("nan"), True), (np.datetime64("NaT"), True), (NAType(), True), ("", True),
  (np.array(NAN), True), (np.array(5), False), (" \n", True), ("\u200b", True), (b"", True), (b"\t", True),
  (0, False), (0.0, False), (False, False), ("nan", False),
  (math.inf, False), ([], False), (np.array([NAN]), False),
])  # fmt: skip
def test_what_is_missing(value, missing):
  assert is_missing(value) is missing


@pytest.mark.parametrize("value, name", [
  (7.0, "7"), ("7.0", "7"), (" 7.00\n", "7"), (np.float32(7), "7"), (-0.0, "0"), ("-3.0", "-3"),
  (1e16, "10000000000000000"), (7.5, "7.5"), ("007", "007"), ("1.10", "1.10"), ("1e5", "1e5"),
  (" hot dog ", "hot dog"), ("\u200b 7\ufeff", "7"), (b"1\n", "1"),
  (True, "True"), ("cafe\u0301", "caf\xe9"),
])  # fmt: skip
def test_a_name_is_one_text_whoever_wrote_it(value, name):
  assert name_of(value, "x") == name


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_what_pandas_makes_of_missing_values_and_whole_numbers(kind, tmp_path):
  text = None if kind == "parquet" else NAN  # a column of text has no NaN there
  values = [("a dog", 1.0, 7.0, "red"), (text, 0.0, NAN, text), ("nan bread", NAN, NAN, "red")]
  rows = [dict(zip(("caption", "kind", "key", "tags"), row)) for row in values]
  source = table(kind, tmp_path, rows, tags="tags", labels="kind", id="key")
  assert source.info.label_names == {"kind": ("0", "1")} and source.info.tag_names == ("red",)
  first, second = source[0], source[1]
  assert [one["captions"]["caption"] for one in (first, second)] == [["a dog"], []]
  assert [one["labels"]["kind"] for one in (first, second)] == [1, 0]
  assert first["id"] == 7 and second["id"] == record.id_of_row(1) and not second["tags"].any()
  with pytest.raises(BadRecord, match="'kind' is empty; a label is needed"):
    source[2]
  numbered = table(kind, tmp_path, rows, labels="kind", label_names={"kind": ["cat", "dog"]})
  assert [numbered[index]["labels"]["kind"] for index in (0, 1)] == [1, 0]  # 1.0 counts the names as 1 does


def test_lists_names_and_images_with_missing_values(tmp_path):
  rows = [{"image": {"bytes": None, "path": NAN}, "caption": ["one", NAN, None], "tags": ["red", NAN, 2.0],
           "name": NAN, "de": NAN}, {"image": NAN, "caption": 3.5, "tags": NAN, "name": "x", "de": "Ding"}]  # fmt: skip
  source = open_(f"jsonl:{write(str(tmp_path / 'x.jsonl'), encode('jsonl', rows))}", tags="tags", name="name",
                 languages={"de": "de"})  # fmt: skip
  first, second = source[0], source[1]
  assert source.info.tag_names == ("2", "red") and first["tags"].tolist() == [1, 1]
  assert first["captions"]["caption"] == ["one"] and second["captions"]["caption"] == ["3.5"]
  assert first["images"] == second["images"] == {}
  assert first["name"].endswith("x.jsonl:1") and first["names"] == {"de": ""} and second["names"] == {"de": "Ding"}


def test_which_texts_of_a_csv_say_nothing_is_an_option(tmp_path):
  rows = [{"caption": text} for text in ("NaN", "nan", "<NA>", "N/A", "NA", "null")]
  assert [one["captions"]["caption"] for one in table("csv", tmp_path, rows)] == [[], [], [], ["N/A"], ["NA"], ["null"]]
  own = table("csv", tmp_path, rows, missing=["N/A", "null"])
  assert [one["captions"]["caption"] for one in own] == [["NaN"], ["nan"], ["<NA>"], [], ["NA"], []]
  assert table("jsonl", tmp_path, rows[:1])[0]["captions"]["caption"] == ["NaN"]  # JSON has a null: a text is a text
  assert table("jsonl", tmp_path, rows[:1], missing="NaN")[0]["captions"]["caption"] == []


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_infinity_is_no_class_and_no_id(kind, tmp_path):
  rows = [{"caption": "x", "kind": 1, "key": 1}, {"caption": "y", "kind": math.inf, "key": math.inf}]
  labels = table(kind, tmp_path, rows, labels="kind")
  assert labels.info.label_names == {"kind": ("1",)}
  with pytest.raises(BadRecord, match=r"'kind' is '?inf"):
    labels[1]
  if kind == "jsonl":
    with pytest.raises(BadRecord, match="'key' is inf"):
      table(kind, tmp_path, rows, id="key")[1]


def test_ids_that_stand_for_what_is_absent_meet_no_given_one(tmp_path):
  keys = [1, None, "cat", 2**31, NAN, "", 3, str(record.hashed_text("cat")), record.hashed_text(str(2**31))]
  source = table("jsonl", tmp_path, [{"caption": "x", "key": key} for key in keys], id="key")
  ids = [source[index]["id"] for index in range(len(keys))]
  assert len(set(ids)) == len(keys)
  assert [ids[index] for index in (0, 6)] == [1, 3] and -1 not in ids  # which is nobody's
  assert all(-(2**31) <= one < 2**31 for one in ids)
  assert id_of(None, "x", 2**28 - 1) > record.id_of_text("any") or record.id_of_text("any") < -(2**28) - 1
  mixed = sources.open_source({"mixture": {
    "a": {"dataset": f"jsonl:{tmp_path}/rows.jsonl", "source": {"image": None, "id": "key"}},
    "b": {"dataset": f"jsonl:{tmp_path}/rows.jsonl", "source": {"image": None}}}}, "train")  # fmt: skip
  assert len({mixed[index]["id"] for index in range(len(mixed))}) == 2 * len(keys)
  assert mixed[len(keys)]["id"] == record.id_of_row(len(keys))  # of its place: hashes may meet


def test_rows_stay_in_their_split_whatever_their_ids_are(tmp_path):
  """Those of a text, and those without one, go by the numbers they always had."""
  rows = [{"caption": str(row), "key": f"key {row}" if row % 2 else None} for row in range(60)]
  source = table("jsonl", tmp_path, rows, id="key", splits=dict(train=0.5, validation=0.5))
  found = [int(one["captions"]["caption"][0]) for one in source]
  from mmcontrast.data.sources import splits

  places = np.array([record.hashed_text(f"key {row}") if row % 2 else row for row in range(60)])
  assert found == splits.chosen(places, "train", dict(train=0.5, validation=0.5), "").tolist()


def test_two_classes_are_not_one_because_a_number_may_be_a_name_or_count_them(tmp_path):
  rows = [{"caption": "x", "kind": kind} for kind in (0, 1, 2)]
  source = table("jsonl", tmp_path, rows, labels="kind", label_names={"kind": ["1", "2", "3"]})
  assert [source[index]["labels"]["kind"] for index in (1, 2)] == [0, 1]
  with pytest.raises(BadRecord, match="'kind' is '0', which is not one of its 3 names"):
    source[0]  # that it counted them would make it class "1"


def test_the_numbers_of_a_file_of_hugging_face_count_its_names_whatever_these_are(tmp_path):
  import pyarrow
  import pyarrow.parquet

  features = {"label": {"names": ["2", "0", "1"], "_type": "ClassLabel"}}
  metadata = {"huggingface": json.dumps({"info": {"features": features}})}
  made = pyarrow.table({"label": pyarrow.array([0, 1, None, 2], pyarrow.float64()), "text": list("abcd")})
  pyarrow.parquet.write_table(made.replace_schema_metadata(metadata), tmp_path / "x.parquet")
  source = open_(f"parquet:{tmp_path}/x.parquet", image=None, labels="label")
  assert [source[index]["labels"]["label"] for index in (0, 1, 3)] == [0, 1, 2]
  with pytest.raises(BadRecord, match="a label is needed"):
    source[2]


def test_white_space_round_a_class_name_is_none_of_it(tmp_path):
  rows = [
    {"caption": "x", "kind": kind, "tags": tags}
    for kind, tags in [("cat", " red"), (" cat", "red , old"), ("dog\n", "")]
  ]
  source = table("csv", tmp_path, rows, labels="kind", tags="tags")
  assert source.info.label_names == {"kind": ("cat", "dog")} and source.info.tag_names == ("old", "red")
  assert [one["labels"]["kind"] for one in source] == [0, 0, 1]
  given = table("csv", tmp_path, rows, labels="kind", label_names={"kind": ["dog", "cat "]})
  assert [one["labels"]["kind"] for one in given] == [1, 1, 0]
  with pytest.raises(UserError, match="two names of kind differ only in white space"):
    table("csv", tmp_path, rows, labels="kind", label_names={"kind": ["cat", "cat ", "dog"]})


def test_a_shard_reads_values_as_a_table_does(tmp_path):
  write_tar(tmp_path / "0.tar", [
    ("0.jpg", jpeg(0)), ("0.cls", b"1\n"), ("0.json", b'{"key": 7.0, "caption": NaN}'),
    ("1.jpg", jpeg(1)), ("1.cls", b" dog\r\n"), ("1.json", b'{"key": NaN, "caption": "x"}')])  # fmt: skip
  index_shards(str(tmp_path / "0.tar"), workers=1)
  options = dict(labels="label", label_names={"label": ["cat", "dog"]})
  source = open_(f"webdataset:{tmp_path}/0.tar", **options, id="key")
  assert [source[index]["labels"]["label"] for index in range(2)] == [1, 1]
  assert [source[index]["id"] for index in range(2)] == [7, record.id_of_row(1)]
  assert [source[index]["captions"]["caption"] for index in range(2)] == [[], ["x"]]
  named = open_(f"webdataset:{tmp_path}/0.tar", **options, caption="a {label}")
  assert [named[index]["captions"]["caption"] for index in range(2)] == [["a dog"], ["a dog"]]


def test_decimals_of_parquet_are_numbers(tmp_path):
  import decimal

  rows = [{"caption": "x", "key": decimal.Decimal("7.00")}, {"caption": "y", "key": None}]
  source = table("parquet", tmp_path, rows, id="key")
  assert [one["id"] for one in source] == [7, record.id_of_row(1)]


def test_times_of_pandas_are_ids_and_names(tmp_path):
  import pyarrow
  import pyarrow.parquet

  times = pyarrow.array([1, 1, None, 2 * 10**9], pyarrow.timestamp("ns"))
  days = pyarrow.array([1, 1, 2, 1], pyarrow.date32())
  pyarrow.parquet.write_table(pyarrow.table(dict(caption=list("abcd"), time=times, day=days)), tmp_path / "t.parquet")
  found = list(sources.open_source(dict(dataset=f"parquet:{tmp_path}/t.parquet", source=dict(
      image=None, id="time", labels="day")), "train"))  # fmt: skip
  ids = [one["id"] for one in found]
  assert ids[0] == ids[1] and len(set(ids)) == 3 and record.is_id_of_row(ids[2])
  assert [one["labels"]["day"] for one in found] == [0, 0, 1, 0]


def test_captions_of_a_template(tmp_path):
  rows = [{"caption": "x", "kind": "cat", "colour": ["red", "old"]}, {"caption": "x", "kind": "dog", "colour": None}]
  source = table("jsonl", tmp_path, rows, labels="kind", caption="a {colour} {kind}")
  assert source.info.caption_fields == ("caption",)
  assert [one["captions"]["caption"] for one in source] == [["a red cat", "a old cat"], []]
  options = dict(labels="kind", label_names={"kind": ["cat", "dog"]}, caption="a {kind}")
  named = table("jsonl", tmp_path, [{"kind": 1}], **options)
  assert named[0]["captions"]["caption"] == ["a dog"]  # a class number is its name
  with pytest.raises(UserError, match=r"no column 'kinds', which data\.source\.caption names; did you mean 'kind'"):
    table("jsonl", tmp_path, rows, caption="a {kinds}")
  for wrong in ("a {", "a {}", "a {kind!r}"):
    with pytest.raises(UserError, match="not a text with columns in braces"):
      table("jsonl", tmp_path, rows, caption=wrong)


def test_a_usual_column_of_captions_is_taken_where_none_is_named(tmp_path, capsys):
  rows = [{"text": "a dog", "image": "x.png"}]
  source = table("parquet", tmp_path, rows)
  assert source[0]["captions"] == {"text": ["a dog"]}
  assert "no column 'caption'; captions are read from 'text'" in capsys.readouterr().err
  with pytest.raises(UserError, match=r"no column 'caption', .* names \(one of: image, text\);"):
    table("parquet", tmp_path, rows, caption="caption")  # named all the same


def test_a_tsv_whose_quotes_are_text(tmp_path, capsys):
  path = tmp_path / "x.tsv"
  path.write_text('caption\tkind\n"a dog\tone\nplain\ttwo\nthe end"\tthree\n')
  source = open_(f"csv:{path}", image=None)
  assert len(source) == 1
  assert "x.tsv:2: a quoted cell makes lines 2 to 4 one row; where quotes are only text, set" in capsys.readouterr().err
  (tmp_path / "y.tsv").write_bytes(path.read_bytes())
  open_(f"csv:{tmp_path}/*.tsv", image=None)  # a line, however many files
  said = capsys.readouterr().err
  assert said.endswith("set data.source.quote=None (and 1 more such files)\n") and said.count("\n") == 1
  source = open_(f"csv:{path}", image=None, quote=None)
  assert [one["captions"]["caption"] for one in source] == [['"a dog'], ["plain"], ['the end"']]
  path.write_text("caption\tkind\n'a\tb'\tone\n")
  assert open_(f"csv:{path}", image=None, quote="'")[0]["captions"]["caption"] == ["a\tb"]
  path.write_text('caption\tkind\n"a dog\tone"\n')
  with pytest.raises(BadRecord, match=r"has 1 cells, the header 2; where quotes are only text, set data.s"):
    open_(f"csv:{path}", image=None)[0]
  path.write_text('caption\tkind\n"a" dog\tone\n')
  with pytest.raises(UserError, match=r"x\.tsv:2: .*set data\.source\.quote=None"):
    open_(f"csv:{path}", image=None)
  with pytest.raises(UserError, match=r"data\.source\.quote: '' is not one character"):
    open_(f"csv:{path}", image=None, quote="")


@pytest.mark.parametrize("name, header, looks", [
  ("x.csv", "image;caption", "';'"), ("x.csv", "image\tcaption", "a tab"), ("x.tsv", "image,caption", "','"),
  ("x.csv", "image|caption", r"'\|'"), ("x.csv", "image;caption;a, b", "';'"),
])  # fmt: skip
def test_a_csv_of_another_delimiter(name, header, looks, tmp_path):
  path = write(str(tmp_path / name), f"{header}\nx.png{header[5]}words{header[5] * header.count(';', 6)}\n".encode())
  with pytest.raises(UserError, match=rf"the delimiter looks like {looks}; set data\.source\.delimiter="):
    open_(f"csv:{path}")
  assert len(open_(f"csv:{path}", image=None, delimiter=header[5])) == 1


@pytest.mark.parametrize("text, message", [
  ("image,caption\ra.png,x\r", r"x\.csv:1: a line ends with only a carriage return; save the file with line feeds"),
  ("sep=;\nimage;caption\n", r"its first line, 'sep=;', is an instruction for Excel.* set data\.source\.delimiter=';'"),
])  # fmt: skip
def test_what_spreadsheets_write_is_told(text, message, tmp_path):
  with pytest.raises(UserError, match=message):
    open_("csv:" + write(str(tmp_path / "x.csv"), text.encode()))


def test_a_csv_of_windows(tmp_path):
  write(str(tmp_path / "pictures/a.png"), picture(1))
  text = "image,caption\r\npictures\\a.png,Käse\r\nC:\\pictures\\a.png,plain\r\n pictures/a.png ,x\r\nno\\a.png,x\r\n"
  path = write(str(tmp_path / "x.csv"), text.encode("cp1252"))
  source = open_(f"csv:{path}", encoding="cp1252")
  assert source[0]["captions"]["caption"] == ["Käse"] and source[0]["images"] == {"image": picture(1)}
  with pytest.raises(OSError, match="a Windows path"):
    source[1]
  assert source[2]["images"] == {"image": picture(1)}
  with pytest.raises(FileNotFoundError, match=r"no/a\.png: no such file"):
    source[3]
  with pytest.raises(BadRecord, match=r"x\.csv:2: not UTF-8 .*data\.source\.encoding='cp1252'"):
    open_(f"csv:{path}")[0]
  marked = open_("csv:" + write(str(tmp_path / "z.csv"), text.encode("utf-8-sig")), encoding="utf-8-sig")
  assert marked[0]["captions"]["caption"] == ["Käse"]
  with pytest.raises(UserError, match="is UTF-16"):
    open_("csv:" + write(str(tmp_path / "y.csv"), text.encode("utf-16")))
  with pytest.raises(UserError, match=r"data\.source\.encoding: 'utf-17' is not an encoding"):
    open_(f"csv:{path}", encoding="utf-17")
  with pytest.raises(UserError, match="'utf-16' is not an encoding with the line ends of ASCII"):
    open_(f"csv:{path}", encoding="utf-16")


@pytest.mark.parametrize(
  "start, message",
  [
    (b"PK\x03\x04\x14\0", "is a ZIP archive, as workbooks of Excel are"),
    (b"\x1f\x8b\x08", "is compressed"),
    (b"PAR1\x15", r"is Parquet; give parquet:.*/x$"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (b"\n<!DOCTYPE html><html>", "is a web page"),
    (b"SQLite format 3\0", "SQLite"),
  ],
)
def test_what_is_no_table_is_told_what_it_is(start, message, tmp_path):
  path = write(str(tmp_path / "x"), start + b"more of it\n")
  for kind in ("csv", "jsonl"):
    with pytest.raises(UserError, match=message):
      open_(f"{kind}:{path}")


def test_json_as_csv_is_told_its_kind(tmp_path):
  for text, message in ((b'{"caption": "x"}\n', "give jsonl:"), (b'\xef\xbb\xbf[{"a": "x"}]', "one object a line")):
    with pytest.raises(UserError, match=f"is JSON, not CSV; .*{message}"):
      open_("csv:" + write(str(tmp_path / "x.csv"), text))


def test_an_arrow_file_is_named_as_such(tmp_path):
  path = write(str(tmp_path / "data.arrow"), b"ARROW1")
  for place in (path, tmp_path):
    with pytest.raises(UserError, match=r"is Arrow, as .* which is not read; .*to_parquet"):
      open_(f"parquet:{place}")


@pytest.fixture
def coco(tmp_path):
  """(folder, write): a COCO folder with images a.png to c.png, and a function that writes an annotation file."""
  for name in "abc":
    write(str(tmp_path / f"train2017/{name}.png"), picture(ord(name)))

  def write_(kind, **parts):
    write(str(tmp_path / f"annotations/{kind}_train2017.json"), json.dumps(parts).encode())

  return tmp_path, write_


def test_coco_goes_through_the_checks_of_tables(coco):
  root, write_ = coco
  images = [{"id": "a", "file_name": "a.png"}, {"id": 2**40, "file_name": "b.png"}, {"id": 7.0, "file_name": "c.png"}]
  captions = [
    {"id": 0, "image_id": "a", "caption": None},
    {"id": 1, "image_id": "a", "caption": "a dog"},
    {"id": 2, "image_id": 2**40, "caption": NAN},
    {"id": 3, "image_id": 7, "caption": " "},
    {"id": 4, "image_id": 7},
  ]
  write_("captions", images=images, annotations=captions)
  categories = [{"id": 1, "name": " dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "dog"}]
  write_("instances", images=images, categories=categories,
         annotations=[{"image_id": "a", "category_id": 3.0}, {"image_id": 2**40, "category_id": 9}])  # fmt: skip
  source = open_(f"coco:{root}")
  assert source.info.tag_names == ("dog", "cat") and len(source) == 3
  seven, text = source[0], source[2]
  assert (seven["id"], seven["name"], seven["captions"]) == (7, "c.png", {"caption": [" "]})
  assert (text["id"], text["captions"]) == (record.id_of_text("a"), {"caption": ["a dog"]})
  assert text["tags"].tolist() == [1, 0]
  with pytest.raises(BadRecord, match=r"b\.png: an instance is of category 9, which is not in 'categories'"):
    source[1]
  assert open_(f"coco:{root}", instances=None)[1]["id"] == record.id_of_text(str(2**40))


def test_coco_of_captions_alone_and_of_instances_alone(coco, capsys):
  root, write_ = coco
  images = [{"id": 1, "file_name": "a.png"}]
  write_("captions", images=images, annotations=[{"image_id": 1, "caption": "a dog"}])
  for options in ({}, {"instances": None}):
    source = open_(f"coco:{root}", **options)
    assert source.info.tag_names == () and source[0]["tags"].size == 0
    assert source[0]["captions"] == {"caption": ["a dog"]}
  assert "so there are no tags" in capsys.readouterr().err
  with pytest.raises(UserError, match=r"data\.source\.instances: no file .*none\.json"):
    open_(f"coco:{root}", instances="none.json")
  write_("instances", images=images, categories=[{"id": 1, "name": "dog"}],
         annotations=[{"image_id": 1, "category_id": 1}])  # fmt: skip
  source = open_(f"coco:{root}", captions=None)
  assert source.info.caption_fields == () and source[0]["tags"].tolist() == [1]
  source = open_(f"coco:{root}", captions=None, caption="a photo of a {category}")
  assert source[0]["captions"] == {"caption": ["a photo of a dog"]}
  with pytest.raises(UserError, match=r"data\.source\.caption: 'a \{dog\}' is not a text with the category in it"):
    open_(f"coco:{root}", caption="a {dog}")
  with pytest.raises(UserError, match=r"needs categories; give data\.source\.instances"):
    open_(f"coco:{root}", caption="a {category}", instances=None)
  with pytest.raises(UserError, match="captions and instances are both None"):
    open_(f"coco:{root}", captions=None, instances=None)


@pytest.mark.parametrize("images, annotations, message", [
  ([{"id": 1}, {"id": 1.0}], [], "two images have the id 1"),
  ([{"file_name": "a.png"}], [], "an image has no 'id'"),
  ([{"id": 1}], [{"id": 5, "caption": "x"}], "annotation 5 has no 'image_id'"),
  ([{"id": 1}], [{"image_id": 2, "caption": "x"}], "is of image 2, which is not in 'images'"),
  ({"id": 1}, [], "'images' is not a list of tables"),
  ([{"id": 1}], [None], "'annotations' is not a list of tables"),
])  # fmt: skip
def test_mistakes_of_coco_files_are_one_line(coco, images, annotations, message):
  root, write_ = coco
  write_("captions", images=images, annotations=annotations)
  with pytest.raises(UserError, match=message) as error:
    open_(f"coco:{root}", instances=None)
  assert "\n" not in str(error.value)
