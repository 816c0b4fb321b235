"""What may be other when a run goes on from its checkpoint: where its data lie, its length, by choice its data."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcontrast.config import check_same_run, flatten
from mmcontrast.config.stages import errors_of, stages_in
from mmcontrast.data.fingerprint import changes
from mmcontrast.errors import UserError, choose
from mmcontrast.folders import Folder
from mmcontrast.models.model import complete_config
from mmcontrast.parallel import distributed
from mmcontrast.runs.checkpoint import ON_CHANGED_DATA, SavedRun, complete_steps, saved_run
from mmcontrast.training.program import Plan, make_method
from mmcontrast.training.step import Method

_LOOKED_AT = 200  # steps at which schedules are compared


def check_resume(saved: SavedRun, plan: Plan, folder: pathlib.Path) -> list[str]:
  """Checks that the run of `plan` is the one whose checkpoint in `folder` is `saved`.

  Returns lines about what became other. Raises UserError for another config, other data where
  config.checkpoint.changed_data does not accept them, or a length that its schedules do not allow.
  """
  config = complete_config(plan.config)
  where = _places(saved.config, config) if saved.data and plan.spec.fingerprint else []
  check_same_run(saved.config, config, folder, free=("steps", "epochs", *where))
  lines = data_words(saved, plan, folder)
  if where and not lines:
    lines = [f"{folder}: {where[0]} has changed, and the data are the same"]
  if saved.config["steps"] != config["steps"]:
    _check_length(saved, plan, folder)
  return lines


def data_words(saved: SavedRun, plan: Plan, folder: pathlib.Path) -> list[str]:
  """A line about the data when they are others, and accepted. Raises UserError when they are not."""
  choice = choose(
    plan.config["checkpoint"].get("changed_data", "refuse"), ON_CHANGED_DATA, "config.checkpoint.changed_data"
  )
  old, new = saved.data, plan.spec.fingerprint
  words = "; ".join(changes(old, new)) if old and new else ""  # an older checkpoint does not say
  if not words:
    return []
  if (old["vocabulary"], old["tokenizer"]) != (new["vocabulary"], new["tokenizer"]):
    raise UserError(
      f"{folder}: its checkpoint is of another tokenizer: {words}; its embeddings belong to the old "
      "ids: restore the tokenizer, or give another --workdir"
    )
  if choice == "refuse":
    raise UserError(
      f"{folder}: its checkpoint is of other data: {words}; restore them, give another --workdir, or "
      "accept them with --config.checkpoint.changed_data=accept (queues and tables start empty)"
    )
  return [
    f"{folder}: continuing with other data: {words}; queues and tables start empty, weights and optimizer are kept"
  ]


def _places(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
  """The keys that differ and say where data lie, which their fingerprint answers for."""
  old, new = flatten(saved), flatten(given)
  return [key for key in sorted(old.keys() & new.keys()) if old[key] != new[key] and _is_place(key, old[key], new[key])]


def _is_place(key: str, *values: Any) -> bool:
  if key == "data.dataset" or (key.startswith("data.mixture.") and key.endswith(".dataset")):
    return True
  of_a_source = key.startswith("data.source.") or (key.startswith("data.mixture.") and ".source." in key)
  return (of_a_source or key == "data.tokenizer") and all(isinstance(value, str) and "/" in value for value in values)


def _check_length(saved: SavedRun, plan: Plan, folder: pathlib.Path) -> None:
  """Raises UserError unless the steps done are what they would have been in a run of the new length."""
  old, new = saved.config["steps"], plan.config["steps"]
  before = _schedules(make_method({**plan.config, "steps": old}, plan.spec))
  now = _schedules(plan.program.method)
  done = np.unique(np.linspace(0, saved.step, _LOOKED_AT).astype(int))
  for name, schedule in now.items():
    values = [[float(one(step)) for step in done] for one in (before[name], schedule)]
    if not np.allclose(*values, rtol=1e-5, atol=1e-12):
      raise UserError(
        f"{folder}: config.steps was {old}, now {new}, and {name} depends on it, so the {saved.step} steps done "
        f"differ from those of a run of {new} steps; only a constant, or a schedule with steps of its own, can "
        f"continue; give another --workdir, where init={{'*': '{folder}:*'}} "
        "in the config starts from these weights with a new schedule"
      )


def _schedules(method: Method) -> dict[str, Any]:
  """Where in the config -> each schedule of a run."""
  found = {f"config.optimizer.{name}": schedule for name, schedule in method.schedules.items()}
  found |= {f"config.objective.{name}.weight": schedule for name, schedule in method.weights.items()}
  found |= {
    f"config.objective.{name}.{key}": schedule
    for name, one in method.scheduled.items()
    for key, schedule in one.items()
  }
  found |= {"config.momentum.decay": method.decay}
  return found if method.ema is None else {**found, "config.ema.decay": method.ema}


def check_workdir(
  workdir: Folder, plans: Mapping[str, Plan], folders: Mapping[str, Folder]
) -> tuple[dict[str, int | None], list[str]]:
  """Checks that what `workdir` holds is the run of `plans`, or nothing.

  Args:
    folders: of each stage; without stages, that of "" is `workdir`.
  Returns:
    (stage -> the step that it has reached or None, lines about what became other). Raises UserError for another run.
  """
  if "" not in plans and _holds_checkpoints(workdir):
    raise UserError(f"{workdir}: holds a run without stages; give another --workdir")
  if "" in plans and (others := stages_in(workdir)):
    raise UserError(f"{workdir}: holds a run of the stages {', '.join(others)}; give another --workdir")
  steps: dict[str, int | None] = dict.fromkeys(plans)
  lines: list[str] = []
  for name, plan in plans.items():
    if _holds_checkpoints(folders[name]):
      saved = saved_run(folders[name])
      steps[name] = saved.step
      if saved.step > plan.config["steps"]:
        raise UserError(f"{folders[name]}: already at step {saved.step}, beyond config.steps={plan.config['steps']}")
      with errors_of(name):
        lines += check_resume(saved, plan, folders[name])
  for name, after in itertools.pairwise(plans):
    if steps[after] is not None and steps[name] is not None and steps[name] < plans[name].config["steps"]:
      raise UserError(
        f"{folders[name]}: has {steps[name]} of {plans[name].config['steps']} steps, and stage {after!r} "
        f"has started from it; give the stage its {steps[name]} steps, or another --workdir"
      )
  return steps, lines


def _holds_checkpoints(workdir: Folder) -> bool:
  return distributed.first_says(bool(complete_steps(workdir / "checkpoints")))
