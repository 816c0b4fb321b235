"""docs/tutorials/new_modality.md does what it says."""

import json
import pathlib
import re

import numpy as np
import pytest

from mmcontrast.config import load_config
from mmcontrast.encoders import ENCODERS
from mmcontrast.errors import UserError
from mmcontrast.inference import load
from mmcontrast.modalities import MODALITIES
from mmcontrast.search import search
from mmcontrast.train import train
from mmcontrast.training.observe import read_jsonl

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "tutorials" / "new_modality.md").read_text()
MODALITY, CONFIG = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def curve(number):
  return np.sin(np.linspace(0, 1 + number, 40)).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the two files that the page writes, and a table; one of its series is too short, one is no number."""
  folder = tmp_path_factory.mktemp("series")
  (folder / "series.py").write_text(MODALITY)
  (folder / "series_text.py").write_text(CONFIG)
  rows = [{"caption": f"waves: {number}", "curve": curve(number)} for number in range(200)]
  rows[7]["curve"], rows[8]["curve"] = [1.0, 2.0], [float("nan")] * 40
  (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  yield folder
  MODALITIES.pop("series", None)
  ENCODERS.pop("series_convnet", None)


def config(folder, *changes):
  return load_config(
    f"{folder / 'series_text.py'}:smoke", [f"--config.data.dataset=jsonl:{folder / 'mine.jsonl'}", *changes]
  )


@pytest.fixture(scope="module")
def run(folder):
  settings = config(
    folder, "--config.steps=12", "--config.batch.microbatches=2", "--config.data.on_error.max_share=0.1"
  )
  train(settings, folder / "run")
  return folder / "run"


def test_it_trains_and_counts_what_is_bad(run):
  lines = read_jsonl(run / "metrics.jsonl")
  assert {"loss", "clip/top1"} <= set(lines[-1]) and lines[-1]["data/bad_records"] == 2


def test_it_is_loaded_and_searched_by(run, folder):
  model = load(run)
  file = folder / "one.f32"
  file.write_bytes(np.asarray(curve(3), "<f4").tobytes())
  rows = model.encode("series", [file, file.read_bytes()])
  assert rows.shape == (2, 32) and np.array_equal(rows[0], rows[1])
  found = search(run, str(file), f"jsonl:{folder / 'mine.jsonl'}", options=dict(image=None, series="curve"), count=2)
  assert [result.text.partition(":")[0] for result in found] == ["waves", "waves"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ("--config.data.series.length=0", r"data\.series\.length: 0; give a whole number, at least 1"),
    ("--config.data.series.lenght=9", r"did you mean '--config\.data\.series\.length'"),
    ("--config.data.source.series=None", r"data\.views\.series: dataset \S+ has no series at all; set it to 0"),
    ("--config.data.source.series=curv", r"no column 'curv'.*did you mean 'curve'"),
    ("--config.data.views.serie=1", r"serie.*did you mean.*series"),
    (
      "--config.towers.series.modality=serie",
      r"towers\.series\.modality: no such choice 'serie'; did you mean 'series'",
    ),
    ("--config.augment.serie=flip", r"augment.*serie.*did you mean.*series"),
  ],
)
def test_what_is_wrong_is_one_line(folder, tmp_path, change, message):
  with pytest.raises(UserError, match=message):
    train(config(folder, change), tmp_path / "run")
  assert not (tmp_path / "run").exists()
