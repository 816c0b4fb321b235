"""Every shipped config: its resolved text is the committed one. test_smoke_runs.py trains them."""

import pathlib

import pytest

from mmcontrast.config import load_config, to_json
from mmcontrast.config.config_files import SHIPPED, shipped

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(f"{name}.py" for name in shipped())
GOLDEN = ROOT / "tests" / "golden" / "configs"


def test_configs_are_found():
  assert {"quickstart.py", "mct_emoji.py", "mct_coco.py", "methods/moco_v2.py", "methods/clip.py"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_resolved_text_is_the_committed_one(name):
  """A diff here shows every hyper-parameter that changed; commit the new text if it was meant.

  To renew: python tests/config/test_configs.py
  """
  assert to_json(load_config(name.removesuffix(".py"))) == (GOLDEN / f"{name}.json").read_text()


def test_the_readme_names_every_config():
  readme = (ROOT / "README.md").read_text()
  for name in CONFIGS:
    assert f"`{pathlib.Path(name).stem}`" in readme or f"`{name}`" in readme, name


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_fits_a_screen(name):
  assert len((SHIPPED / name).read_text().splitlines()) <= 120


if __name__ == "__main__":
  for config_name in CONFIGS:
    path = GOLDEN / f"{config_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(load_config(config_name.removesuffix(".py"))))
