"""What decides which checkpoint is the best one, checked before a run starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from mmcontrast.data.evaluation_set import SETS, open_configured_set
from mmcontrast.data.sources import emoji
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.evaluation.joined import joined_terms
from mmcontrast.evaluation.metric_names import metric_names
from mmcontrast.evaluation.zero_shot import classified
from mmcontrast.modalities import MODALITIES
from mmcontrast.training.program import Plan, check_evaluation

_WHERE = "config.checkpoint.best_metric"


def check_best_metric(plan: Plan, data_dir: str | None = None) -> None:
  """Raises UserError unless config.checkpoint.best_metric will be known of some checkpoints.

  It is a metric of the training step, or of the evaluation, which then has to be done where checkpoints are saved.
  """
  options, evaluation = plan.config["checkpoint"], plan.config["evaluation"]
  metric = options["best_metric"]
  if not options["keep_best"] or metric == "loss":
    return
  trained = [*jax.eval_shape(plan.program.step, plan.program.state, plan.program.batch)[1]]
  if metric in trained:
    return
  space = check_evaluation(plan)
  evaluated = metric_names(
    evaluation,
    lambda name: _classes(name, plan.config, data_dir),
    joined_terms(plan.config["objective"]),
    lambda name: [way for way in space.ways() if set(way) <= set(_modalities(name, plan.config, data_dir))],
    classified(space),
    space.matches,
  )
  if metric not in evaluated:
    raise UserError(f"{_WHERE}: no such choice {metric!r}; {_near(metric, evaluated, trained)}")
  every, saved = evaluation["every_steps"], options["every_steps"]
  if not every:
    raise UserError(
      f"{_WHERE}: {metric!r} is of the evaluation, and config.evaluation.every_steps=0 does none while "
      f"training; set it to {saved or 'a number of steps'}"
    )
  if saved and every % saved and saved % every:
    raise UserError(
      f"{_WHERE}: {metric!r} is of the evaluation, and config.evaluation.every_steps={every} and "
      f"config.checkpoint.every_steps={saved} rarely coincide; make one a multiple of the other"
    )
  _source(metric.split("/")[0], plan.config, data_dir)  # an optional set must be there when it decides


def _near(metric: str, evaluated: list[str], trained: list[str]) -> str:
  if not evaluated:
    return f"{nearest(metric, trained)}; metrics of an evaluation need config.evaluation.sets and .evaluators"
  return nearest(metric, [*evaluated, *trained])


def _classes(name: str, config: Mapping[str, Any], data_dir: str | None) -> Mapping[str, Any]:
  """Label -> classes of an evaluation set; none where it is not here, which is said elsewhere."""
  try:
    return _source(name, config, data_dir).info.label_names
  except UserError:
    return {}


def _modalities(name: str, config: Mapping[str, Any], data_dir: str | None) -> list[str]:
  """Those of which an evaluation set has things; all, where it is not here."""
  try:
    info = _source(name, config, data_dir).info
  except UserError:
    return list(MODALITIES)
  return [one for one, modality in MODALITIES.items() if modality.columns(info) or (info.concepts and modality.words)]


def _source(name: str, config: Mapping[str, Any], data_dir: str | None) -> Any:
  own = config["evaluation"]["data"]
  if name in own:
    return open_configured_set(name, own[name], config["data"], data_dir)
  return emoji.open_built(choose(name.partition(":")[0], [*own, *SETS], "evaluation.sets"), "all", data_dir)
