"""docs/tutorials/new_method.md does what it says."""

import pathlib
import re

import jax
import pytest

from mmcontrast.config import load_config
from mmcontrast.errors import UserError
from mmcontrast.objectives.criteria import CRITERIA
from mmcontrast.train import train

ROOT = pathlib.Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "tutorials" / "new_method.md").read_text()
CRITERION, CONFIG, CHECK = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def configs(tmp_path):
  """A folder with the two files that the page writes."""
  (tmp_path / "margin.py").write_text(CRITERION)
  (tmp_path / "labse.py").write_text(CONFIG)
  yield tmp_path
  CRITERIA.pop("additive_margin", None)


def test_a_method_takes_at_most_forty_lines():
  lines = [line for line in (CRITERION + CONFIG).splitlines() if line.strip()]
  assert len(lines) <= 40, len(lines)


def test_it_equals_the_plain_formula_on_one_device_and_on_eight():
  assert jax.device_count() == 8
  try:
    exec(compile(CRITERION + CHECK, "new_method.md", "exec"), {"__name__": "new_method"})
  finally:
    CRITERIA.pop("additive_margin", None)


def test_its_config_trains(configs, tmp_path, data_dir):
  config = load_config(f"{configs / 'labse.py'}:smoke")
  assert int(train(config, tmp_path / "run", data_dir).step) == config["steps"]


def test_a_wrong_option_is_refused(configs, tmp_path, data_dir):
  (configs / "labse.py").write_text(CONFIG.replace("margin=3.0", "marign=3.0"))
  with pytest.raises(UserError, match=r"criterion: no option 'marign'; did you mean 'margin'"):
    train(load_config(f"{configs / 'labse.py'}:smoke"), tmp_path / "run", data_dir)
  assert not (tmp_path / "run").exists()
