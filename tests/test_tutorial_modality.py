"""docs/tutorials/new_modality.md does what it says."""

import json
import pathlib
import re

import numpy as np
import pytest

from mmcontrast.config import load_config
from mmcontrast.data.inspection import inspect
from mmcontrast.data.sources import open_source
from mmcontrast.encoders import ENCODERS
from mmcontrast.errors import UserError
from mmcontrast.inference.trained_model import load
from mmcontrast.modalities import MODALITIES
from mmcontrast.train import train
from mmcontrast.training.observe import read_jsonl

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "tutorials" / "new_modality.md").read_text()
MODALITY, CONFIG = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SHAPES = {"a rising line": lambda at: at, "a falling line": lambda at: -at, "a wave": lambda at: np.sin(9 * at)}


def values(number, length):
  return list(SHAPES.values())[number % 3](np.linspace(0, 1, length)).round(4).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the two files that the page writes, and data: readings of two lengths, and one that is none."""
  folder = tmp_path_factory.mktemp("reading")
  (folder / "reading.py").write_text(MODALITY)
  (folder / "reading_text.py").write_text(CONFIG)
  rows = [{"values": values(n, 20 + 20 * (n % 2)), "caption": list(SHAPES)[n % 3]} for n in range(24)]
  (folder / "reading.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  yield folder
  MODALITIES.pop("reading", None)
  ENCODERS.pop("reading_convnet", None)


def loaded(folder):
  config = load_config(f"{folder / 'reading_text.py'}:smoke")
  config["data"]["dataset"] = f"jsonl:{folder}/reading.jsonl"
  return config


@pytest.fixture(scope="module")
def run(folder):
  config = loaded(folder)
  state = train(config, folder / "run")
  assert int(state.step) == config["steps"]
  return folder / "run"


def test_it_is_short():
  assert len(TEXT.splitlines()) <= 120 and len([line for line in MODALITY.splitlines() if line.strip()]) <= 75


def test_bad_readings_are_counted(folder, tmp_path):
  good = [{"values": values(n, 20), "caption": "a line"} for n in range(4)]
  bad = [[], [1, None], [[1, 2], [3]], [10**400], [1e300]]
  rows = [*good, *({"values": value, "caption": "broken"} for value in bad)]
  (tmp_path / "reading.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  config = loaded(folder)
  config["data"]["dataset"] = f"jsonl:{tmp_path}/reading.jsonl"
  assert "5 of 9 records" in inspect(open_source(config["data"], "all")).text


def test_it_trains(run):
  assert "reading_text/loss" in read_jsonl(run / "metrics.jsonl")[-1]


def test_padding_is_not_seen_and_files_are_accepted(run, folder):
  model = load(run)
  (folder / "short.json").write_text(json.dumps(values(2, 20)))
  found = model.encode("reading", [str(folder / "short.json"), json.dumps(values(2, 32)).encode()])
  alone = model.encode("reading", [str(folder / "short.json")])
  assert found.shape == (2, 16)
  np.testing.assert_allclose(found[:1], alone, atol=1e-6)
  with pytest.raises(UserError, match=r"not a list of numbers; give a path or the bytes of a JSON file"):
    model.encode("reading", [b"{}x"])


def test_inspect_counts_it(run, folder):
  text = inspect(open_source({"dataset": f"jsonl:{folder}/reading.jsonl", "source": {"reading": "values"}}, "all")).text
  assert re.search(r"readings: reading\s+24 of 24 records", text), text


def test_a_source_without_a_column_is_one_line(run, folder, tmp_path):
  config = loaded(folder)
  config["data"]["source"] = {"image": None}
  with pytest.raises(UserError, match=r"data\.views\.reading: dataset .* has no readings at all"):
    train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()
