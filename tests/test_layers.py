"""`mmcontrast layers`: the table of all layers of two towers, of one run and of two; files, lines, messages."""

import csv
import json

import numpy as np
import pytest
from own_data import picture
from tiny import tiny_inference

from mmcontrast import layers as room
from mmcontrast.cli import main
from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols import alignment

COUNT = 12


@pytest.fixture(scope="module")
def models():
  deeper = tiny_inference(step=4, seed=1, towers={"image": dict(depth=2)}, sets=("mine",))
  return {"x": tiny_inference(step=3, sets=("mine",)), "y": deeper}


@pytest.fixture
def runs(tmp_path, models, monkeypatch):
  """Two runs, and pictures with captions as a source."""
  (tmp_path / "pictures").mkdir()
  for number in range(COUNT):
    (tmp_path / "pictures" / f"{number:02}.png").write_bytes(picture(20 * number))
    (tmp_path / "pictures" / f"{number:02}.txt").write_text("x" * (number + 1))

  def load(workdir, step, data_dir):
    if workdir.name not in models:
      raise UserError(f"{workdir}: no checkpoints there")
    return models[workdir.name]

  monkeypatch.setattr(room, "load", load)
  for name in models:
    (tmp_path / name).mkdir()
  return tmp_path


def test_all_layers_of_two_towers_and_of_two_runs(runs, models, capsys):
  words = ["layers", f"folder:{runs}/pictures", "--workdir", f"{runs}/x", "--k", "3"]
  assert main([*words, "--compare", f"{runs}/y", "--towers", "text,image"]) == 0
  out = capsys.readouterr().out.splitlines()
  assert out[:2] == [f"{runs}/x/layers.json", f"{runs}/x/layers.csv"] and out[2].startswith("pictures, 12 examples")
  made = json.loads((runs / "x" / "layers.json").read_text())
  (first,) = made["compared"]
  assert first["layers"] == ["blocks_0", "pooled"] and first["other_layers"] == ["blocks_0", "blocks_1", "pooled"]
  assert first["other_run"] == f"{runs}/y" and first["examples"] == COUNT
  assert made["runs"][1]["step"] == 4 and made["runs"][0]["protocol"]["k"] == 3
  assert {"protocol", "version", "ties", "resize", "crop"} <= set(made["runs"][0]["protocol"])
  # By other means: the pictures and captions as they were written.
  image = models["y"].embed("image/image.pooled", np.stack([models["y"].view(picture(20 * n)) for n in range(COUNT)]))
  text = models["x"].embed("text/text.pooled", ["x" * (n + 1) for n in range(COUNT)])
  rows = alignment.prepared(text), alignment.prepared(image)
  assert first["scores"]["mutual_knn"][1][2] == pytest.approx(alignment.mutual_knn(*rows, 3), abs=1e-6)
  assert first["scores"]["cka"][1][2] == pytest.approx(alignment.cka(*rows), abs=1e-4)
  table = list(csv.DictReader((runs / "x" / "layers.csv").open()))
  assert len(table) == 2 * 3
  best = max(table, key=lambda row: float(row["cka"]))
  found = first["best"]["cka"]
  assert (best["layer"], best["other_layer"]) == (found["layer"], found["other_layer"])
  assert f"text {found['layer']} and image of {runs}/y {found['other_layer']}, best of 2 x 3" in "\n".join(out)
  # Of one run: its first two towers; a layer beside itself is alike.
  assert main([*words, "--out", f"{runs}/made/own.json", "--towers", "image,image"]) == 0
  own = json.loads((runs / "made" / "own.json").read_text())["compared"][0]
  assert np.diagonal(own["scores"]["mutual_knn"]).tolist() == [1, 1] and (runs / "made" / "own.csv").is_file()


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--towers", "image"], "--towers image: give two, such as --towers image,text"),
    (["--towers", "image,txt"], "--towers: towers of RUNS/x: no such choice 'txt'; did you mean 'text'?"),
    (["--pool", "max"], "--pool: no such choice 'max'; "),
    (["--k", "0"], "--k 0: give 1 or more"),
    (
      ["--k", "12"],
      "layers: 12 examples of 'pictures' show what 'image' and 'text' are of; give a set of more than 12",
    ),
    (["--examples", "3"], "--examples 3: give 4 or more"),
    (["--out", "RUNS/table.csv"], "the tables are a .json file, and a .csv beside it; give table.csv.json"),
    (["--source.captoin=alt"], "no option 'captoin'; did you mean"),
  ],
)
def test_wrong_options_are_one_line(runs, words, message, capsys):
  words = [word.replace("RUNS", str(runs)) for word in words]
  assert main(["layers", f"folder:{runs}/pictures", "--workdir", f"{runs}/x", *words]) == 2
  out, err = capsys.readouterr()
  *notes, line = err.splitlines()
  assert line.startswith("error: ") and message.replace("RUNS", str(runs)) in line and not out
  assert all("is of other data" in note for note in notes)
  assert not list((runs / "x").iterdir())


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--dataset", "yours"], "--dataset: evaluation sets of the run: no such choice 'yours'; (one of: mine)"),
    (["--split", "val"], "--split is an option of a source; name one: mmcontrast layers SOURCE --workdir"),
    (["--towres=a"], "unexpected argument '--towres=a'"),
    (["--compare", "RUNS/none"], "error: --compare RUNS/none: no checkpoints there"),
  ],
)
def test_without_a_source(runs, words, message, capsys):
  words = [word.replace("RUNS", str(runs)) for word in words]
  assert main(["layers", "--workdir", f"{runs}/x", *words]) == 2
  assert message.replace("RUNS", str(runs)) in capsys.readouterr().err
