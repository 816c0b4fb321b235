"""Every shipped config: its resolved text is the committed one, and its :smoke run trains."""

import json
import pathlib

import jax
import numpy as np
import pytest
from PIL import Image

from mmcontrast.config import load_config, to_json
from mmcontrast.config.config_files import SHIPPED, shipped
from mmcontrast.modalities.audio_reading import to_wav
from mmcontrast.train import train

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


@pytest.mark.parametrize("name", CONFIGS)
def test_smoke_run(name, tmp_path, data_dir):
  overrides = []
  if "coco" in name:
    from coco_fixture import make_coco  # not on the path of a script in this folder

    root = make_coco(tmp_path, data_dir, "train")
    overrides = [
      f"--config.data.dataset=coco:{root}",
      f"--config.data.tokenizer={data_dir / 'emoji_views' / 'tokenizer.model'}",
    ]
  if name.startswith("recipes/") and "coco" not in name:  # their data are some terabytes
    overrides = ["--config.data.dataset=emoji_views", "--config.data.tokenizer=sentencepiece"]
    overrides += ["--config.data.token_ids.bos=1", "--config.data.token_ids.eos=2"]
  if json.loads(to_json(load_config(name.removesuffix(".py"))))["data"]["dataset"] == "emoji_spoken":
    overrides = [f"--config.data.dataset=jsonl:{spoken_rows(tmp_path)}", "--config.data.languages=()"]
    overrides.append("--config.data.source.audio=audio")
    overrides.append(f"--config.data.tokenizer={data_dir / 'emoji_views' / 'tokenizer.model'}")
  if name == "own_data.py":
    overrides = ["--config.data.dataset=emoji_views", "--config.data.source={}"]
  config = load_config(f"{name.removesuffix('.py')}:smoke", overrides)
  state = train(config, tmp_path / "run", data_dir)
  assert int(state.step) == config["steps"] <= 5
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def spoken_rows(folder):
  """24 pictures with words and sounds: the data themselves take minutes to be spoken."""
  rng, rows = np.random.default_rng(0), []
  for number in range(24):
    Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / f"{number}.wav").write_bytes(to_wav(rng.normal(0, 0.1, 4_000 + 100 * number), 8_000))
    rows.append(dict(image=f"{number}.png", audio=f"{number}.wav", caption=f"thing {number}"))
  (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
  return folder / "rows.jsonl"


if __name__ == "__main__":
  for config_name in CONFIGS:
    path = GOLDEN / f"{config_name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(load_config(config_name.removesuffix(".py"))))
