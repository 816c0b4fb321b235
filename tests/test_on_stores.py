"""A run whose folder is in an object store, from its first step to a search, against stand-ins on loopback."""

import json
import os
import subprocess
import sys

import loopback_stores
import numpy as np
import pytest
from own_data import picture
from PIL import Image
from test_cli import config_file
from tiny import assert_same, tiny_config

import mmcontrast
from mmcontrast import folders
from mmcontrast import train as training
from mmcontrast.cli import main
from mmcontrast.errors import UserError
from mmcontrast.runs import run_lock
from mmcontrast.runs.checkpoint import complete_steps, load_run
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.observe import read_jsonl

# Kills itself, as a machine that is taken away does, when the checkpoint of its second step is there.
KILLED = """
import os, signal, sys
from mmcontrast import cli, folders, train
from mmcontrast.runs.checkpoint import Checkpoints, complete_steps

check = Checkpoints.check

def dies(self):
  check(self)
  if complete_steps(self._directory):
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.check = dies
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def environment():
  with loopback_stores.in_this_process() as variables:
    yield variables


def settings(data, **changes):
  """Ten steps on rows of a table in a store, with a queue, a momentum branch and a kept tokenizer."""
  c = tiny_config()
  heads = {name: c["heads"][name] for name in ("image_joint", "text_joint")}
  return {
    "steps": 10,
    "batch": dict(size=8, microbatches=1),
    "heads": heads,
    "objective": {name: c["objective"][name] for name in ("image_to_text", "text_to_image")},
    "data": {
      **c["data"],
      "dataset": f"jsonl:{data}/rows.jsonl",
      "split": "train",
      "views": dict(image=2, text=2),
      "tokenizer": f"{data}/own.model",
      "cache": "none",
    },
    "evaluation": {
      **c["evaluation"],
      "image": "image_joint",
      "text": "text_joint",
      "sets": ("mine",),
      "data": dict(mine=dict(split="train")),
      "evaluators": dict(retrieval={}),
    },
    "checkpoint": {**c["checkpoint"], "every_steps": 2, "keep_last": 2},
    **changes,
  }


@pytest.fixture(scope="module")
def data(environment):
  """A table, its pictures and a tokenizer, all of them in a bucket."""
  folder = folders.at("gs://bucket/data", "data")
  rows = [{"image": f"{row}.png", "caption": [f"thing {row}", f"a {row}"]} for row in range(40)]
  for row in range(40):
    (folder / f"{row}.png").write_bytes(picture(row))
  (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  words = ["data", "tokenizer", f"jsonl:{folder}/rows.jsonl", "--source.image=None", "--vocab_size", "300"]
  assert main([*words, "--out", f"{folder}/own.model"]) == 0
  return folder


@pytest.fixture(scope="module")
def reference(data, tmp_path_factory):
  """(config file, workdir, final state) of a run on a disk that was not interrupted."""
  folder = tmp_path_factory.mktemp("reference")
  file = config_file(folder / "mine.py", **settings(data))
  return file, folder / "run", training.train(tiny_config(**settings(data)), folder / "run")


@pytest.fixture(scope="module", params=("gs", "s3"))
def resumed(request, environment, reference):
  """(workdir, final state, what was printed) of a run in a store that was killed and run again."""
  file, _, _ = reference
  workdir = folders.at(f"{request.param}://bucket/runs/mine", "--workdir")
  words = ["train", "--config", file, "--workdir", str(workdir)]
  done = subprocess.run([sys.executable, "-c", KILLED, *words], env={**os.environ, **environment}, capture_output=True)
  assert done.returncode == -9, done.stderr.decode()
  steps = complete_steps(workdir / "checkpoints")
  assert steps and steps[-1] < 10 and (workdir / run_lock.NAME).is_file()
  (workdir / f"checkpoints/{steps[-1] + 2}/model/manifest.ocdbt").write_text("of a save that was cut short")
  return workdir, training.train(tiny_config(**settings(folders.at("gs://bucket/data", ""))), workdir), steps


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not(resumed, reference):
  workdir, state, _ = resumed
  assert_same(state, reference[2])
  assert_same(load_run(workdir)[1], load_run(reference[1])[1])
  assert complete_steps(workdir / "checkpoints") == complete_steps(reference[1] / "checkpoints")
  there = {path.name for path in workdir.iterdir()}
  assert there == {path.name for path in reference[1].iterdir()} and run_lock.NAME not in there
  lines, expected = (read_jsonl(folder / "metrics.jsonl") for folder in (workdir, reference[1]))
  assert [line["step"] for line in lines] == list(range(1, 11))
  assert [line["loss"] for line in lines] == [line["loss"] for line in expected]
  assert len(list((workdir / "tensorboard").glob("events*"))) == 2
  assert (workdir / "tokenizer/own.model").is_file()


@pytest.mark.slow
def test_it_is_evaluated_searched_embedded_and_exported(resumed, reference, tmp_path, capsys):
  workdir, _, _ = resumed
  for _ in range(2):
    assert main(["evaluate", "--workdir", str(workdir)]) == 0
  assert capsys.readouterr().out.strip().splitlines()[-1] == f"{workdir}/retrieval.png"
  assert "mine/image_to_text/recall@1" in json.loads((workdir / "evaluation.json").read_text())
  assert len((workdir / "evaluations.jsonl").read_text().splitlines()) == 2
  source = "jsonl:gs://bucket/data/rows.jsonl"
  assert main(["embed", source, "--workdir", str(workdir), "--out", f"{workdir}/embeddings"]) == 0
  words = ["search", "thing 3", "--workdir", str(workdir), "--count", "2", "--out", f"{workdir}/found"]
  capsys.readouterr()
  for more in ([source], ["--embeddings", f"{workdir}/embeddings"]):
    assert main([*words, *more]) == 0
  found = capsys.readouterr().out.strip().splitlines()
  assert found[:3] == found[3:] and found[2] == f"{workdir}/found.png" and "data/" in found[0]
  with (workdir / "found.png").open("rb") as file:
    assert min(Image.open(file).size) > 100
  assert main(["export", "--workdir", str(workdir), "--to", "stablehlo", "--out", f"{workdir}/program"]) == 0
  assert main(["export", "--workdir", str(workdir), "--to", "stablehlo", "--out", str(tmp_path / "program")]) == 0
  for file in (tmp_path / "program").iterdir():
    assert (workdir / "program" / file.name).is_file()
  saved = load_run(workdir)[1]
  assert_same(
    initial_arrays({"init": {"*": f"{workdir}:*"}}, saved, {}),
    initial_arrays({"init": {"*": f"{reference[1]}:*"}}, saved, {}),
  )
  both = ["interpolate", str(workdir), str(reference[1]), "--workdir", f"{workdir}/between"]
  assert main(both) == 0
  rows = [mmcontrast.load(str(place)).encode_text("thing 3") for place in (workdir, workdir / "between")]
  np.testing.assert_allclose(*rows, rtol=1e-6)


def test_another_run_in_its_folder_is_refused_before_anything_is_compiled(resumed, data, monkeypatch, capsys, tmp_path):
  workdir, _, _ = resumed
  monkeypatch.setattr(training, "_train", None)
  before = sorted(workdir.files())
  file = config_file(tmp_path / "other.py", **settings(data, seed=7))
  assert main(["train", "--config", file, "--workdir", str(workdir)]) == 2
  error = capsys.readouterr().err
  assert error.startswith(f"error: {workdir}: its checkpoint is from another config: config.seed was 0, now 7")
  assert error.count("\n") == 1
  with pytest.raises(UserError, match=rf"--workdir {workdir.scheme}://no-such/run: cannot be written to .no bucket"):
    training.train(tiny_config(**settings(data)), f"{workdir.scheme}://no-such/run")
  assert sorted(workdir.files()) == before


@pytest.mark.slow
def test_stages_each_in_its_folder(data):
  workdir = folders.at("gs://bucket/runs/stages", "--workdir")
  stages = (dict(name="first", steps=1), dict(name="second", steps=1, init={"*": "first:*"}))
  config = tiny_config(**settings(data), stages=stages)
  training.train(config, workdir)
  training.train(config, workdir)  # done
  assert [path.name for path in sorted(workdir.iterdir())] == ["config.json", "first", "second"]
  assert load_run(workdir)[2] == 1
  with pytest.raises(UserError, match="holds a run of the stages first, second"):
    training.train(tiny_config(**settings(data)), workdir)
