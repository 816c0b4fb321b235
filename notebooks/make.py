"""The notebooks, made of their texts: `python notebooks/make.py`; with --execute they are run, and nothing is kept.

A notebook is written as text (jupytext's percent format), and the .ipynb beside it is made of that: cells have fixed
ids, outputs are left out, and cells with a title are forms in Colab. --execute runs every cell, the installation
included, in an empty environment. MMCONTRAST_NOTEBOOKS=small makes that seconds instead of minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

import jupytext
import nbformat

HERE = pathlib.Path(__file__).parent
NAMES = ("quickstart", "mct_explained", "own_data", "tpu_dry_run")


def make(name: str) -> str:
  """The .ipynb of a notebook, as text."""
  notebook = jupytext.read(HERE / f"{name}.py", fmt="py:percent")
  for number, cell in enumerate(notebook.cells):
    cell["id"] = f"{name}-{number:02d}"
    cell["metadata"] = {"cellView": "form"} if cell["metadata"].get("cellView") == "form" else {}
    if cell["cell_type"] == "code":
      cell.update(outputs=[], execution_count=None)
  notebook["metadata"] = {
    "colab": {"name": f"{name}.ipynb", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
  }
  notebook["nbformat"], notebook["nbformat_minor"] = 4, 5
  nbformat.validate(notebook)
  return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def execute(name: str, folder: pathlib.Path, python: str, timeout: float, variables: Mapping[str, str] = {}) -> None:
  """Runs every cell of a notebook in `folder`, with the kernel of `python`. Raises what a cell raises."""
  import nbclient
  from jupyter_client.kernelspec import KernelSpecManager

  kernel = {"argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": name}
  with tempfile.TemporaryDirectory(prefix="kernels-") as kernels:
    place = pathlib.Path(kernels) / "own"
    place.mkdir()
    (place / "kernel.json").write_text(json.dumps({**kernel, "language": "python", "env": dict(variables)}))
    manager = KernelSpecManager(kernel_dirs=[kernels], ensure_native_kernel=False)
    client = nbclient.NotebookClient(
      nbformat.reads(make(name), as_version=4),
      timeout=timeout,
      kernel_name="own",
      resources={"metadata": {"path": str(folder)}},
      kernel_manager_class="jupyter_client.manager.AsyncKernelManager",
    )
    client.create_kernel_manager()
    client.km.kernel_spec_manager = manager
    client.execute()


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)")
  parser.add_argument("--execute", action="store_true", help="run them too")
  parser.add_argument("--timeout", type=float, default=3600, help="seconds a cell")
  options = parser.parse_args()
  if unknown := set(options.names) - set(NAMES):
    parser.error(f"no notebook {min(unknown)!r}; there are {', '.join(NAMES)}")
  names = options.names or NAMES
  for name in names:
    (HERE / f"{name}.ipynb").write_text(make(name))
    print(HERE / f"{name}.ipynb", flush=True)
  if options.execute:
    runs = HERE.parent / "runs"  # in the checkout, which the first cell of each looks for; git passes it over
    runs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="notebooks-", dir=runs) as folder:
      environment = pathlib.Path(folder) / "environment"
      python = str(environment / "bin" / "python")
      subprocess.run([sys.executable, "-m", "venv", environment], check=True)
      subprocess.run([python, "-m", "pip", "install", "--quiet", "ipykernel"], check=True)
      for name in names:
        begun = time.monotonic()
        path = f"{environment / 'bin'}:{os.environ['PATH']}"
        execute(name, pathlib.Path(folder), python, options.timeout, {"PATH": path, "PYTHONPATH": ""})
        print(f"{name}: every cell ran, {time.monotonic() - begun:.0f} s, Python {sys.version.split()[0]}", flush=True)


if __name__ == "__main__":
  main()
