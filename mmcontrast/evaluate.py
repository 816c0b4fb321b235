"""Evaluation of a run: numbers, a table and a picture."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mmcontrast import folders
from mmcontrast.called import call_as
from mmcontrast.config.stages import run_folder
from mmcontrast.data.evaluation_set import (
  SETS,
  EvaluationSet,
  load_configured_set,
  load_evaluation_set,
  open_configured_set,
)
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError, choose, note, one_line
from mmcontrast.evaluation.embed import cosines
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.protocols import names_in
from mmcontrast.evaluation.suite import check, check_set, check_space, embed_sets, measured
from mmcontrast.evaluation.tasks import described
from mmcontrast.inference import Inference, load
from mmcontrast.inference.evaluation_config import Measured, check_words, revise, saved_section
from mmcontrast.inference.layers import layer_rows

_SAME = 1e-6  # results closer than that are one
IN_TRAINING = "evaluation_protocols.json"  # by what the numbers of metrics.jsonl were measured, "set/task" -> record
PROTOCOLS = "protocols"  # the key of evaluation.json that is no result: "set/task" -> by what it was measured
_FEW = 2000  # examples of which a share may be none, and which are opened in no time


def evaluate_model(model: Inference, config: Mapping, data_dir: str | None = None) -> dict[str, float]:
  """Flat results, dataset first: {"emoji_noto/image_to_text/recall@1": 0.31, ...}, fractions."""
  return _evaluate(model, config, data_dir).results


def evaluate_in_training(
  model: Inference, config: Mapping, data_dir: str | None, workdir: folders.Folder | None
) -> dict[str, float]:
  """As `evaluate_model`; by what each task was measured is written into `workdir`, as IN_TRAINING, if one is given."""
  results, by, _ = _evaluate(model, config, data_dir)
  if workdir is not None and results:
    file, text = workdir / IN_TRAINING, json.dumps(by, indent=1, sort_keys=True) + "\n"
    if not file.is_file() or file.read_text() != text:
      with folders.written(file) as scratch:
        scratch.write_text(text)
  return results


def evaluate_workdir(
  workdir: str | pathlib.Path,
  step: int | None = None,
  data_dir: str | None = None,
  *,
  source: str | None = None,
  options: Mapping | None = None,
  split: str | None = None,
  train_split: str | None = None,
  width: int | None = None,
  overrides: Sequence[str] = (),
) -> dict[str, float]:
  """Evaluates the newest checkpoint of a run, or that of `step`, on the run's own sets or on `source`.

  Writes evaluation.json and, for a model with a joint space of vectors, retrieval.png (of the last set with images and
  captions) into `workdir`, with source, step and width in their names where these are given, and a line of
  evaluations.jsonl; prints the table and the paths. A file with other results is kept under a numbered name.

  Args:
    source, options, split: as `data.dataset`, `data.source` and `data.split` of a config, by default all of it. Its
      evaluators are those that suit it (evaluation/defaults.py).
    train_split: a split of the source that k-NN and probes train on; without it there are none.
    width: how many of the first numbers of the joint space are compared, as of `load`.
    overrides: words such as "--config.evaluation.evaluators.zero_shot.label=class", checked as in a config.
  Raises UserError when there is no such checkpoint, a set is missing, or there is nothing to evaluate.
  """
  workdir = folders.at(workdir, "--workdir")
  check_words(overrides)
  measured = None if source is None else Measured(source, options, split, train_split, data_dir)
  model = load(workdir, step, data_dir)
  section = dict(saved_section(run_folder(workdir), model.config))
  model = revise(model, section if width is None else {**section, "width": width}, measured, overrides, workdir)
  results, by, sets = _evaluate(model, model.config, data_dir)
  if not results:
    raise UserError(f"{workdir}: none of the sets {', '.join(model.config['evaluation']['sets'])} could be evaluated")
  parts = (measured and measured.name, step is not None and f"step{step}", width is not None and f"width{width}")
  suffix = "".join(f"-{part}" for part in parts if part)
  files = [workdir / f"evaluation{suffix}.json", workdir / f"retrieval{suffix}.png"]
  with _written(workdir):
    keep_others(files, results)
    files[0].write_text(json.dumps({**results, PROTOCOLS: by}, indent=1, sort_keys=True) + "\n")
    line = _line(files[0].name, model, results) | {PROTOCOLS: by}
    folders.append(workdir / "evaluations.jsonl", json.dumps(line) + "\n")
  written = files[:1]
  written += _pictures(model, sets, files[1])
  from mmcontrast.report.table import show

  show(results, {one.name: one.seen for one in sets.values()})
  print(f"by {', '.join(names_in(by))}; what they fix stands in {files[0].name}")
  found = [workdir / name for name in ("checkpoints", "metrics.jsonl", "tensorboard")]
  for path in [*(path for path in found if path.exists()), *written]:
    print(path)
  return results


def keep_others(files: Sequence[folders.Folder], results: Mapping[str, float]) -> None:
  """Gives `files` (results, a picture) another name where the first holds other results; says which."""
  first = files[0]
  try:
    old = json.loads(first.read_text())
    old.pop(PROTOCOLS, None)
    if old.keys() == results.keys() and all(abs(old[key] - value) <= _SAME for key, value in results.items()):
      return
  except FileNotFoundError:
    return
  except (ValueError, TypeError, AttributeError):  # not ours: kept as well
    pass
  names = {path.name for path in first.parent.iterdir()}
  number = next(n for n in itertools.count(1) if not any(f"{f.stem}.{n}{f.suffix}" in names for f in files))
  kept = [path.rename(path.with_name(f"{path.stem}.{number}{path.suffix}")).name for path in files if path.exists()]
  note(f"{first}: held other results, which are kept as {' and '.join(kept)}")


def _line(file: str, model: Inference, results: Mapping[str, float]) -> dict[str, Any]:
  """What evaluations.jsonl keeps of an evaluation."""
  section = model.config["evaluation"]
  return {
    "file": file,
    "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    "step": model.step,
    "model": model.digest,
    **{key: section.get(key) for key in ("sets", "train_sets", "data", "evaluators", "width")},
    "results": dict(results),
  }


@contextlib.contextmanager
def _written(workdir: folders.Folder) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(
      f"{workdir}: the results cannot be written ({error.strerror or one_line(error)}); make room, or "
      "copy the run to a folder that you may write to"
    ) from error


def check_sets(config: Mapping, data_dir: str | None = None, examples: int | None = None) -> None:
  """Opens the sets that a run will be evaluated on, so that what is wrong stops it before it starts.

  Without evaluation.every_steps, and with few `examples` trained on, a set of the same data is opened too, and a line
  says what is wrong, such as a share that left it empty: `mmcontrast evaluate` may name another set.
  Raises UserError: no such set, one that cannot be opened, or one without a label that an evaluator asks for.
  """
  options = config["evaluation"]
  if not options["every_steps"] and examples is not None and examples <= _FEW:
    for name in set(options["sets"]) & {name for name, own in _user_sets(config).items() if "dataset" not in own}:
      try:
        open_configured_set(name, _user_sets(config)[name], config["data"], data_dir)
      except UserError as error:
        note(f"{error}; as it is, `mmcontrast evaluate` will have nothing to measure")
  for name in dict.fromkeys((*options["sets"], *options["train_sets"])) if options["every_steps"] else ():
    choose(name.partition(":")[0], [*_user_sets(config), *SETS], "evaluation.sets")
    if name in options["optional_sets"]:
      continue
    if name not in _user_sets(config):
      emoji.open_built(name.partition(":")[0], "all", data_dir)
    else:
      info = open_configured_set(name, _user_sets(config)[name], config["data"], data_dir).info
      check_set(options, name, info.label_names)


class _Evaluated(NamedTuple):
  results: dict[str, float]
  protocols: dict[str, dict[str, Any]]
  sets: dict[str, EmbeddedSet]


def _evaluate(model: Inference, config: Mapping, data_dir: str | None) -> _Evaluated:
  options = dict(config["evaluation"])
  check(options)  # before a set is read
  check_space(options, model.space)
  loaded = {}
  for name in dict.fromkeys((*options["sets"], *options["train_sets"])):
    try:
      loaded[name] = load_set(name, config, data_dir)
    except UserError as error:
      if name not in options["optional_sets"]:
        raise
      print(f"left out of the evaluation: {error}", file=sys.stderr)
  options["sets"] = tuple(name for name in options["sets"] if name in loaded)
  sets = embedded_sets(model, options, loaded)
  for name, one in sets.items():
    for modality in set(one.modalities) & set(model.heads):
      if line := model.cut_line(name, modality, one.data.things[modality].values):
        note(line)
  untrained = lambda: model.untrained().embed  # noqa: E731
  results, tasks = measured(model.embed, options, loaded.__getitem__, sets=sets, untrained=untrained)
  return _Evaluated(results, described(tasks, config), sets)


def embedded_sets(
  model: Inference, options: Mapping[str, Any], loaded: Mapping[str, EvaluationSet]
) -> dict[str, EmbeddedSet]:
  """Evaluation sets as a model sees them, each embedded at first use.

  Args:
    options: config.evaluation. loaded: the sets that it names, by name.
  """
  return embed_sets(
    model.embed,
    options,
    loaded.__getitem__,
    model.compare if model.compares_tokens else cosines,
    seen=model.seen,
    joined=model.joined,
    space=model.space,
    match=model.match,
    scale=model.cosine_scale,
    guess=model.guess,
    tune=model.tune_prompts,
    words=model.words,
    layers=functools.partial(layer_rows, model),
  )


def _pictures(model: Inference, sets: Mapping[str, EmbeddedSet], file: folders.Folder) -> list[folders.Folder]:
  """Draws what the run finds, of every two modalities that it compares the last set that has both; of the first two
  in `file`, of others under names that say which."""
  if model.compares_tokens:
    return []
  from mmcontrast.report.retrieval_picture import draw

  written: list[folders.Folder] = []
  for one, other in model.space.ways()[1::2]:  # of two, words first
    shown = [name for name in model.config["evaluation"]["sets"] if name in sets]
    shown = [name for name in shown if {one, other} <= set(sets[name].modalities)]
    if shown:
      path = file.with_name(f"{file.stem}-{one}-{other}{file.suffix}") if written else file
      written.append(draw(path, sets[shown[-1]], (one, other)))
  return written


def load_set(name: str, config: Mapping, data_dir: str | None) -> EvaluationSet:
  """Loads a set of a run: one of config.evaluation.data, or an emoji dataset or, for one style of it,
  "dataset:style"."""
  trained = bool(config["steps"])  # an imported run was not
  if name in (own := _user_sets(config)):
    return load_configured_set(name, own[name], config["data"], data_dir, trained=trained)
  dataset, _, style = name.partition(":")
  choose(dataset, [*own, *SETS], "evaluation.sets")
  return load_evaluation_set(dataset, "all", config["data"], data_dir, style or None, trained=trained)


def _user_sets(config: Mapping) -> Mapping:
  return config["evaluation"].get("data", {})  # older checkpoints have none


call_as(__name__, evaluate_workdir)
