"""`mmcontrast layers --workdir RUN --towers image,text`: how alike the layers of two towers are, each with each.

Of one run, or the first tower of a run and the second of others (`--compare`, such as the same method of other sizes):
mutual k-NN and CKA over the examples of a set that show what both are of (Huh et al., arXiv:2405.07987).

    layers.json     for each pair of towers the tables, the best pair of layers of each measure, and the protocol
    layers.csv      a row a pair of layers
"""

from __future__ import annotations

import csv
import functools
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmcontrast import folders
from mmcontrast.called import call_as
from mmcontrast.config.stages import run_folder
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluate import load_set
from mmcontrast.evaluation import alignment
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.protocols import described
from mmcontrast.inference import Inference, load
from mmcontrast.inference.evaluation_config import Measured, saved_section
from mmcontrast.inference.layers import layer_rows
from mmcontrast.models.layer_outputs import POOLS

_COLUMNS = ("run", "tower", "layer", "other_run", "other_tower", "other_layer")


class _Run(NamedTuple):
  """A run, and the set as its model sees it."""

  workdir: str
  model: Inference
  test: EmbeddedSet


def layers(
  workdir: str | os.PathLike,
  source: str | None = None,
  *,
  compare: Sequence[str | os.PathLike] = (),
  towers: str | Sequence[str] | None = None,
  options: Mapping | None = None,
  split: str | None = None,
  dataset: str | None = None,
  examples: int = alignment.MOST,
  k: int = 10,
  pool: str = "mean",
  step: int | None = None,
  out: str | os.PathLike | None = None,
  data_dir: str | None = None,
) -> dict[str, Any]:
  """Compares all layers of two towers; what the .json file holds.

  Args:
    workdir: the run.
    source, options, split: as `data.dataset`, `data.source` and `data.split` of a config: what is looked at.
    compare: other runs: the first tower of this run is compared with the second tower of each of them.
    towers: two, such as "image,text"; None: of one run the first two, of several the same one of each.
    dataset: without a source, which evaluation set of the run; None: the last.
    examples: how many at most, the first; the memory grows with their square.
    k: of the nearest neighbours.
    pool: "mean" of the real positions of a layer, or the "first", of towers with a learned token in front.
    step: the checkpoint of this step instead of the newest.
    out: the .json file, beside which the .csv is written; None: layers.json in the folder of the run.
  Raises UserError: no such run, tower, source or set; too few examples.
  """
  workdir = folders.at(workdir, "--workdir")
  file = folders.at(out, "--out") if out is not None else workdir / "layers.json"
  if file.suffix != ".json":
    raise UserError(f"--out {file}: the tables are a .json file, and a .csv beside it; give {file.name}.json")
  choose(pool, POOLS, "--pool")
  for option, value, least in (("--examples", examples, 4), ("--k", k, 1)):
    if value < least:
      raise UserError(f"{option} {value}: give {least} or more")
  measured = None if source is None else Measured(source, options, split, None, data_dir)
  paths = [(workdir, "--workdir"), *((folders.at(one, "--compare"), "--compare") for one in compare)]
  models = [
    _loaded(path, option, step if number == 0 else None, data_dir) for number, (path, option) in enumerate(paths)
  ]
  pair = _towers(towers, models, [f"{path}" for path, _ in paths])
  name, sections = _set_of(paths[0][0], models, measured, dataset)
  runs = []
  for (path, _), model, section in zip(paths, models, sections):
    data = load_set(name, {**model.config, "evaluation": {**model.config["evaluation"], **section}}, data_dir)
    test = EmbeddedSet(data, model.embed, name, space=model.space, layers=functools.partial(layer_rows, model))
    runs.append(_Run(f"{path}", model, test))
  found = [_compared(runs[0], other, pair, k, pool, examples) for other in (runs[1:] or runs)]
  made = {"set": name, "runs": [_described(run, k, pool) for run in runs], "compared": found}
  for path, text in ((file, json.dumps(made, indent=1) + "\n"), (file.with_name(f"{file.stem}.csv"), as_csv(made))):
    folders.make(path.parent, "--out")
    with folders.written(path) as scratch:
      scratch.write_text(text, encoding="utf-8", newline="")
    print(path)
  return made


def _loaded(path: folders.Folder, option: str, step: int | None, data_dir: str | None) -> Inference:
  try:
    return load(path, step, data_dir)
  except UserError as error:
    raise type(error)(f"--compare {error}" if option == "--compare" else f"{error}") from None


