"""The commands `mmcontrast data inspect`, `index` and `convert`: what they print, and the mistakes."""

import json
import re

import numpy as np
import pytest
from coco_fixture import make_coco
from own_data import encode
from PIL import Image
from shard_fixture import jpeg, pairs, write_tar, write_tfrecord

from mmcontrast.cli import main
from mmcontrast.data import inspection
from mmcontrast.data.sources import open_source
from mmcontrast.errors import UserError


def run(capsys, *words):
  """What a command that succeeds prints."""
  assert main(["data", *map(str, words)]) == 0
  return capsys.readouterr().out


def fails(capsys, *words):
  """The one line that a command prints which exits with 2."""
  assert main(["data", *map(str, words)]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1, error
  return error


def test_the_numbers_of_a_source(capsys, tmp_path, data_dir, monkeypatch):
  monkeypatch.setattr(inspection, "RECORDS", 100)
  out = run(capsys, "inspect", "emoji_views", "--split", "test", "--data_dir", data_dir, "--out", tmp_path / "a/b.png")
  lines = {line.strip().partition("  ")[0]: line for line in out.splitlines()}
  source = open_source({"dataset": "emoji_views"}, "test", data_dir)
  step = -(-len(source) // 100)
  records = [source[n] for n in range(0, len(source), step)]
  assert lines["examples"].split()[1:] == f"{len(source)}; the numbers below are of {len(records)} of them".split()
  assert f"{len(records)} of {len(records)} records; PNG {len(records)}" in lines["images: twemoji"]
  assert lines["images: twemoji"].endswith("; 96x96")
  total = np.sum([record["tags"] for record in records], axis=0)
  name = source.info.tag_names[int(total.argmax())]
  assert f"{len(source.info.tag_names)}: {name} {total.max()}, " in lines["tags"]
  groups = np.bincount([record["labels"]["group"] for record in records])
  assert f"{source.info.label_names['group'][groups.argmax()]} {groups.max()}" in lines["labels: group"]
  lengths = sorted(len(text) for record in records for text in record["captions"]["caption"])
  assert f"{lengths[0]} / {lengths[len(lengths) // 2]} / {lengths[-1]} characters" in lines["captions: caption"]
  assert lines["ids"].endswith(f"{len(records)} different") and "bad" not in lines
  for record in records[:5]:
    assert f"\n{record['name']} (id {record['id']})\n" in out
    assert f"  caption: {record['captions']['caption'][0]}\n" in out
  assert out.splitlines()[-1] == str(tmp_path / "a/b.png")
  sheet = np.asarray(Image.open(tmp_path / "a/b.png").convert("RGB"), np.int32)
  assert min(sheet.shape[:2]) > 400 and len(np.unique(sheet @ (65536, 256, 1))) > 500  # pictures, in colours


def test_bad_records_are_counted_and_named(tmp_path):
  members = [("0.jpg", jpeg(0)), ("0.txt", b""), ("1.json", b"{"), ("2.jpg", b"no picture"), ("2.txt", b"two words")]
  write_tar(tmp_path / "0.tar", members)
  main(["data", "index", str(tmp_path / "0.tar"), "--workers", "1"])
  source = open_source({"dataset": f"webdataset:{tmp_path}/0.tar"}, "train")
  text = inspection.describe(source)
  assert "1: record 1: 0.tar:1: json cannot be read" in text
  assert "2 of 2 records; JPEG 1, NOT READABLE 1" in text and "24x24" in text
  shown, words = inspection.pictures(source)
  assert len(shown) == 1 and words == [""] and shown[0].picture.shape == (24, 24, 3)
  write_tar(tmp_path / "1.tar", members[3:])
  main(["data", "index", str(tmp_path / "1.tar"), "--workers", "1"])
  with pytest.raises(UserError, match="none of 1 records"):
    inspection.pictures(open_source({"dataset": f"webdataset:{tmp_path}/1.tar"}, "train"))


def test_a_source_of_bad_records_alone_is_an_error(capsys, tmp_path):
  (tmp_path / "rows.csv").write_text("image,caption\n" + "".join(f"pictures\\{n}.jpg,a dog\n" for n in range(20)))
  error = fails(capsys, "inspect", f"csv:{tmp_path}/rows.csv")
  assert "none of 20 records can be read, such as record 0:" in error and "no such file" in error
  (tmp_path / "pictures\\7.jpg").write_bytes(jpeg(7))
  assert "19: record 0" in run(capsys, "inspect", f"csv:{tmp_path}/rows.csv")


def test_each_kind_of_source_can_be_inspected(capsys, tmp_path, data_dir):
  write_tar(tmp_path / "0.tar", pairs(0, 3))
  write_tfrecord(tmp_path / "0.tfrecord", [{"jpg": jpeg(n), "txt": f"caption {n}"} for n in range(3)])
  for name in ("0.tar", "0.tfrecord"):
    run(capsys, "index", tmp_path / name, "--workers", 1)
  (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"image": "0.jpg", "caption": f"caption {n}"}) + "\n"
                                               for n in range(3)))  # fmt: skip
  (tmp_path / "0.jpg").write_bytes(jpeg(0))
  run(capsys, "convert", f"webdataset:{tmp_path}/0.tar", "--to", "array_record", "--out", tmp_path / "out")
  for source in (f"webdataset:{tmp_path}/0.tar", f"tfrecord:{tmp_path}/0.tfrecord", f"array_record:{tmp_path}/out",
                 f"jsonl:{tmp_path}/rows.jsonl"):  # fmt: skip
    out = run(capsys, "inspect", source, "--out", tmp_path / "sheet.png")
    assert "3 of 3 records; JPEG 3" in out and "caption: caption 2" in out, source
  root = make_coco(tmp_path, data_dir, "val")
  assert "24 of 24 records; JPEG 24" in run(capsys, "inspect", f"coco:{root}", "--split", "val")


