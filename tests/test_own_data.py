"""Own data from end to end: rows in a file, a tokenizer of them, training, evaluation, search."""

import json
import shutil

import numpy as np
import pytest
from own_data import COUNT, OPTIONS, encode, rows, write, write_own_data
from tiny import tiny_config

import mmcontrast
from mmcontrast.cli import main
from mmcontrast.errors import UserError
from mmcontrast.evaluate import evaluate_model
from mmcontrast.inference import load, load_tokenizer
from mmcontrast.train import train

MINE = {"sets": ("mine",), "image": "image_joint", "text": "text_joint", "batch_size": 9,
        "data": {"mine": {}}, "evaluators": {"retrieval": {}, "zero_shot": {"label": "kind"}}}  # fmt: skip


def config(dataset, tokenizer, **evaluation):
  c = tiny_config(steps=2, objective={"image_text": {"query": "image[0]/image_joint", "key": "text[0]/text_joint"}})
  c["heads"] = {name: head for name, head in c["heads"].items() if name.endswith("_joint")}
  c["data"]["views"] = {"image": 1, "text": 1}
  c["augment"] = {"image": "none"}
  c["data"] |= {"dataset": dataset, "source": OPTIONS, "split": "train", "tokenizer": str(tokenizer)}
  c["evaluation"] |= {**MINE, **evaluation}
  return c


def test_train_evaluate_and_search(tmp_path, data_dir, capsys):
  dataset = write_own_data(str(tmp_path / "data"), "jsonl")
  workdir = tmp_path / "run"
  sets = {
    "sets": ("mine", "plain"),
    "data": {"mine": {}, "plain": {"dataset": f"folder:{tmp_path}/data"}},
    "evaluators": {name: {**options, "sets": ("mine",)} for name, options in MINE["evaluators"].items()},
  }
  tokenizer = shutil.copy(data_dir / "emoji_views" / "tokenizer.model", tmp_path / "mine.model")
  state = train(config(dataset, tokenizer, **sets), workdir, data_dir)
  assert int(state.step) == 2
  assert main(["evaluate", "--workdir", str(workdir)]) == 0
  results = json.loads((workdir / "evaluation.json").read_text())
  measured_by = results.pop("protocols")
  assert set(measured_by) == {name.rpartition("/")[0] for name in results}
  assert results["mine/image_to_text/queries"] == COUNT and results["mine/text_to_image/queries"] == 2 * COUNT
  assert "mine/zero_shot/kind_top1" in results and (workdir / "retrieval.png").is_file()
  # 24 images and 48 captions in batches of 9, of which the last is padded, or all at once: the same numbers.
  model = load(workdir)
  model._batch_size = 2 * COUNT
  assert evaluate_model(model, model.config) == pytest.approx(results, abs=1e-6)
  assert load_tokenizer({**model.config, "data": {**model.config["data"], "dataset": "jsonl:/nowhere"}})
  # Moved, and its data and its tokenizer gone: it still loads, and says the same.
  before = model.encode_text(["thing 3", "alt of 4"])
  moved = workdir.rename(tmp_path / "moved")
  (tmp_path / "data").rename(tmp_path / "gone")
  (tmp_path / "mine.model").unlink()
  after = mmcontrast.load(moved).encode_text(["thing 3", "alt of 4"])
  np.testing.assert_array_equal(after, before)
  moved.rename(workdir)
  (tmp_path / "gone").rename(tmp_path / "data")
  there, options = tmp_path / "rows", [f"--source.{key}={value}" for key, value in OPTIONS.items()]
  words = ["embed", dataset, "--workdir", str(workdir), "--out", str(there), *options]
  assert main(words) == 0 and f"{COUNT} images and {2 * COUNT} captions of {COUNT}" in capsys.readouterr().out
  query = ["search", "thing 3", "--workdir", str(workdir), "--embeddings", str(there)]
  assert main([*query, "--count", "3", "--out", str(tmp_path / "near.png")]) == 0
  assert len(capsys.readouterr().out.splitlines()) == 4 and (tmp_path / "near.png").is_file()
  assert main([*query, "--kind", "text"]) == 0 and len(capsys.readouterr().out.splitlines()) == 10
  out = tmp_path / "found.png"
  assert main(["search", "thing 3", "--workdir", str(workdir), "--out", str(out), "--count", "3"]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert out.is_file() and all(f"  {tmp_path}/data/images/" in line for line in lines[:3])  # no captions
  assert main(["search", "thing 3", "--workdir", str(workdir), "--out", str(out), "--dataset", "mine"]) == 0
  assert "é" in capsys.readouterr().out


def test_a_wrong_evaluation_set_stops_before_training(tmp_path, data_dir):
  dataset = write_own_data(str(tmp_path), "jsonl")
  other = write(str(tmp_path / "other.jsonl"), encode("jsonl", [{"img": row["image"]} for row in rows()]))
  for evaluation, message in (
    ({"data": {"mine": {"dataset": f"jsonl:{other}"}}}, r"evaluation\.data\.mine: .*no column 'image'.*'img'"),
    ({"sets": ("mien",)}, "did you mean 'mine'"),
  ):
    wrong = config(dataset, data_dir / "emoji_views" / "tokenizer.model", every_steps=1, **evaluation)
    with pytest.raises(UserError, match=message):
      train(wrong, tmp_path / "run", data_dir)
  assert not (tmp_path / "run").exists()
