"""StableHLO: written here, run in a process that has no mmcontrast, by the words of the docs."""

import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from tiny import tiny_inference

from mmcontrast.errors import UserError
from mmcontrast.interop import stablehlo

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "inference.md"


def test_a_process_without_mmcontrast_runs_it(tmp_path):
  model, folder = tiny_inference(), tmp_path / "exported"
  assert [path.name for path in stablehlo.write(model, folder)] == ["image.stablehlo", "text.stablehlo"]
  draw = np.random.default_rng(0)
  images = draw.integers(0, 255, (3, 16, 16, 3), np.uint8)
  ids = np.array([[1, 5, 9, 2, 0], [1, 2, 0, 0, 0]], np.int32)
  np.savez(tmp_path / "inputs.npz", images=images, ids=ids)
  blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
  words = next(code for code in blocks if "deserialize" in code)
  code = (
    "import sys\nsys.modules['mmcontrast'] = None  # importing it is an error\nimport numpy as np\n"
    "given = np.load('inputs.npz')\nimages, ids = given['images'], given['ids']\n"
    f"{words}\nnp.savez('rows.npz', image=image_rows, text=text_rows)\nprint(platforms)\n"
  )
  done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert "cpu" in done.stdout and "cuda" in done.stdout and "tpu" in done.stdout
  rows = np.load(tmp_path / "rows.npz")
  np.testing.assert_allclose(rows["image"], model.embed("image", images), atol=1e-6)
  model.tokenizer.encode = lambda texts, length: ids
  np.testing.assert_allclose(rows["text"], model.encode_text(["a", "b"]), atol=1e-6)
  inputs = json.loads((folder / "inputs.json").read_text())
  assert inputs["image"]["shape"] == ["batch", 16, 16, 3] and inputs["text"]["token_ids"] == dict(pad=0, bos=1, eos=2)


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
  (tmp_path / "mine").write_text("")
  with pytest.raises(UserError, match="not empty"):
    stablehlo.write(tiny_inference(), tmp_path)
  assert [path.name for path in tmp_path.iterdir()] == ["mine"]