def test_options_of_the_source(capsys, tmp_path):
  write_tar(tmp_path / "0.tar", [("0.jpg", jpeg(0)), ("0.json", json.dumps({"alt": "words", "kind": 1}).encode())])
  run(capsys, "index", tmp_path / "0.tar", "--workers", 1)
  source, options = f"webdataset:{tmp_path}/0.tar", ["--source.caption=alt", "--source.labels=kind",
                                                    "--source.label_names={'kind': ['cat', 'dog']}"]  # fmt: skip
  assert "kind: dog" in run(capsys, "inspect", source, *options)
  run(capsys, "convert", source, "--to", "array_record", "--out", tmp_path / "out", *options)
  record = open_source({"dataset": f"array_record:{tmp_path}/out"}, "train")[0]
  assert record["captions"] == {"alt": ["words"]} and record["labels"] == {"kind": 1}
  assert "like --source.caption=alt" in fails(capsys, "inspect", source, "--caption=alt")
  assert "did you mean 'caption'" in fails(capsys, "inspect", source, "--source.captoin=alt")


def test_mistakes(capsys, tmp_path, data_dir):
  write_tar(tmp_path / "0.tar", pairs(0, 3))
  (tmp_path / "1.tar").write_text("not a tar")
  assert "run: mmcontrast data index" in fails(capsys, "inspect", f"webdataset:{tmp_path}/0.tar")
  assert "1.tar: neither a tar" in fails(capsys, "index", tmp_path / "{0..1}.tar", "--workers", 1)
  assert "did you mean '0.tar'" in fails(capsys, "index", tmp_path / "00.tar")
  assert "did you mean 'webdataset'" in fails(capsys, "inspect", f"webdatase:{tmp_path}/0.tar")
  assert "mmcontrast data build emoji_views" in fails(capsys, "inspect", "emoji_views", "--data_dir", tmp_path)
  (tmp_path / "1.tar").unlink()
  run(capsys, "index", tmp_path / "0.tar")
  source = f"webdataset:{tmp_path}/0.tar"
  assert "not empty" in fails(capsys, "convert", source, "--to", "array_record", "--out", tmp_path)


