"""Checkpoints by Orbax: the state, the resolved config and the format version.

A checkpoint has three items: `model` (parameters, batch statistics and, where the run keeps it,
their average: all that inference needs), `training` (optimizer, momentum branch, queues, tables, step) and `run`
(config, versions). The position in the data is the step.

A checkpoint is written under a temporary name and renamed when it is whole. What a process that
died left behind, or a folder that lacks a marker of its commit, is never read.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import errno
import json
import operator
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

import mmcontrast
from mmcontrast import distributed, tensorstore_leak
from mmcontrast.config import from_json, to_json
from mmcontrast.errors import UserError, choose, one_line
from mmcontrast.lora import Lora
from mmcontrast.model import complete_config
from mmcontrast.stages import run_folder
from mmcontrast.step import TrainState

FORMAT = 2  # 1: without tables, and params["terms"] was "temperatures"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MARKERS = ("_CHECKPOINT_METADATA", *(f"{name}commit_success.txt" for name in ("", "model/", "training/", "run/")))


class Checkpoints:
  """The checkpoints of one run, in `workdir/checkpoints`: saved in the background, atomically."""

  def __init__(self, workdir: str | pathlib.Path, options: Mapping[str, Any]):
    """`options`: config.checkpoint (keep_last, keep_best, best_metric, best_mode)."""
    tensorstore_leak.mend()
    choose(options["best_mode"], ("min", "max"), "config.checkpoint.best_mode")
    policies, best = [checkpoint_managers.LatestN(n=options["keep_last"])], operator.itemgetter("best")
    if options["keep_best"]:
      # `reverse=False` keeps the highest values.
      policies.append(checkpoint_managers.BestN(
          get_metric_fn=best, reverse=options["best_mode"] == "min",
          n=options["keep_best"], keep_checkpoints_without_metrics=False))
    self._best_metric = options["best_metric"]
    self._directory = pathlib.Path(workdir).resolve() / "checkpoints"
    if distributed.is_first():
      _remove_half_written(self._directory)
    distributed.first_says(True)  # the others look there when that is done
    self._manager = ocp.CheckpointManager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
            best_fn=best,  # without it metrics are not written, and a resumed run forgets which was the best
            cleanup_tmp_directories=True))
    self._writer = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
    self._writing: concurrent.futures.Future | None = None
    self._step: int | None = None  # of the last save
    self._failed = False

  def save(self, state: TrainState, config: Mapping, metrics: Mapping[str, float] | None) -> None:
    """Saves `state` under its step; returns before the files are written.

    Waits for the save before this one, if it is still under way. `state`: a `snapshot`, or one that is not donated
    later. `metrics`: None for a checkpoint that is no candidate for the best.
    Raises UserError when `metrics` lacks config.checkpoint.best_metric, or the save before failed; of several
    processes, JAX's error when another is lost.
    """
    best = None
    if metrics is not None:
      choose(self._best_metric, metrics, "config.checkpoint.best_metric")
      best = {"best": float(metrics[self._best_metric])}
    self._wait()
    if jax.process_count() > 1:  # Orbax's barriers are collectives: never beside those of a training step
      with self._one_line():
        self._start(state, config, best)
    else:  # what Orbax does before its own threads take over takes long beside a small step
      self._writing = self._writer.submit(self._write, state, config, best)

  def check(self) -> None:
    """Raises UserError when a save under way has failed; does not wait for it."""
    if self._writing is None or self._writing.done():
      self._result()

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def restore(self, like: TrainState) -> TrainState:
    """The newest state. `like` gives shapes, dtypes and shardings (jax.ShapeDtypeStruct leaves).

    Raises UserError when the checkpoint is damaged.
    """
    model, training = _split(like)
    step = self._manager.latest_step()
    with _readable(self._directory, step):
      found = self._manager.restore(step, args=ocp.args.Composite(
          model=ocp.args.StandardRestore(model), training=ocp.args.StandardRestore(training)))
    return TrainState(**found["model"], **found["training"])

  def close(self) -> None:
    """Waits for the save under way. Raises UserError when it failed, unless that was said before."""
    try:
      if not self._failed:
        self._wait()
    finally:
      self._writer.shutdown()
      with contextlib.suppress(*[Exception] * self._failed):  # it raises again what was said before
        self._manager.close()

  def _write(self, state: TrainState, config: Mapping, metrics: Mapping[str, float] | None) -> None:
    self._start(jax.tree.map(np.asarray, state), config, metrics)
    self._manager.wait_until_finished()

  def _start(self, state: TrainState, config: Mapping, metrics: Mapping[str, float] | None) -> None:
    self._step = int(state.step)
    model, training = _split(state)
    run = {"format": FORMAT, "mmcontrast": mmcontrast.__version__,
           "config": json.loads(to_json(complete_config(config)))}
    self._manager.save(self._step, metrics=metrics, args=ocp.args.Composite(
        model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(training), run=ocp.args.JsonSave(run)))

  def _wait(self) -> None:
    self._result()
    with self._one_line():
      self._manager.wait_until_finished()

  def _result(self) -> None:
    writing, self._writing = self._writing, None
    with self._one_line():
      if writing is not None:
        writing.result()
      self._manager.check_for_errors()

  @contextlib.contextmanager
  def _one_line(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # of many kinds: OSError, ValueError of TensorStore, ...
      self._failed = True
      if distributed.lost_another(error):
        raise
      kept = complete_steps(self._directory)
      intact = f"the last good one, of step {kept[-1]}, is intact" if kept else "there is none before it"
      raise UserError(f"{self._directory}: the checkpoint of step {self._step} could not be written "
                      f"({_reason(error)}); {intact}: mend that, then run the same command again") from error


def snapshot(state: TrainState) -> TrainState:
  """A copy of `state` for `Checkpoints.save`; the next step, to which `state` is donated, does not touch it.

  On CPU it is asked for, not waited for: a compiled function makes it behind the steps under way. An accelerator's
  memory may not hold two states, so there it is on the host. Several processes save before the next step, and not
  before the last one has ended on each of their devices: Orbax's barriers are collectives too.
  """
  if jax.process_count() > 1:
    return jax.block_until_ready(state)
  if jax.default_backend() == "cpu":
    return _copy(state)
  jax.tree.map(lambda leaf: leaf.copy_to_host_async(), state)
  return jax.tree.map(np.asarray, state)


def complete_steps(directory: pathlib.Path) -> list[int]:
  """The steps of the whole checkpoints in the folder `directory`, which need not exist, in order."""
  return sorted(int(folder.name) for folder in _numbered(directory) if _is_complete(folder))


@contextlib.contextmanager
def disk_errors(workdir: pathlib.Path) -> Iterator[None]:
  """Within it, a disk that is full is a UserError which names `workdir`, where a run writes."""
  try:
    yield
  except OSError as error:
    if error.errno not in _NO_SPACE:
      raise
    raise UserError(f"{workdir}: {error.strerror}; the last checkpoint is intact: mend that, then run the same "
                    "command again") from error


def save_untrained(workdir: pathlib.Path, config: Mapping, variables: Mapping[str, Any]) -> None:
  """Makes the folder `workdir` a run that has been trained for 0 steps: config.json and a checkpoint.

  It can be loaded, not trained further. `variables`: {"params", "batch_stats"}, numpy or JAX arrays.
  """
  workdir.mkdir(parents=True, exist_ok=True)
  (workdir / "config.json").write_text(to_json(config))
  state = TrainState(jnp.int32(0), **variables, opt_state={}, momentum=None, queues={}, tables={})
  with contextlib.closing(Checkpoints(workdir, config["checkpoint"])) as checkpoints:
    checkpoints.save(jax.tree.map(jnp.asarray, state), config, None)


def load_run(workdir: str | pathlib.Path, step: int | None = None) -> tuple[Any, dict, int]:
  """The config and the model variables of a run, or of its last stage, as numpy arrays, on any machine.

  The config has every option of towers and heads. The variables are the average of the weights where the
  run keeps one (config.ema), and what LoRA adapted is summed.

  Returns:
    (config, {"params", "batch_stats"}, step).
  Raises UserError when there is no checkpoint, or none of that step, or it is damaged or of another format.
  """
  folder = run_folder(workdir)
  directory = folder.resolve() / "checkpoints"
  if not directory.is_dir():
    raise UserError(f"{folder}: no checkpoints there; train first: mmcontrast train --config ... --workdir {workdir}")
  handlers = {"model": ocp.PyTreeCheckpointHandler(), "training": ocp.PyTreeCheckpointHandler(),
              "run": ocp.JsonCheckpointHandler()}
  options = ocp.CheckpointManagerOptions(read_only=True, save_interval_steps=0, create=False)
  steps = complete_steps(directory)
  with ocp.CheckpointManager(directory, item_handlers=handlers, options=options) as manager:
    if not steps:
      raise UserError(f"{workdir}: no complete checkpoint yet; train first: mmcontrast train --workdir {workdir}")
    step = max(steps) if step is None else step
    if step not in steps:
      raise UserError(f"{workdir}: no checkpoint of step {step}; there are {steps}")
    with _readable(directory, step):
      run = manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
    if run.get("format") != FORMAT:
      raise UserError(f"{workdir}: checkpoint format {run.get('format')!r}, this mmcontrast reads {FORMAT}; "
                      f"it was written by mmcontrast {run.get('mmcontrast')}")
    with _readable(directory, step):
      shapes = manager.item_metadata(step)["model"]
      as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), dict(shapes.tree))
      model = manager.restore(step, args=ocp.args.Composite(
          model=ocp.args.PyTreeRestore(restore_args=as_numpy)))["model"]
  config = complete_config(from_json(json.dumps(run["config"])))  # older checkpoints leave defaults out
  lora = Lora(**config.get("lora", {}))  # older checkpoints have none
  found = model.get("ema") or {**model, "params": lora.merge(model["params"])}
  return config, found, step


def _split(state: TrainState) -> tuple[dict, dict]:
  fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
  model = {name: fields.pop(name) for name in ("params", "batch_stats", "ema")}
  if model["ema"] is None:
    del model["ema"]
  return model, fields


@jax.jit
def _copy(state: TrainState) -> TrainState:
  return jax.tree.map(jnp.copy, state)


def _numbered(directory: pathlib.Path) -> list[pathlib.Path]:
  return [entry for entry in directory.iterdir() if entry.name.isdigit()] if directory.is_dir() else []


def _is_complete(folder: pathlib.Path) -> bool:
  """Whether all that Orbax leaves when it commits is there; a copy or a deletion cut short lacks some."""
  return all((folder / name).is_file() for name in _MARKERS)


def _remove_half_written(directory: pathlib.Path) -> None:
  for folder in _numbered(directory):
    if not _is_complete(folder):
      print(f"{folder}: not a whole checkpoint; removed")
      shutil.rmtree(folder)


@contextlib.contextmanager
def _readable(directory: pathlib.Path, step: int) -> Iterator[None]:
  """Within it, an error in reading the checkpoint of `step` is one line that names it and the one before."""
  try:
    yield
  except Exception as error:  # of many kinds: ValueError of TensorStore, JSONDecodeError, OSError, ...
    before = [other for other in complete_steps(directory) if other < step]
    remedy = (f"delete that folder to go on from step {before[-1]}" if before else
              "no other is kept: delete that folder to start again; config.checkpoint.keep_last=2 keeps one more")
    raise UserError(f"{directory / str(step)}: the checkpoint is damaged ({_reason(error)}); {remedy}") from error


def _reason(error: Exception) -> str:
  """The error of the system within `error` if there is one, else its first words."""
  text = one_line(error, most=10_000)
  found = re.search(r"([^:]+) \[os_error_code", text)
  return found[1].strip() if found else text[:120]
