"""The notebooks: made of their texts, and run from the first cell to the last, in a small setting."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
HERE = ROOT / "notebooks"


@pytest.fixture(scope="module")
def maker():
  spec = importlib.util.spec_from_file_location("make_notebooks", HERE / "make.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


NAMES = sorted(path.stem for path in HERE.glob("*.ipynb"))


def test_the_notebooks_are_known(maker):
  assert sorted(maker.NAMES) == NAMES == sorted(path.stem for path in HERE.glob("*.py") if path.stem != "make")


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_what_its_text_makes(maker, name):
  """To renew: python notebooks/make.py"""
  text = (HERE / f"{name}.ipynb").read_text()
  assert text == maker.make(name)
  cells = json.loads(text)["cells"]
  assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)
  assert len({cell["id"] for cell in cells}) == len(cells)
  assert f"/blob/main/notebooks/{name}.ipynb" in "".join(cells[0]["source"])  # the badge
  forms = ["".join(cell["source"]) for cell in cells if cell["metadata"].get("cellView") == "form"]
  fields = re.findall(r"^(\w+) = (.+?)  # @param (.+)$", "\n".join(forms), re.M)
  assert len(forms) >= 3 and len(fields) >= 4
  for field, default, kind in fields:
    value = eval(default)
    if kind.startswith("["):
      assert value in eval(kind), field
    else:
      wanted = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
      assert isinstance(value, wanted[json.loads(re.sub(r"(\w+):", r'"\1":', kind))["type"]]), field


def test_all_install_in_the_same_way():
  installs = []
  for name in NAMES:
    cell = (HERE / f"{name}.py").read_text().partition("# @title Install\n")[2].partition("\n# %%")[0]
    code = cell.replace('if small:\n  extras = ""\n', "").splitlines()
    own = ("# @markdown", 'extras = "', "small = ")
    installs.append([line for line in code if line and not line.startswith(own)])
  assert installs[0] and all(code == installs[0] for code in installs)


@pytest.fixture
def kernel(tmp_path):
  """(python, variables) of an empty environment, which sees the packages of this one but not mmcontrast."""
  folder = tmp_path / "environment"
  subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
  version = f"python{sys.version_info.major}.{sys.version_info.minor}"
  own = folder / "lib" / version / "site-packages"
  others = [path for path in site.getsitepackages() if pathlib.Path(path).is_dir()]
  (own / "others.pth").write_text("".join(f"{path}\n" for path in others))
  variables = {
    "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
    "PIP_NO_INDEX": "1",  # what it needs is here: nothing is asked of the network
    "PIP_NO_BUILD_ISOLATION": "0",  # of a flag that says no, the variable says the opposite
    "PIP_NO_COMPILE": "0",  # what is imported is compiled then
    "PYTHONPATH": "",
    "MMCONTRAST_NOTEBOOKS": "small",
    "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1"),
  }
  return str(folder / "bin" / "python"), variables


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs(maker, name, kernel, tmp_path, data_dir):
  python, variables = kernel
  checkout = tmp_path / "checkout"
  for path in ("setup.py", "pyproject.toml", "README.md"):
    (checkout / path).parent.mkdir(exist_ok=True)
    shutil.copy(ROOT / path, checkout / path)
  shutil.copytree(ROOT / "mmcontrast", checkout / "mmcontrast", ignore=shutil.ignore_patterns("__pycache__"))
  work = checkout / "notebooks"
  work.mkdir()
  maker.execute(name, work, python, 300, {**variables, "MMCONTRAST_DATA": str(data_dir)})
  # The package is the one that the first cell installed.
  shown = subprocess.run(
    [python, "-c", "import mmcontrast; print(mmcontrast.__file__)"],
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={**os.environ, **variables},
  )
  assert str(tmp_path) in shown.stdout, shown.stderr
