"""The command line: one line and exit code 2 for every mistake of a user."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import tiny_config

from mmcontrast.cli import main
from mmcontrast.config import to_json


def config_file(path, **changes):
  path.write_text(
    "import json, ml_collections\n"
    "def get_config(arg=None):\n"
    f"  return ml_collections.ConfigDict(json.loads({to_json(tiny_config(**changes))!r}))\n"
  )
  return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
  """A trained run, by the command line."""
  folder = tmp_path_factory.mktemp("cli")
  evaluation = dict(
    tiny_config()["evaluation"],
    image="image_joint",
    text="text_joint",
    sets=["emoji_views:twemoji"],
    evaluators=dict(retrieval={}),
  )
  file = config_file(folder / "mine.py", evaluation=evaluation, steps=2)
  assert main(["train", "--config", file, "--workdir", str(folder / "run"), "--data_dir", str(data_dir)]) == 0
  return folder / "run"


def assert_fails(capsys, arguments, *words):
  assert main([str(a) for a in arguments]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: ") and error.count("\n") == 1, error
  for word in words:
    assert word in error, error


def test_evaluate_writes_and_prints(run, data_dir, capsys):
  assert main(["evaluate", "--workdir", str(run), "--data_dir", str(data_dir)]) == 0
  out = capsys.readouterr().out
  assert "recall@1" in out and out.strip().splitlines()[-1] == str(run / "retrieval.png")
  assert "emoji_views:twemoji/image_to_text/recall@1" in (run / "evaluation.json").read_text()
  assert min(Image.open(run / "retrieval.png").size) > 300


def test_search_by_words_and_by_image(run, data_dir, tmp_path, capsys):
  common = ["--workdir", str(run), "--data_dir", str(data_dir), "--count", "3", "--out", str(tmp_path / "found.png")]
  assert main(["search", "red heart", *common]) == 0
  Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(tmp_path / "query.png")
  assert main(["search", str(tmp_path / "query.png"), *common]) == 0
  assert len(capsys.readouterr().out.strip().splitlines()) == 8
  assert min(Image.open(tmp_path / "found.png").size) > 100


def test_mistakes_in_a_search(run, data_dir, tmp_path, capsys):
  common = ["--workdir", run, "--data_dir", data_dir, "--out", tmp_path / "found.png"]
  (tmp_path / "not.png").write_text("no image")
  assert_fails(capsys, ["search", tmp_path / "not.png", *common], "not.png", "not a readable image")
  assert_fails(capsys, ["search", tmp_path / "absent.png", *common], "no such image file")
  assert_fails(capsys, ["search", "  ", *common], "empty")
  assert_fails(
    capsys, ["search", "cat", *common, "--dataset", "emoji_views:twemojy"], "did you mean 'emoji_views:twemoji'"
  )
  assert not (tmp_path / "found.png").exists()


def test_mistakes_in_a_config(tmp_path, capsys, data_dir):
  file = config_file(tmp_path / "mine.py")
  common = ["--workdir", tmp_path / "run", "--data_dir", data_dir]
  assert_fails(capsys, ["train", "--config", tmp_path / "no.py", *common], "no such file")
  assert_fails(
    capsys, ["train", "--config", file, *common, "--config.batch.sise=3"], "did you mean '--config.batch.size'"
  )
  assert_fails(capsys, ["train", "--config", file, *common, "--batch=3"], "--config.batch.size=64")
  assert_fails(
    capsys,
    ["train", "--config", file, "--workdir", tmp_path / "run", "--data_dir", tmp_path / "empty"],
    "mmcontrast data build emoji_views",
  )
  assert not (tmp_path / "run").exists()


def test_no_run_to_evaluate(tmp_path, capsys):
  assert_fails(capsys, ["evaluate", "--workdir", tmp_path], "mmcontrast train")
  assert list(tmp_path.iterdir()) == []


def test_an_unknown_dataset(tmp_path, capsys):
  assert_fails(capsys, ["data", "build", "emoji_view", "--data_dir", tmp_path], "did you mean 'emoji_views'")
  assert list(tmp_path.iterdir()) == []


def test_importing_is_quick_and_light():
  code = (
    "import sys, time; start = time.perf_counter(); import mmcontrast; "
    "print(time.perf_counter() - start, *[m for m in ('tensorflow', 'torch', 'jax') if m in sys.modules])"
  )
  words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
  assert words[1:] == [] and float(words[0]) < 1.0


def test_the_program_needs_neither_tensorflow_nor_torch_and_waits_for_no_statistics():
  code = (
    "import sys, mmcontrast.train, mmcontrast.evaluate; "
    "print([m for m in ('tensorflow', 'torch', 'scipy.stats') if m in sys.modules])"
  )
  found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
  assert found.strip() == "[]"


def test_a_terminal_that_is_not_utf_8_and_a_reader_that_leaves(monkeypatch, capfd):
  def says(words):
    def command(options, rest):
      print(words)

    monkeypatch.setattr("mmcontrast.data_commands._build", command)

  out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
  monkeypatch.setattr(sys, "stdout", out)
  says("caf\u00e9 \u732b \udc80")
  assert main(["data", "build", "x"]) == 0
  assert out.buffer.getvalue() == b"caf\\xe9 \\u732b \\udc80\n"

  read, write = os.pipe()
  os.close(read)
  with open(write, "w") as pipe:
    monkeypatch.setattr(sys, "stdout", pipe)
    says("a line\n" * 20_000)
    assert main(["data", "build", "x"]) == 141
    print("what comes after is nobody's, and no error", flush=True)
  assert capfd.readouterr().err == ""


def test_a_source_may_follow_options_and_several_words_go_in_quotes(monkeypatch, capsys):
  calls = []
  monkeypatch.setattr("mmcontrast.evaluate.evaluate_workdir", lambda *args, source, **options: calls.append(source))
  monkeypatch.setattr("mmcontrast.search.search", lambda workdir, query, source, **options: calls.append(source) or [])
  for words in (
    ["evaluate", "--workdir", "r", "toy:a"],
    ["evaluate", "toy:a", "--workdir", "r"],
    ["evaluate", "--step", "3", "toy:a", "--workdir", "r", "--split", "val", "--source.labels=x"],
    ["search", "red", "--workdir", "r", "toy:a"],
    ["search", "--workdir", "r", "red", "toy:a"],
    ["search", "red", "--workdir", "r", "toy:a", "--count", "3", "--source.labels=x"],
  ):
    assert main(words) == 0, words
  assert calls == ["toy:a"] * 6
  monkeypatch.undo()
  assert_fails(capsys, ["search", "a", "red", "heart", "--workdir", "r"], "goes in quotes", '"a red heart"')
  assert_fails(capsys, ["search", "red", "heart", "--workdir", "r"], "goes in quotes", '"red heart"')
  assert_fails(capsys, ["evaluate", "toy:a", "toy:b", "--workdir", "r"], "unexpected argument 'toy:b'")


def test_an_override_may_have_spaces(capsys, tmp_path):
  """It is no source and no query."""
  words = ["--config.evaluation.evaluators={'retrieval': {}}", "--workdir", str(tmp_path / "none")]
  assert main(["evaluate", *words]) == 2
  assert str(tmp_path / "none") in capsys.readouterr().err
