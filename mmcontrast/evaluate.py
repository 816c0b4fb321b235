"""Evaluation of a run: numbers, a table and a picture."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping

from mmcontrast.data.evaluation_set import SETS, EvaluationSet, load_evaluation_set, load_own_set, open_own_set
from mmcontrast.errors import UserError, choose, note
from mmcontrast.evaluation.embed import cosines
from mmcontrast.evaluation.embedded_set import EmbeddedSet
from mmcontrast.evaluation.suite import embed_sets, run_suite
from mmcontrast.inference import Inference, load


def evaluate_model(model: Inference, config: Mapping, data_dir: str | None = None) -> dict[str, float]:
  """Flat results, dataset first: {"emoji_noto/image_to_text/recall@1": 0.31, ...}, fractions."""
  return _evaluate(model, config, data_dir)[0]


def evaluate_workdir(workdir: str | pathlib.Path, step: int | None = None,
                     data_dir: str | None = None) -> dict[str, float]:
  """Evaluates the newest checkpoint of a run, or that of `step`.

  Writes evaluation.json and, for a model with a joint space of vectors, retrieval.png (of the last set
  of config.evaluation.sets with images and captions) into `workdir`; prints the table and the paths.
  Raises UserError when there is no such checkpoint, or a set is missing.
  """
  workdir = pathlib.Path(workdir)
  model = load(workdir, step, data_dir)
  results, sets = _evaluate(model, model.config, data_dir)
  written = [workdir / "evaluation.json"]
  written[0].write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
  if {"image", "text"} <= set(model.kinds) and not model.compares_tokens:
    from mmcontrast.report.retrieval_picture import draw
    pairs = [name for name in model.config["evaluation"]["sets"]
             if name in sets and sets[name].data.captions and len(sets[name].data.images)]
    if pairs:
      written.append(draw(workdir / "retrieval.png", sets[pairs[-1]]))
  from mmcontrast.report.table import show
  show(results, {one.name: one.seen for one in sets.values()})
  found = [workdir / name for name in ("checkpoints", "metrics.jsonl", "tensorboard")]
  for path in [*(path for path in found if path.exists()), *written]:
    print(path)
  return results


def check_sets(config: Mapping, data_dir: str | None = None) -> None:
  """Opens the user's own sets that a run will be evaluated on, so that what is wrong stops it before it starts.

  Raises UserError: no such set, or one that cannot be opened.
  """
  options = config["evaluation"]
  for name in dict.fromkeys((*options["sets"], *options["train_sets"])) if options["every_steps"] else ():
    choose(name.partition(":")[0], [*_own_sets(config), *SETS], "evaluation.sets")
    if name in _own_sets(config) and name not in options["optional_sets"]:
      open_own_set(name, _own_sets(config)[name], config["data"], data_dir)


def _evaluate(model: Inference, config: Mapping,
              data_dir: str | None) -> tuple[dict[str, float], dict[str, EmbeddedSet]]:
  options = dict(config["evaluation"])
  loaded = {}
  for name in dict.fromkeys((*options["sets"], *options["train_sets"])):
    try:
      loaded[name] = _load_set(name, config, data_dir)
    except UserError as error:
      if name not in options["optional_sets"]:
        raise
      print(f"left out of the evaluation: {error}", file=sys.stderr)
  options["sets"] = tuple(name for name in options["sets"] if name in loaded)
  sets = embed_sets(model.embed, options, loaded.__getitem__, model.compare if model.compares_tokens else cosines,
                    token_ids=model.token_ids if "text" in model.kinds else None, joined=model.joined)
  for name, one in sets.items() if "text" in model.kinds else ():
    if line := model.cut_line(name, one.data.captions):
      note(line)
  untrained = lambda: model.untrained().embed  # noqa: E731
  return run_suite(model.embed, options, loaded.__getitem__, sets=sets, untrained=untrained), sets


def _load_set(name: str, config: Mapping, data_dir: str | None) -> EvaluationSet:
  """`name` is one of config.evaluation.data, or an emoji dataset or, for one style of it, "dataset:style"."""
  if name in (own := _own_sets(config)):
    found = load_own_set(name, own[name], config["data"], data_dir)
  else:
    dataset, _, style = name.partition(":")
    choose(dataset, [*own, *SETS], "evaluation.sets")
    found = load_evaluation_set(dataset, "all", config["data"], data_dir, style or None)
  return found if config["steps"] else dataclasses.replace(found, seen=False)  # an imported run was not trained on it


def _own_sets(config: Mapping) -> Mapping:
  return config["evaluation"].get("data", {})  # older checkpoints have none
