"""`mmcontrast report --workdir RUN [--compare RUN ...]`: a run as one HTML page that needs no server, no network."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from mmcontrast import __version__, folders
from mmcontrast.config import from_json
from mmcontrast.config.stages import run_folder
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluate import embedded_sets, load_set
from mmcontrast.evaluation import bootstrap
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.inference import Inference, load
from mmcontrast.inference.evaluation_config import Measured, revise, saved_section
from mmcontrast.report.page import projection as plane
from mmcontrast.report.page.curves import charts
from mmcontrast.report.page.document import Looked, Page, document
from mmcontrast.report.page.embedding_atlas import write_atlas
from mmcontrast.report.page.mixture import draw_graph, graph_of
from mmcontrast.report.page.outcomes import Confusion, Direction, directions, of_retrieval, of_zero_shot
from mmcontrast.report.page.points import gaps, points_of
from mmcontrast.report.page.sections import Result
from mmcontrast.training.observe import read_jsonl

PROJECTIONS = ("pca", "umap")
EXAMPLES = 2000


class _Run(NamedTuple):
  """What a folder holds of a run. model: None where there is no checkpoint, and `why`."""

  workdir: folders.Folder
  config: Mapping[str, Any]
  records: list[dict[str, Any]]
  model: Inference | None
  why: str


class _Measured(NamedTuple):
  """What a run makes of its sets: outcomes and what goes with them, by set; why others were left out."""

  sets: dict[str, EmbeddedSet]
  directions: dict[str, list[Direction]]
  confusions: dict[str, list[Confusion]]
  outcomes: dict[str, bootstrap.Outcomes]
  notes: list[str]


def report(
  workdir: str | os.PathLike,
  out: str | os.PathLike | None = None,
  *,
  compare: Sequence[str | os.PathLike] = (),
  source: str | None = None,
  options: Mapping | None = None,
  split: str | None = None,
  dataset: str | None = None,
  examples: int = EXAMPLES,
  projection: str = PROJECTIONS[0],
  embedding_atlas: str | os.PathLike | None = None,
  step: int | None = None,
  data_dir: str | None = None,
) -> folders.Folder:
  """Writes the page of a run: curves, mixture, results with intervals, hits and misses, confusions, a map, the config.

  What cannot be shown, such as retrieval by a run without a text tower, is said in the page.

  Args:
    workdir: the run; one that is still training has curves and a config.
    out: the file; by default report.html in `workdir`.
    compare: other runs, shown beside it: curves, results with the intervals of the differences, the keys of the configs
      that differ.
    source, options, split: what is looked at instead of the sets of the run, as of `evaluate_workdir`.
    dataset: which of its sets retrieval, confusions and the map are of; by default the last.
    examples: how many things of a modality the map shows at most.
    projection: "pca", or "umap" for both: it takes the longest of all.
    embedding_atlas: a Parquet file to write besides, which embedding-atlas opens.
    step: the checkpoint of this step instead of the newest.
  Returns:
    The path of the page.
  Raises UserError: no such run, set or projection; a file that cannot be written.
  """
  if examples < 1:
    raise UserError(f"--examples {examples}: give 1 or more")
  choose(projection, PROJECTIONS, "--projection")
  if projection == "umap" and not plane.has_umap():
    raise UserError(
      "--projection umap: the package umap-learn is missing; pip install 'mmcontrast[umap]', or give --projection pca"
    )
  paths = [folders.at(workdir, "--workdir"), *(folders.at(one, "--compare") for one in compare)]
  path = _file(out, "--out", ".html") if out is not None else paths[0] / "report.html"
  atlas = _file(embedding_atlas, "--embedding_atlas", ".parquet") if embedding_atlas is not None else None
  measured = None if source is None else Measured(source, options, split, None, data_dir)
  runs = [_opened(one, "--compare" if place else "--workdir", step if not place else None, data_dir)
          for place, one in enumerate(paths)]  # fmt: skip
  runs = [_of_source(run, measured) if run.model and measured else run for run in runs]
  if dataset is not None:
    choose(dataset, runs[0].config["evaluation"]["sets"], "--dataset")
  found = [_measure(run, data_dir) for run in runs]
  looked = _look(runs[0], found[0], dataset, examples, projection)
  if atlas is not None:
    if looked is None or not len(looked.points.place):
      raise UserError(f"--embedding_atlas: there is nothing to map; {_why(runs[0], found[0])}")
    write_atlas(atlas, looked.test, looked.points, next(iter(looked.views.values())))
  page = Page(
    title=_names(paths)[0] + (f" and {len(compare)} more" if len(compare) > 1 else ""),
    facts=_facts(runs[0]),
    runs=_names(paths),
    charts=charts([run.records for run in runs]),
    results=[_results(run, one, found[0] if place else None) for place, (run, one) in enumerate(zip(runs, found))],
    configs=[run.config for run in runs],
    graph=draw_graph(graph_of(runs[0].config, runs[0].model.model)) if runs[0].model else "",
    looked=looked,
    notes=_notes(runs[0], found[0], looked),
  )
  _write(path, document(page))
  return path


def _file(path: str | os.PathLike, option: str, suffix: str) -> folders.Folder:
  found = folders.at(path, option)
  if found.is_dir():
    raise UserError(f"{option} {path}: is a folder; give the file to write, such as {found / f'report{suffix}'}")
  if not found.suffix:
    found = found.with_name(found.name + suffix)
  if found.suffix.lower() != suffix:
    raise UserError(f"{option} {path}: give a name that ends in {suffix}, such as {found.with_suffix(suffix)}")
  return found


def _write(path: folders.Folder, text: str) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with folders.written(path) as scratch:
      scratch.write_text(text, encoding="utf-8")
  except OSError as error:
    raise UserError(
      f"--out {path}: cannot be written ({error.strerror or error}); give another place with --out"
    ) from error


def _names(paths: Sequence[folders.Folder]) -> list[str]:
  """What runs are called: by their folders, or by their whole paths where two folders have one name."""
  names = [path.name or str(path) for path in paths]
  return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _opened(workdir: folders.Folder, option: str, step: int | None, data_dir: str | None) -> _Run:
  folder = run_folder(workdir)
  records = read_jsonl(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
  try:
    model = load(workdir, step, data_dir)
  except UserError as error:
    if step is not None or not (folder / "config.json").is_file():
      raise UserError(f"--compare {error}" if option == "--compare" else str(error)) from None
    return _Run(workdir, from_json((folder / "config.json").read_text()), records, None, str(error))
  config = {**model.config, "evaluation": dict(saved_section(folder, model.config))}
  model = Inference(config, model.model, model.variables, model.tokenizer, model.step)
  return _Run(workdir, config, records, model, "")


def _of_source(run: _Run, measured: Measured) -> _Run:
  model = revise(run.model, run.config["evaluation"], measured, (), run.workdir)
  return run._replace(model=model, config=model.config)


def _measure(run: _Run, data_dir: str | None) -> _Measured:
  """Embeds the sets of a run, and looks at how each query came out."""
  found = _Measured({}, {}, {}, {}, [])
  if run.model is None:
    return found
  section, loaded = run.config["evaluation"], {}
  for name in section["sets"]:
    try:
      loaded[name] = load_set(name, run.config, data_dir)
    except UserError as error:
      found.notes.append(f"{name} is left out: {error}")
  found.sets.update(embedded_sets(run.model, {**section, "sets": tuple(loaded), "train_sets": ()}, loaded))
  for name, test in found.sets.items():
    found.directions[name] = directions(test)
    found.outcomes.update(of_retrieval(test, found.directions[name]))
    try:
      outcomes, found.confusions[name] = of_zero_shot(test, section["evaluators"].get("zero_shot") or {})
      found.outcomes.update(outcomes)
    except UserError as error:
      found.confusions[name] = []
      if "zero_shot" in section["evaluators"]:
        found.notes.append(f"zero-shot of {name} is left out: {error}")
  return found


def _look(run: _Run, found: _Measured, dataset: str | None, examples: int, projection: str) -> Looked | None:
  """The set that is shown: the one that is asked for, else the last."""
  if not found.sets or (dataset is not None and dataset not in found.sets):
    return None
  name = dataset or list(found.sets)[-1]
  test = found.sets[name]
  points = points_of(test, examples)
  views = {}
  if projection == "umap" and len(points.place) > 3:
    views["UMAP"] = plane.umap(points.rows)
  if len(points.place):
    views["PCA"] = plane.pca(points.rows)
  return Looked(test, found.directions[name], found.confusions[name], points, views, gaps(test))


def _results(run: _Run, found: _Measured, first: _Measured | None) -> dict[str, Result]:
  """All that is known of a run's results, with intervals where single queries are known."""
  results = {name: Result(value) for name, value in _evaluated(run).items()}
  for name, outcome in found.outcomes.items():
    same = first.outcomes.get(name) if first else None
    results[name] = Result(
      float(np.mean(outcome.values)),
      bootstrap.of_mean(outcome),
      bootstrap.of_difference(outcome, same) if same else None,
    )
  return results


