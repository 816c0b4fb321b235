"""`mmcontrast data list`, and what a path that names no kind of source is taken for."""

import pytest
from own_data import picture, write

from mmcontrast.cli import main
from mmcontrast.data import catalogue
from mmcontrast.data.sources import SOURCES, open_source
from mmcontrast.data.sources.guessing import guess
from mmcontrast.errors import UserError


def test_every_dataset_and_kind_is_listed(tmp_path, capsys):
  (tmp_path / "emoji_views").mkdir()
  (tmp_path / "emoji_views/metadata.json").write_text("{}")
  assert main(["data", "list", "--data_dir", str(tmp_path)]) == 0
  out = capsys.readouterr().out
  for name in SOURCES:
    assert f"\n  {name}:" in out or f"\n  {name} " in out, name
  assert f"built, in {tmp_path}/emoji_views" in out and "not built; run: mmcontrast data build emoji_noto" in out
  assert {*catalogue.KINDS, *catalogue.NAMED, *catalogue.BUILDERS} == set(SOURCES)


@pytest.mark.parametrize("folder", ["local", "memory"])
@pytest.mark.parametrize(("names", "path", "expected"), [
  ((), "mine.csv", "csv:{}/mine.csv"), ((), "{a,b}.TSV", "csv:{}/{{a,b}}.TSV"), ((), "*.tar", "webdataset:{}/*.tar"),
  ((), "x.jsonl", "jsonl:{}/x.jsonl"), ((), "0.tfrecord", "tfrecord:{}/0.tfrecord"), ((), "a.txt", None),
  (("00000.tar", "00000_stats.json", "00000.parquet", ".x.csv"), "", "webdataset:{}/*.tar"),
  (("00000.tar", "00000_stats.json"), "", "webdataset:{}/*.tar"),
  (("annotations/captions.json", "val/0.jpg"), "", "coco:{}"),
  (("train/cat/a.png", "val/cat/b.png"), "", "folder:{}/{{split}}"),
  (("cat/a.png", "dog/b.png"), "", "folder:{}"), (("a.JPG",), "", "folder:{}"), (("a.bin",), "", None),
  (("metadata.json", "train-0.array_record"), "", "array_record:{}"),
])  # fmt: skip
def test_guesses(folder, names, path, expected, tmp_path):
  root = str(tmp_path) if folder == "local" else f"memory://{tmp_path.name}"
  for name in names:
    write(f"{root}/{name}", b"x")
  asked = f"{root}/{path}" if path else root
  assert guess(asked) == (expected and expected.format(root))


def test_what_the_message_says(tmp_path):
  for dataset, words in (
    (f"{tmp_path}/mine.csv", f"names no kind .*; did you mean 'csv:{tmp_path}/mine.csv'"),
    ("webdatase:x.tar", "did you mean 'webdataset'"),
    ("emoji_view", "did you mean 'emoji_views'"),
    ("csv", "has no path after it; give csv:PATH"),
    ("jsonl:", "no path after the colon"),
  ):
    with pytest.raises(UserError, match=words):
      open_source({"dataset": dataset}, "train")


def test_splits_that_are_taken_for_classes_are_said(tmp_path, capsys):
  for name in ("train/cat/a.png", "val/dog/b.png"):
    write(f"{tmp_path}/{name}", picture(0))
  assert open_source({"dataset": f"folder:{tmp_path}"}, "train").info.label_names == {"class": ("train", "val")}
  assert f"if they are splits, give folder:{tmp_path}/{{split}}" in capsys.readouterr().err
