"""docs/tutorials/new_term.md does what it says."""

import pathlib
import re

import numpy as np
import pytest

from mmcontrast.config import load_config
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.train import train
from mmcontrast.training.observe import read_jsonl

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "tutorials" / "new_term.md").read_text()
TERM, CONFIG = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path):
  """A folder with the two files that the page writes."""
  (tmp_path / "center.py").write_text(TERM)
  (tmp_path / "with_center.py").write_text(CONFIG)
  yield tmp_path
  MODULES.pop("center", None)


def test_it_is_short():
  assert len(TEXT.splitlines()) <= 60 and len([line for line in TERM.splitlines() if line.strip()]) <= 30


def test_it_trains_learns_and_remembers(folder, data_dir):
  config = load_config(f"{folder / 'with_center.py'}:smoke")
  state = train(config, folder / "run", data_dir)
  assert int(state.step) == config["steps"] and np.any(state.terms["center"]["centres"])
  assert float(state.params["terms"]["center"]["scale"]) != 1.0
  lines = read_jsonl(folder / "run" / "metrics.jsonl")
  assert {"center/loss", "center/scale", "center/weight"} <= set(lines[-1])


def test_a_wrong_option_is_refused(folder, data_dir):
  (folder / "with_center.py").write_text(CONFIG.replace("classes=10", "clases=10"))
  with pytest.raises(UserError, match=r"center\.module: no option 'clases'; did you mean 'classes'"):
    train(load_config(f"{folder / 'with_center.py'}:smoke"), folder / "run", data_dir)
  assert not (folder / "run").exists()