@pytest.mark.parametrize("rows, fault", [
  ([{"image": "none.png"}] * 3, "none of 3 records can be read, such as record 0: .*none.png: no such file"),
  ([{"image": "torn.jpg"}] * 3, "none of 3 images can be used, such as .*x.jsonl:1: "),
  ([{"image": None, "caption": " "}] * 3, "none of 3 records has an image or a text"),
])  # fmt: skip
def test_a_source_of_which_nothing_can_be_used_is_an_error_after_the_numbers(rows, fault, capsys, tmp_path):
  (tmp_path / "torn.jpg").write_bytes(jpeg(0)[:-200])
  (tmp_path / "x.jsonl").write_text("".join(json.dumps({"caption": "x", **row}) + "\n" for row in rows))
  assert main(["data", "inspect", f"jsonl:{tmp_path}/x.jsonl"]) == 2
  said = capsys.readouterr()
  assert re.search(fault, said.err) and "examples" in said.out
  with open(tmp_path / "x.jsonl", "a") as file:
    file.write(json.dumps({"image": "whole.jpg", "caption": "y"}) + "\n")
  (tmp_path / "whole.jpg").write_bytes(jpeg(0))
  assert main(["data", "inspect", f"jsonl:{tmp_path}/x.jsonl"]) == 0
  assert "bad" in capsys.readouterr().out or rows[0]["image"] is None


def test_a_csv_of_windows_shows_what_is_wrong(capsys, tmp_path):
  (tmp_path / "x.csv").write_bytes("image,caption\r\np\\a.png,K\xe4se\r\n".encode("cp1252"))
  assert main(["data", "inspect", f"csv:{tmp_path}/x.csv"]) == 2
  assert "data.source.encoding='cp1252'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["run[12]", "a*b", "{x,y}", "what?", "50%"])
def test_a_path_that_exists_is_no_pattern_for_any_source(name, capsys, tmp_path):
  """What lies beside it, and would match, is not read."""
  for folder in (name, "run1", "aXXb", "x", "whatX"):
    where = tmp_path / folder
    (where / "images/cat").mkdir(parents=True)
    (where / "images/cat/a.jpg").write_bytes(jpeg(0))
    (where / "m.jsonl").write_text(json.dumps({"image": "images/cat/a.jpg", "caption": f"of {folder}"}) + "\n")
    (where / "m.csv").write_text(f'image,caption\nimages/cat/a.jpg,"of {folder}"\n')
    (where / "m.parquet").write_bytes(encode("parquet", [{"image": "images/cat/a.jpg", "caption": f"of {folder}"}]))
    write_tar(where / "m.tar", [("0.jpg", jpeg(0)), ("0.txt", f"of {folder}".encode())])
    write_tfrecord(where / "m.tfrecord", [{"jpg": jpeg(0), "txt": f"of {folder}"}])
    table = {"images": [{"id": 1, "file_name": "cat/a.jpg"}]}
    table["annotations"] = [{"image_id": 1, "caption": f"of {folder}"}]
    (where / "c.json").write_text(json.dumps(table))
  for shard in ("m.tar", "m.tfrecord"):
    run(capsys, "index", tmp_path / name / shard, "--workers", 1)
    assert not (tmp_path / "run1" / f"{shard}.index").exists()
  places = [f"{kind}:{tmp_path}/{name}/{stem}.{kind}" for kind in ("jsonl", "csv", "parquet") for stem in ("m", "*")]
  for place in (*places, f"webdataset:{tmp_path}/{name}/m.tar", f"tfrecord:{tmp_path}/{name}/m.tfrecord"):
    out = run(capsys, "inspect", place)
    assert re.search(r"examples +1\n", out) and f"caption: of {name}\n" in out, place
  assert re.search(r"examples +1\n", run(capsys, "inspect", f"folder:{tmp_path}/{name}/images"))
  source = ["--source.images=images", "--source.captions=c.json", "--source.instances=None"]
  assert f"caption: of {name}\n" in run(capsys, "inspect", f"coco:{tmp_path}/{name}", *source)
  run(capsys, "convert", places[0], "--to", "array_record", "--out", tmp_path / name / "out")
  assert f"caption: of {name}\n" in run(capsys, "inspect", f"array_record:{tmp_path}/{name}/out")


def test_records_without_an_id_are_counted_apart(tmp_path):
  rows = [{"caption": "x", "key": key} for key in (7, None, 7.0, "a")]
  (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  options = {"image": None, "id": "key"}
  text = inspection.describe(open_source({"dataset": f"jsonl:{tmp_path}/x.jsonl", "source": options}, "train"))
  assert "2 different; 1 without one" in text and "x.jsonl:1 (id 7)" in text and "x.jsonl:2 (no id)" in text