def _evaluated(run: _Run) -> dict[str, float]:
  """evaluation.json, where it is of the checkpoint that is looked at; without one what training evaluated last."""
  try:
    lines = [json.loads(line) for line in (run.workdir / "evaluations.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["file"] == "evaluation.json"][-1]
    if run.model is None or last["model"] == run.model.digest:
      return dict(last["results"])
  except (OSError, ValueError, KeyError, IndexError, TypeError):
    pass
  at = None if run.model is None else run.model.step
  rows = [record for record in run.records if record["step"] == at or at is None]
  return {name: value for row in rows for name, value in row.items() if name.count("/") >= 2 and value is not None}


def _facts(run: _Run) -> dict[str, str]:
  step = run.model.step if run.model else run.records[-1]["step"] if run.records else None
  facts = {"step": f"{step:,}" + (f" of {run.config['steps']:,}" if run.config["steps"] else "")} if step else {}
  if run.model:
    facts["parameters"] = f"{sum(leaf.size for leaf in jax.tree.leaves(run.model.variables['params'])):,}"
  if run.config["steps"]:
    facts["examples a step"] = f"{run.config['batch']['size']:,}"
  return facts | {"mmcontrast": __version__, "page made": time.strftime("%Y-%m-%d %H:%M")}


def _why(run: _Run, found: _Measured) -> str:
  if run.model is None:
    return run.why
  return "; ".join(found.notes) or (
    f"{run.workdir}: config.evaluation.sets is empty; name what to look at: mmcontrast report SOURCE --workdir "
    f"{run.workdir}"
  )


def _notes(run: _Run, found: _Measured, looked: Looked | None) -> dict[str, list[str]]:
  """What the page says where there is nothing to see, by section."""
  notes: dict[str, list[str]] = {"results": list(found.notes)}
  if not run.records:
    notes["curves"] = [f"{run.workdir} has no metrics.jsonl: it was imported, or has not reported yet."]
  if run.model is None:
    notes |= {name: [run.why] for name in ("mixture", "retrieval", "zero_shot", "map")}
  elif looked is None:
    notes |= {name: [_why(run, found)] for name in ("retrieval", "zero_shot", "map")}
  else:
    towers = set(run.model.model.modality_of_tower.values())
    lacks = "" if "text" in towers else "This run has no text tower. "
    if not looked.directions:
      notes["retrieval"] = [f"{lacks}Nothing of {looked.test.name} can be searched by another modality of this run."]
    if not looked.confusions:
      notes["zero_shot"] = [f"{lacks}Nothing of {looked.test.name} is classified by prompts."]
    if not len(looked.points.place):
      notes["map"] = [f"This run embeds nothing of {looked.test.name}: config.evaluation names no head for it."]
    elif run.model.compares_tokens:
      notes["map"] = ["This run compares tokens: the map shows the mean of each thing's tokens."]
  return notes