def as_csv(made: Mapping[str, Any]) -> str:
  """A row a pair of layers."""
  out = io.StringIO()
  rows = csv.writer(out, lineterminator="\n")
  measures = list(made["compared"][0]["scores"])
  rows.writerow([*_COLUMNS, *measures])
  for one in made["compared"]:
    for i, layer in enumerate(one["layers"]):
      for j, other in enumerate(one["other_layers"]):
        of = [one["run"], one["tower"], layer, one["other_run"], one["other_tower"], other]
        rows.writerow([*of, *(one["scores"][measure][i][j] for measure in measures)])
  return out.getvalue()


def said(made: Mapping[str, Any]) -> str:
  """The best pairs, a line each."""
  lines = [f"{made['set']}, {made['compared'][0]['examples']} examples, by mutual_knn-v1"]
  for one in made["compared"]:
    where = "" if one["run"] == one["other_run"] else f" of {one['other_run']}"
    count = f"{len(one['layers'])} x {len(one['other_layers'])}"
    for measure, best in one["best"].items():
      pair = f"{one['tower']} {best['layer']} and {one['other_tower']}{where} {best['other_layer']}"
      lines.append(f"{measure.replace('_', ' '):<14}{best['value']:>8.4f}  {pair}, best of {count}")
  return "\n".join(lines)


def _compared(one: _Run, other: _Run, pair: tuple[str, str], k: int, pool: str, examples: int) -> dict[str, Any]:
  made = alignment.over_layers([one.test, other.test], pair, k, pool, examples, "layers")
  found = made.found
  best = {}
  for measure, of in found.scores.items():
    i, j = found.best(measure)
    best[measure] = {"layer": found.ones[i], "other_layer": found.others[j], "value": float(of[i, j])}
  return {
    "run": one.workdir,
    "tower": pair[0],
    "layers": list(found.ones),
    "other_run": other.workdir,
    "other_tower": pair[1],
    "other_layers": list(found.others),
    "examples": made.examples,
    "best": best,
    "scores": {measure: of.tolist() for measure, of in found.scores.items()},
  }


def _described(run: _Run, k: int, pool: str) -> dict[str, Any]:
  split = "+".join(sorted({str(one) for one in run.test.data.split} - {""})) or None
  record = described("mutual_knn-v1", run.model.config, k=k, layers_as=f"{pool} of positions", split=split)
  return {"workdir": run.workdir, "step": run.model.step, "model": run.model.digest, "protocol": record}


def _towers(given: str | Sequence[str] | None, models: Sequence[Inference], names: Sequence[str]) -> tuple[str, str]:
  """The towers of this run and of the others."""
  first, other = models[0].model.towers, [model.model.towers for model in models[1:]] or [models[0].model.towers]
  if given is None:
    of_views = list(models[0].model.modality_of_tower)
    if len(models) > 1:
      probed = models[0].config["evaluation"]["features"]
      pair = (probed if probed in of_views else of_views[0],) * 2
    elif len(of_views) < 2:
      raise UserError(
        f"--towers: {names[0]} has one tower, {of_views[0]!r}; name another run to compare it with: --compare RUN"
      )
    else:
      pair = (of_views[0], of_views[1])
  else:
    pair = tuple(one.strip() for one in given.split(",")) if isinstance(given, str) else tuple(given)
    if len(pair) != 2:
      raise UserError(f"--towers {given}: give two, such as --towers {','.join([*list(first)[:2], *first][:2])}")
  choose(pair[0], first, f"--towers: towers of {names[0]}")
  for towers, name in zip(other, names[1:] or names):
    choose(pair[1], towers, f"--towers: towers of {name}")
  return pair


def _set_of(
  workdir: folders.Folder, models: Sequence[Inference], measured: Measured | None, dataset: str | None
) -> tuple[str, list[dict[str, Any]]]:
  """The name of the set that is looked at, and what config.evaluation of each model says of it."""
  if measured is not None:
    return measured.name, [{"data": measured.section["data"]}] * len(models)
  section = saved_section(run_folder(workdir), models[0].config)
  names = [section["sets"]] if isinstance(section["sets"], str) else list(section["sets"])
  if not names:
    raise UserError(
      f"{workdir}: config.evaluation.sets is empty; name what to look at: mmcontrast layers SOURCE --workdir {workdir}"
    )
  name = choose(dataset, names, "--dataset: evaluation sets of the run") if dataset else names[-1]
  data, own = models[0].config["data"], dict(section.get("data", {}))
  if name in own and "dataset" not in own[name]:  # what that run trains on, which the others may not
    own[name] = {"dataset": data["dataset"], "source": data["source"], **own[name]}
  return name, [{"data": own}] * len(models)


call_as(__name__, layers)
