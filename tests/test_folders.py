"""Folders that a command fills: whole, or nothing."""

import pathlib
import tempfile

import pytest
from tiny import tiny_inference

from mmcontrast import cli, data_commands
from mmcontrast.data.sources import open_source
from mmcontrast.data.tokenizers import make_tokenizer
from mmcontrast.errors import MissingData, UserError
from mmcontrast.folders import at, check_empty, local, make, whole
from mmcontrast.interop import stablehlo
from mmcontrast.runs.checkpoint import load_run


@pytest.mark.parametrize("there", [False, True])
def test_what_was_written_is_there_at_the_end(tmp_path, there):
  out = tmp_path / "new" / "out"
  if there:
    (out / ".partial").mkdir(parents=True)  # what a process leaves that is killed
    (out / ".partial" / "old").write_text("")
  with whole(out, "--out") as folder:
    (folder / "file").write_text("written")
    (folder / "inside").mkdir()
    (folder / "inside" / "file").write_text("")
    assert [path.name for path in out.iterdir()] == [folder.name]
  assert sorted(path.name for path in out.rglob("*")) == ["file", "file", "inside"]
  assert (out / "file").read_text() == "written"


def test_an_error_leaves_no_folder_that_was_made_on_the_way(tmp_path):
  (tmp_path / "a" / "other").mkdir(parents=True)
  for out in (tmp_path / "a" / "b" / "c" / "out", tmp_path / "x" / "out"):
    with pytest.raises(UserError), whole(out, "--out"):
      raise UserError("no")
  assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "other"]


@pytest.mark.parametrize("there", [False, True])
def test_an_error_leaves_nothing_and_names_the_folder_that_was_given(tmp_path, there):
  if there:
    (tmp_path / "out").mkdir()
  with pytest.raises(MissingData, match=f"^{tmp_path}/out/file: no space$"), whole(tmp_path / "out", "--out") as folder:
    (folder / "file").write_text("half")
    raise MissingData(f"{folder}/file: no space")
  assert [path.name for path in tmp_path.rglob("*")] == ["out"] * there


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
  (tmp_path / "mine").write_text("x")
  with (
    pytest.raises(UserError, match=f"--out {tmp_path}: is not empty; give an empty folder, or a new one"),
    whole(tmp_path, "--out"),
  ):
    raise AssertionError("the block was begun")
  assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_is_no_folder(tmp_path):
  (tmp_path / "mine").write_text("x")
  with pytest.raises(UserError, match=f"--out {tmp_path}/mine: is a file; give an empty folder"):
    check_empty(tmp_path / "mine", "--out")
  assert (tmp_path / "mine").read_text() == "x"


