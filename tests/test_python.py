"""The package from Python: what can be called, in whatever order modules are imported, and configs that are checked."""

import importlib
import inspect
import pathlib
import re
import subprocess
import sys

import ml_collections
import numpy as np
import own_data
import pytest
from tiny import tiny_config

import mmcontrast
from mmcontrast.config import overridden
from mmcontrast.errors import UserError

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "python.md"


def test_importing_is_quick_and_what_can_be_called_is_listed():
  code = (
    "import sys, time; start = time.perf_counter(); import mmcontrast; took = time.perf_counter() - start; "
    "print(took, 'jax' in sys.modules, *mmcontrast.__all__)\n"
    "assert set(mmcontrast.__all__) <= set(dir(mmcontrast))\n"
    "mmcontrast.UserError, mmcontrast.base_config, mmcontrast.load_config"
  )
  words = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
  assert float(words[0]) < 1.0 and words[1] == "False"
  assert words[2:] == [
    "UserError",
    "align",
    "base_config",
    "benchmark",
    "caption",
    "embed",
    "evaluate",
    "index",
    "layers",
    "load",
    "load_config",
    "match",
    "search",
    "segment",
    "train",
  ]
  with pytest.raises(AttributeError, match="trian"):
    mmcontrast.trian  # noqa: B018


@pytest.mark.parametrize("name", ["train", "evaluate", "search", "embed"])
def test_a_command_is_called_as_the_package_s_and_is_its_module_too(name):
  module = importlib.import_module(f"mmcontrast.{name}")
  assert getattr(mmcontrast, name) is module and callable(module)
  assert "workdir" in inspect.signature(module).parameters


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(stepz=3), r"unknown key config\.stepz; did you mean 'steps'"),
    (dict(log=dict(every=1)), r"unknown key config\.log\.every; did you mean 'every_steps'"),
    (dict(matrix=dict(impll="x")), r"unknown key config\.matrix\.impll; did you mean 'impl'"),
    (dict(checkpoint=dict(best_metrik="loss")), r"config\.checkpoint\.best_metrik"),
    (dict(optimizer=dict(name="adamw", learning_rate=1e-3, beta2=0.9)), r"config\.optimizer: no option 'beta2'"),
    (dict(steps="many"), r"config\.steps: 'many' is not valid; give a value like its default, 1000"),
    (dict(batch=dict(size=1.5)), r"config\.batch\.size: 1\.5 is not valid; give a value like its default, 256"),
    (dict(log=3), r"config\.log must be a mapping, not 3"),
  ],
)
@pytest.mark.parametrize("kind", [dict, ml_collections.ConfigDict])
def test_what_is_misspelt_is_refused(change, message, kind, tmp_path, data_dir):
  with pytest.raises(UserError, match=message):
    mmcontrast.train(kind(tiny_config(**change)), tmp_path / "run", data_dir)
  assert not (tmp_path / "run").exists()


def test_a_name_is_not_a_config(tmp_path):
  with pytest.raises(UserError, match=r"load it by mmcontrast\.load_config\('clip:smoke'\)"):
    mmcontrast.train("clip:smoke", tmp_path)


def test_a_part_of_a_config_is_completed_and_plain():
  found = overridden(
    dict(
      steps=np.int64(7),
      log=dict(every_steps=2),
      init={"towers/image": pathlib.Path("runs/a.b")},
      data=dict(source={"images.path": "x"}),
    )
  )
  assert found["steps"] == 7 and type(found["steps"]) is int and found["log"]["watchdog_seconds"] == 600
  assert found["init"] == {"towers/image": "runs/a.b"} and found["data"]["source"] == {"images.path": "x"}
  assert overridden(found) == found


def test_the_page_does_what_it_says(tmp_path, monkeypatch, data_dir, capsys):
  """Each block in turn, as the cells of a notebook, on small data and the smallest model."""
  dataset = own_data.write_own_data(str(tmp_path), "jsonl")
  cells = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
  replaced = {
    "size=tiny,image_size=64,patch=8,batch=64,epochs=5": "smoke,held_out=0.4",
    "range(2)": "range(1)",
    "/data/mine.model": str(data_dir / "emoji_views" / "tokenizer.model"),
    "jsonl:/data/mine.jsonl": dataset,
    "/data/images": f"{tmp_path}/images",
  }
  monkeypatch.chdir(tmp_path)
  names = {}
  for cell in cells:
    for text, small in replaced.items():
      cell = cell.replace(text, small)
    exec(cell.replace("config.data.dataset =", "config.batch.size = 8\nconfig.data.dataset ="), names)
  assert "did you mean 'every_steps'" in capsys.readouterr().out
  assert len(names["losses"]) == 3 and names["images"].shape == names["texts"].shape
  assert set(names["results"]) >= {"held_out/image_to_text/recall@1"}
  assert (tmp_path / "runs" / "seed0" / "metrics.jsonl").exists()
  assert any((tmp_path / "embeddings").rglob("*.npy"))
