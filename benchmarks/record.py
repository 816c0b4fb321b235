"""Shows the rows of a benchmark as a table and writes them, with what they depend on, as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax

PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax", "numpy", "torch", "open_clip_torch", "scikit-learn",
            "tensorflow-cpu", "webdataset", "grain", "array_record", "pillow", "simplejpeg",
            "cykooz.resizer", "av", "decord", "soundfile", "soxr", "librosa", "numba")  # fmt: skip


def device() -> str:
  """The machine in words: accelerator or processor, and how many of them this process may use."""
  first = jax.devices()[0]
  if first.platform != "cpu":
    return f"{jax.device_count()} x {first.device_kind}"
  name = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    lines = info.read_text().splitlines()
    name = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), name)
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  return f"{name}, {cores} cores"


def versions() -> dict[str, str]:
  """Versions of Python and of the installed packages that matter to a measurement."""
  found = {"python": platform.python_version()}
  for package in PACKAGES:
    try:
      found[package] = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows as aligned text; numbers to three significant digits, absent values as "-"."""
  columns = list(dict.fromkeys(key for row in rows for key in row))

  def cell(value: Any) -> str:
    if value is None:
      return "-"
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1000 else str(value)

  grid = [columns, *([cell(row.get(c)) for c in columns] for row in rows)]
  widths = [max(len(line[i]) for line in grid) for i in range(len(columns))]
  numeric = [all(isinstance(r.get(c), int | float | None) for r in rows) for c in columns]
  lines = [
    "  ".join(x.rjust(w) if n else x.ljust(w) for x, w, n in zip(line, widths, numeric)).rstrip() for line in grid
  ]
  lines.insert(1, "  ".join("-" * w for w in widths))
  return "\n".join(lines)


def record(rows: Sequence[Mapping[str, Any]], out: str | os.PathLike | None = None, command: str | None = None) -> None:
  """Prints `rows` as a table and, given `out`, writes device, versions, command and rows there.

  Args:
    rows: one flat dictionary a row; the union of their keys are the columns.
    out: path of the JSON file; its folder is made.
    command: what to type to get these rows; None: this process's command line.
  """
  print(table(rows), flush=True)
  if out is None:
    return
  command = command or shlex.join(["python", *sys.argv])
  content = {"device": device(), "versions": versions(), "command": command, "rows": list(rows)}
  path = pathlib.Path(out)
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content, indent=2) + "\n")
  print(f"wrote {path}", flush=True)