def test_a_program_whose_second_tower_fails_is_not_there(tmp_path, monkeypatch):
  write, calls = stablehlo.write_weights, []

  def fails(path, weights):
    calls.append(path.name)
    if len(calls) == 2:
      raise UserError(f"{path}: no space")
    write(path, weights)

  monkeypatch.setattr(stablehlo, "write_weights", fails)
  with pytest.raises(UserError, match=r"out/text\.safetensors: no space"):
    stablehlo.write(tiny_inference(), tmp_path / "out")
  assert calls == ["image.safetensors", "text.safetensors"] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "url, words",
  [
    ("hdfs://x/y", "hdfs:// is not known here; give gs://BUCKET/FOLDER, s3://BUCKET/FOLDER, or a local or mounted"),
    ("https://x/y", "https:// is not known here"),
    ("gs:/bucket/run", "an address has two slashes; give gs://bucket/run$"),
    ("file:///tmp/x", "give the path alone, /tmp/x$"),
    ("gs://bucket", "give a bucket and a folder in it, gs://bucket/FOLDER$"),
    ("gs://my bucket/run", "'my bucket' is no name of a bucket, which has letters"),
    ("s3://", "give a bucket and a folder in it, s3://BUCKET/FOLDER$"),
  ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_made(tmp_path, monkeypatch, url, words):
  monkeypatch.chdir(tmp_path)
  for function in (at, make, check_empty, lambda path, option: whole(path, option).__enter__()):
    with pytest.raises(UserError, match=rf"^--workdir {url}: {words}"):
      function(url, "--workdir")
  assert not list(tmp_path.iterdir())


def test_what_is_an_address_and_what_is_a_path():
  assert str(at("gs://bucket/a/run/", "--workdir")) == "gs://bucket/a/run"
  assert at(pathlib.Path("gs://bucket/run"), "--workdir") == at("gs://bucket/run", "--workdir")  # it leaves one slash
  for path in ("runs/a", "a:b", "C:/runs", "x/gs:/y", "./gs:/bucket"):
    assert at(path, "--workdir") == local(path, "--workdir") == pathlib.Path(path)
  with pytest.raises(UserError, match="hdfs:// is not known here"):
    make(pathlib.Path("hdfs://x/y"), "--workdir")
  with pytest.raises(UserError, match=r"--data_dir gs://b/data: is a URL, and TFDS reads .*; give a local or mounted"):
    local("gs://b/data", "--data_dir", "TFDS reads from a disk")


def test_the_home_folder_is_meant_by_a_tilde(tmp_path, monkeypatch, capsys):
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  monkeypatch.chdir(tmp_path)
  assert make("~/runs/a", "--workdir") == tmp_path / "home/runs/a" and (tmp_path / "home/runs/a").is_dir()
  with whole("~/out", "--out") as scratch:
    (scratch / "x").write_text("x")
  assert (tmp_path / "home/out/x").read_text() == "x"
  assert cli.main(["evaluate", "--workdir=~/none"]) == 2
  assert f"error: {tmp_path}/home/none: no checkpoints there" in capsys.readouterr().err
  with pytest.raises(UserError, match=f"tokenizer {tmp_path}/home/t.model: no such file"):
    make_tokenizer("~/t.model", lower=True)
  with pytest.raises(UserError, match="--workdir is empty"):
    make(" ", "--workdir")
  assert [one.name for one in tmp_path.iterdir()] == ["home"]


def test_every_command_says_which_addresses_it_takes(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  for words in (
    ["train", "--config", "quickstart", "--workdir", "hdfs://b/r"],
    ["import", "timm:x", "--workdir", "hdfs://b/r"],
    ["evaluate", "--workdir", "hdfs://b/r"],
    ["embed", "csv:x", "--workdir", "r", "--out", "hdfs://b/r"],
    ["export", "--workdir", "hdfs://b/r", "--to", "hf", "--out", "x"],
    ["export", "--workdir", "r", "--to", "hf", "--out", "hdfs://b/r"],
    ["interpolate", "a", "b", "--workdir", "hdfs://b/r"],
    ["search", "x", "--workdir", "hdfs://b/r"],
    ["search", "x", "--workdir", "r", "--out", "hdfs://b/r.png"],
    ["data", "tokenizer", "csv:x", "--out", "hdfs://b/r"],
  ):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "hdfs:// is not known here" in error and error.count("\n") == 1
  for words in (
    ["data", "build", "emoji_views", "--data_dir", "s3://b/r"],
    ["data", "list", "--data_dir", "gs://b/r"],
    ["train", "--config", "quickstart", "--workdir", "r", "--data_dir", "gs://b/r"],
  ):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert "is a URL, and " in error and error.count("\n") == 1
  assert cli.main(["data", "convert", "csv:x", "--to", "array_record", "--out", "gs://b/r"]) == 2
  assert "--out gs://b/r: array_record files are written to a disk" in capsys.readouterr().err
  with pytest.raises(UserError, match="hdfs:// is not known here"):
    load_run("hdfs://b/r")
  with pytest.raises(UserError, match="data_dir gs://b/data: is a URL, and TFDS and ArrayRecord read from a disk"):
    open_source({"dataset": "emoji_views", "source": {}}, "train", "gs://b/data")
  assert not list(tmp_path.iterdir())


def test_what_cannot_be_made_or_written_into_is_one_line(tmp_path, monkeypatch):
  (tmp_path / "file").write_text("mine")
  for folder, words in (
    ("file", "is a file"),
    ("file/run", "cannot be written to .Not a directory"),
    ("x" * 300, "cannot be written to .File name too long"),
  ):
    for function in (make, lambda folder, option: whole(folder, option).__enter__()):
      with pytest.raises(UserError, match=rf"--workdir .*: {words}") as error:
        function(tmp_path / folder, "--workdir")
      assert "\n" not in str(error.value)
  with pytest.raises(UserError, match="--workdir /proc/run: cannot be written to"):
    make("/proc/run", "--workdir")

  def read_only(**options):
    raise OSError(30, "Read-only file system", "a name of tempfile's")

  monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
  with pytest.raises(UserError, match=r"cannot be written to .Read-only file system"):
    make(tmp_path, "--workdir")
  assert (tmp_path / "file").read_text() == "mine"


def test_a_disk_that_refuses_ends_a_command_in_one_line(monkeypatch, capsys):
  def refuses(options, rest):
    raise PermissionError(13, "Permission denied", "/data/x")

  monkeypatch.setattr(data_commands, "_build", refuses)
  assert cli.main(["data", "build", "emoji_views"]) == 2
  assert capsys.readouterr().err == "error: /data/x: Permission denied\n"

  def broken(options, rest):
    raise FileNotFoundError(2, "No such file or directory", "/data/x")  # a mistake of the program's, with its traceback

  monkeypatch.setattr(data_commands, "_build", broken)
  with pytest.raises(FileNotFoundError):
    cli.main(["data", "build", "emoji_views"])
