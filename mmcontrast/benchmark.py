"""`mmcontrast benchmark --workdir RUN --suite clip_benchmark:FOLDER`: a run on every set of a folder, one table.

    benchmark-NAME.json, .csv, .md      the table, with what each number was measured by; NAME: of the folder
    benchmark-NAME/SET.json, SET.npz    a set that is done, and what the model made of each picture of it

Running it again does what is missing: a set that is done with the same weights and the same shards is not done again.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mmcontrast import folders
from mmcontrast.called import call_as
from mmcontrast.errors import UserError, choose, note
from mmcontrast.evaluation.protocols import datacomp
from mmcontrast.evaluation.protocols.outcomes import compared, metrics
from mmcontrast.inference import Inference, load
from mmcontrast.inference.suite_sets import MeasuredSet, SuiteSet
from mmcontrast.inference.suites import OF_SOURCES, SUITES
from mmcontrast.report.benchmark_table import written


class Suite(NamedTuple):
  """The sets of a folder by name; `name`: of the folder; `left`: its sets that nobody asked for."""

  name: str
  sets: dict[str, SuiteSet]
  left: list[str]


def benchmark(
  workdir: str | os.PathLike,
  suite: str,
  *,
  compare: str | os.PathLike | None = None,
  split: str = "",
  sets: Sequence[str] = (),
  step: int | None = None,
  width: int | None = None,
) -> dict[str, Any]:
  """Measures a run on every set of a suite; what benchmark-NAME.json holds.

  Args:
    workdir: the run.
    suite: "clip_benchmark:FOLDER", the folder of a set or of many; or another of SUITES.
    compare: another run: the same sets, and by how much the two differ, with intervals of a paired bootstrap.
    split: of the sets; "": the usual one, test.
    sets: the names of some; none: all.
    step: the checkpoint of this step instead of the newest; width: of the joint space, as of `load`.
  Raises UserError: no such folder, run or set, a set that is not as it should be, a run without texts or images.
  """
  found = open_suite(suite, split, sets)
  runs = [
    folders.at(one, option) for one, option in ((workdir, "--workdir"), (compare, "--compare")) if one is not None
  ]
  if len(runs) > 1:
    if runs[0] == runs[1]:
      raise UserError(f"--compare {compare}: is the run of --workdir itself; name another one")
    _checked(runs[1], "--compare", found, None, width)  # before an hour is spent on the first
  done = [_of_run(run, found, step if number == 0 else None, width) for number, run in enumerate(runs)]
  table = {
    "suite": suite,
    "split": split or "test",
    "runs": [one.run for one in done],
    "sets": {name: _row(name, of, [one.notes[name] for one in done]) for name, of in found.sets.items()},
  }
  if len(done) > 1:
    for name in found.sets:
      table["sets"][name]["difference"] = _difference(name, *(one.outcomes(name) for one in done))
  table |= _summary(table["sets"]) | {"left_by_sets": found.left}
  for path in written(runs[0], f"benchmark-{found.name}", table):
    print(path)
  return table


def open_suite(suite: str, split: str = "", sets: Sequence[str] = ()) -> Suite:
  """The sets of "KIND:FOLDER", each read as far as its files say what it is. Raises UserError as `benchmark`."""
  kind, _, folder = suite.partition(":")
  choose(kind, SUITES, f"--suite {suite}")
  if not folder:
    what, example = ("source", "karpathy:/data/coco") if kind in OF_SOURCES else ("folder", "/data/sets")
    raise UserError(f"--suite {suite}: names no {what}; give {kind}:{what.upper()}, such as {kind}:{example}")
  folder = os.path.expanduser(folder)
  found = SUITES[kind](folder, split)
  wanted = [choose(one, found, f"--sets: sets of {folder}") for one in sets] or list(found)
  name = re.sub(r"[^\w.-]+", "_", posixpath.basename(folder.rstrip("/")).removesuffix(".json")) or kind
  left = [one for one in found if one not in wanted]
  return Suite(name if kind == "clip_benchmark" else f"{kind}-{name}", {one: found[one] for one in wanted}, left)


class _Done(NamedTuple):
  folder: folders.Folder
  run: dict[str, Any]
  notes: dict[str, dict[str, Any]]

  def outcomes(self, name: str) -> dict[str, np.ndarray]:
    with folders.fetched(self.folder / f"{_file(name)}.npz") as path, np.load(path) as arrays:
      return dict(arrays)


def _of_run(workdir: folders.Folder, suite: Suite, step: int | None, width: int | None) -> _Done:
  """Measures what is not done yet of a run."""
  model = _checked(workdir, "--workdir", suite, step, width)
  folder = folders.make(workdir / f"benchmark-{suite.name}", "--workdir")
  notes = {}
  for name, one in suite.sets.items():
    key = _key(model, one)
    notes[name] = _kept(folder, name, key) or _measured(folder, name, one.measure(model, f"{workdir}"), key)
  run = {"workdir": f"{workdir}", "step": model.step, "model": model.digest, "width": model.width or None}
  return _Done(folder, run, notes)


def _checked(workdir: folders.Folder, option: str, suite: Suite, step: int | None, width: int | None) -> Inference:
  """The model of a run that can be measured on every set."""
  try:
    model = load(workdir, step, width=width)
    for one in suite.sets.values():
      one.check(model, f"{workdir}")
  except UserError as error:
    raise type(error)(f"--compare {error}" if option == "--compare" else f"{error}") from None
  return model


def _measured(folder: folders.Folder, name: str, found: MeasuredSet, key: str) -> dict[str, Any]:
  """Keeps what was measured of a set."""
  notes = {
    "key": key,
    "examples": found.examples,
    "left_out": found.left_out,
    "metrics": (metrics(found.outcomes) if found.outcomes else {}) | dict(found.metrics),
    "protocol": dict(found.protocol),
  }
  with folders.written(folder / f"{_file(name)}.npz") as path, path.open("wb") as file:
    np.savez_compressed(file, **found.outcomes)
  with folders.written(folder / f"{_file(name)}.json") as path:  # last: the set is done
    path.write_text(json.dumps(notes, indent=1) + "\n")
  return notes


def _kept(folder: folders.Folder, name: str, key: str) -> dict[str, Any] | None:
  """What was measured of a set with the same weights, shards and names; None: nothing."""
  try:
    notes = json.loads((folder / f"{_file(name)}.json").read_text())
  except (OSError, ValueError):
    return None
  if not isinstance(notes, dict) or notes.get("key") != key or not (folder / f"{_file(name)}.npz").is_file():
    return None
  note(f"{name}: done before with these weights, not measured again")
  return notes


def _file(name: str) -> str:
  return name.replace("/", "--")


def _key(model: Inference, one: SuiteSet) -> str:
  """What tells a result from that of other weights, another set, or other settings of images and texts."""
  data = {name: model.data.get(name) for name in ("image_size", "resize", "centre_crop", "trim", "text_length")}
  data |= {"native": native} if (native := model.data["native"])["patches"] else {}
  parts = [model.digest, model.width, one.key(), data]
  return hashlib.blake2b(json.dumps(parts, default=str).encode(), digest_size=8).hexdigest()


def _row(name: str, one: SuiteSet, notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """A row of the table; of two runs with the metrics of both."""
  found = [of["metrics"] for of in notes]
  if one.main not in found[0]:
    note(f"{name}: the metric that counts is {one.main}, which its files say too little for; it is left out")
  row = {
    "kind": one.kind,
    "examples": notes[0]["examples"],
    "left_out": notes[0]["left_out"],
    "datacomp": one.datacomp or None,
    "main_metric": one.main,
    "main": found[0].get(one.main),
    "metrics": found[0],
    "protocol": notes[0]["protocol"],
  }
  return row | ({"compared": {"main": found[1].get(one.main), "metrics": found[1]}} if len(found) > 1 else {})


def _difference(name: str, one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
  if any(one[key].shape != other[key].shape for key in one):
    raise UserError(f"{name}: the two runs left out different records, and cannot be paired; mend those records")
  return compared(one, other) if one else {}


def _summary(sets: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """The mean of the main metrics, and what of DataComp's sets is not among them."""
  mains = {name: row["main"] for name, row in sets.items() if row["main"] is not None}
  of_datacomp = {row["datacomp"] for name, row in sets.items() if row["datacomp"] and name in mains}
  missing = sorted(set(datacomp.METRICS) - of_datacomp)
  average = {"sets": sorted(mains), "main": float(np.mean(list(mains.values()))) if mains else None}
  if any("compared" in row for row in sets.values()):
    others = [sets[name]["compared"]["main"] for name in mains]
    average["compared"] = float(np.mean(others)) if others else None
  without = sorted(set(sets) - set(mains))
  return {
    "average": average,
    "without_main": without,
    "datacomp": {"sets": len(of_datacomp), "of": len(datacomp.METRICS), "missing": missing if of_datacomp else None},
  }


call_as(__name__, benchmark)
