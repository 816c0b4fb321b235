"""Checkpoints by Orbax: the state, the resolved config and the format version.

A checkpoint has three items: `model` (parameters and batch statistics, all that
inference needs), `training` (optimizer, momentum branch, queues, tables, step) and `run`
(config, versions). The position in the data is the step.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

import mmcontrast
from mmcontrast.config import from_json, to_json
from mmcontrast.errors import UserError, choose
from mmcontrast.stages import run_folder
from mmcontrast.step import TrainState

_SLICED_BYTES = 2**24
FORMAT = 2  # 1: without tables, and params["terms"] was "temperatures"


class Checkpoints:
  """The checkpoints of one run, in `workdir/checkpoints`: saved in the background, atomically."""

  def __init__(self, workdir: str | pathlib.Path, options: Mapping[str, Any]):
    """`options`: config.checkpoint (keep_last, keep_best, best_metric, best_mode)."""
    choose(options["best_mode"], ("min", "max"), "config.checkpoint.best_mode")
    policies = [checkpoint_managers.LatestN(n=options["keep_last"])]
    if options["keep_best"]:
      # `reverse=False` keeps the highest values.
      policies.append(checkpoint_managers.BestN(
          get_metric_fn=lambda metrics: metrics["best"], reverse=options["best_mode"] == "min",
          n=options["keep_best"], keep_checkpoints_without_metrics=False))
    self._best_metric = options["best_metric"]
    self._manager = ocp.CheckpointManager(
        pathlib.Path(workdir).resolve() / "checkpoints", item_handlers=_handlers(),
        options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True))

  def save(self, state: TrainState, config: Mapping, metrics: Mapping[str, float]) -> None:
    """Saves `state` under its step; returns before the files are written.

    Raises UserError when `metrics` lacks config.checkpoint.best_metric.
    """
    choose(self._best_metric, metrics, "config.checkpoint.best_metric")
    model, training = _split(state)
    run = {"format": FORMAT, "mmcontrast": mmcontrast.__version__, "config": json.loads(to_json(config))}
    self._manager.save(
        int(state.step), metrics={"best": float(metrics[self._best_metric])},
        args=ocp.args.Composite(model=ocp.args.PyTreeSave(model), training=ocp.args.PyTreeSave(training),
                                run=ocp.args.JsonSave(run)))

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def restore(self, like: TrainState) -> TrainState:
    """The newest state. `like` gives shapes, dtypes and shardings (jax.ShapeDtypeStruct leaves)."""
    model, training = (ocp.args.PyTreeRestore(item, ocp.checkpoint_utils.construct_restore_args(item))
                       for item in _split(like))
    found = self._manager.restore(self._manager.latest_step(), args=ocp.args.Composite(model=model, training=training))
    return TrainState(**found["model"], **found["training"])

  def close(self) -> None:
    """Waits for saves under way."""
    self._manager.wait_until_finished()
    self._manager.close()


def load_run(workdir: str | pathlib.Path, step: int | None = None) -> tuple[Any, dict, int]:
  """The config and the model variables of a run, or of its last stage, as numpy arrays, on any machine.

  Returns:
    (config, {"params", "batch_stats"}, step).
  Raises UserError when there is no checkpoint, or none of that step, or it is of another format.
  """
  folder = run_folder(workdir)
  directory = folder.resolve() / "checkpoints"
  if not directory.is_dir():
    raise UserError(f"{folder}: no checkpoints there; train first: mmcontrast train --config ... --workdir {workdir}")
  options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
  with ocp.CheckpointManager(directory, item_handlers=_handlers(), options=options) as manager:
    steps = manager.all_steps()
    if not steps:
      raise UserError(f"{workdir}: no complete checkpoint yet; train first: mmcontrast train --workdir {workdir}")
    step = max(steps) if step is None else step
    if step not in steps:
      raise UserError(f"{workdir}: no checkpoint of step {step}; there are {sorted(steps)}")
    run = manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
    if run.get("format") != FORMAT:
      raise UserError(f"{workdir}: checkpoint format {run.get('format')!r}, this mmcontrast reads {FORMAT}; "
                      f"it was written by mmcontrast {run.get('mmcontrast')}")
    shapes = manager.item_metadata(step)["model"]
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(shapes.tree))
    model = manager.restore(step, args=ocp.args.Composite(
        model=ocp.args.PyTreeRestore(restore_args=as_numpy)))["model"]
  return from_json(json.dumps(run["config"])), model, step


def _handlers() -> dict[str, Any]:
  """Item of a checkpoint -> what writes and reads it.

  What all devices hold, Orbax would cut into a slice for each of them, with a program compiled for each shape; that
  pays for large arrays alone, and the caller waits for it.
  """
  arrays = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=_SLICED_BYTES)
  registry = ocp.type_handlers.create_type_handler_registry((jax.Array, arrays), (np.ndarray, ocp.type_handlers.NumpyHandler()))
  tree = {item: ocp.PyTreeCheckpointHandler(type_handler_registry=registry) for item in ("model", "training")}
  return {**tree, "run": ocp.JsonCheckpointHandler()}


def _split(state: TrainState) -> tuple[dict, dict]:
  fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
  model = {name: fields.pop(name) for name in ("params", "batch_stats")}
  return model, fields
