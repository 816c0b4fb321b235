"""The training program, top to bottom.

    mmcontrast train --config quickstart --workdir runs/quickstart

Running the same command again resumes from the newest checkpoint. A config with stages is trained
stage by stage, each in the folder of its name in `workdir` (stages.py).
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mmcontrast import folders as places
from mmcontrast.called import call_as
from mmcontrast.config import overridden, to_json
from mmcontrast.config.stages import errors_of
from mmcontrast.data import pipeline
from mmcontrast.data.tokenizers import keep_file
from mmcontrast.errors import Preempted, UserError
from mmcontrast.evaluate import check_sets, evaluate_in_training
from mmcontrast.inference import Inference
from mmcontrast.inference.evaluation_config import say_change
from mmcontrast.parallel import distributed, sharding
from mmcontrast.runs import run_lock
from mmcontrast.runs.checkpoint import Checkpoints, disk_errors, saved_run, snapshot
from mmcontrast.runs.train_state import TrainState
from mmcontrast.training import metric_files, observe
from mmcontrast.training.divergence import check_state, with_way_back
from mmcontrast.training.epoch_hooks import EpochHooks, check_hooks
from mmcontrast.training.preemption import Notice
from mmcontrast.training.program import Plan, make_plans
from mmcontrast.training.resume import check_workdir, data_words
from mmcontrast.training.selection import check_best_metric
from mmcontrast.training.starting_state import new_state, restored_state
from mmcontrast.training.step import variables_of
from mmcontrast.training.watchdog import PATIENCE, Watchdog
from mmcontrast.training.window import Window


def train(config: Mapping | ConfigDict, workdir: str | pathlib.Path, data_dir: str | None = None) -> TrainState:
  """Trains until `config.steps`, from the newest checkpoint of `workdir` if there is one.

  Leaves in `workdir`, or in the folder of each stage there: config.json, parameters.txt, checkpoints/,
  metrics.jsonl, TensorBoard events and, at the end, losses.png. Stages that are done are not done again; a
  finished run continues when `config.steps` is larger and its schedules allow it.
  Returns the final state, of the last stage.
  Raises UserError before any compilation when the config, the data or a checkpoint, of any
  stage, do not fit, and in the loop when the loss is not finite or a checkpoint cannot be written
  (the last checkpoint is kept). Raises Preempted, which exits with 0, when SIGTERM asked it to end.
  """
  config, workdir = overridden(config), places.at(workdir, "--workdir")
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags
  plans = make_plans(config, lambda run: pipeline.spec(run["data"], run["batch"]["size"], data_dir))
  for name, plan in plans.items():
    with errors_of(name):
      check_sets(plan.config, data_dir, plan.spec.examples)
      check_best_metric(plan, data_dir)
      check_hooks(plan, data_dir)
  folders = {name: workdir / name for name in plans}  # without stages: "" and workdir itself
  state, last = None, list(plans)[-1]
  places.make(workdir, "--workdir")
  with run_lock.held(workdir) as check_lock, Notice() as notice:
    saved, lines = check_workdir(workdir, plans, folders)
    for line in lines:
      _say(line)
    if config.get("stages") and distributed.is_first():
      (workdir / "config.json").write_text(to_json(config))
    for name, plan in plans.items():
      if saved[name] == plan.config["steps"] and name != last:
        _say(f"stage {name}: done")
        continue
      if name:
        _say(f"stage {name}")
      state = None  # its memory is the next stage's
      with errors_of(name), disk_errors(folders[name]), Watchdog(plan.config["log"]["watchdog_seconds"]) as watchdog:
        state = _train(_Stage(plan, name, folders, data_dir), notice, watchdog, check_lock)
  _say(
    f"done: {folders[last]} holds {', '.join(_what_lies_in(folders[last]))}; now: "
    f"mmcontrast evaluate --workdir {shlex.quote(str(workdir))}"
  )
  return state


class _Stage(NamedTuple):
  """A stage of a run, or the run "" without stages: what is trained, and the folders of all stages."""

  plan: Plan
  name: str
  folders: Mapping[str, places.Folder]
  data_dir: str | None

  @property
  def workdir(self) -> places.Folder:
    return self.folders[self.name]


class _Open(NamedTuple):
  """What is open while a stage trains."""

  batches: pipeline.Batches
  window: Window
  checkpoints: Checkpoints
  writer: metric_files.MultiWriter
  progress: observe.Progress
  watchdog: Watchdog


class _Due(NamedTuple):
  """What follows a step."""

  step: int
  last: bool
  preempted: bool
  report: bool
  evaluation: bool
  checkpoint: bool

  @property
  def saves(self) -> bool:
    return self.checkpoint or self.last or self.preempted

  @property
  def anything(self) -> bool:
    return self.report or self.evaluation or self.saves


def _train(stage: _Stage, notice: Notice, watchdog: Watchdog, check_lock: Callable[[], None]) -> TrainState:
  """Trains a stage to its end."""
  (config, mesh, program, _), workdir = stage.plan, stage.workdir

  # ---- The state: new, or that of the newest checkpoint -----------------------------------------
  workdir.mkdir(parents=True, exist_ok=True)
  checkpoints = Checkpoints(workdir, config["checkpoint"])
  resumes = checkpoints.latest_step() is not None
  if resumes:
    changed = data_words(saved_run(workdir), stage.plan, workdir)
    state = restored_state(stage.plan, checkpoints, data_changed=bool(changed))
  else:
    state = new_state(stage.plan, stage.folders)
  start, steps = int(state.step), config["steps"]
  if distributed.is_first():
    if resumes and (line := say_change(workdir, config)):
      _say(line)
    (workdir / "config.json").write_text(to_json(config))
  if start == steps:
    _say(
      f"{workdir}: finished at step {steps}, so nothing is trained; a larger config.steps continues "
      "the run if the schedules allow it"
    )
    checkpoints.close()
    return state
  _say(f"resuming {workdir} from step {start}" if resumes else observe.parameter_summary(program.state.params))
  if distributed.is_first():
    (workdir / "parameters.txt").write_text(observe.parameter_overview(program.state.params) + "\n")
  snapshot(state)  # compiled before the loop

  # ---- The loop ---------------------------------------------------------------------------------
  hooks, window = EpochHooks(stage.plan, stage.data_dir), Window(config["log"]["every_steps"], config["batch"]["size"])
  embedding = functools.partial(watchdog.doing, patience=PATIENCE)
  with (
    with_way_back(workdir),
    contextlib.closing(checkpoints),
    # What hooks write before the first step may say which examples make a batch.
    contextlib.closing(_batches(stage, start, hooks.groups(state := hooks(state, start, embedding, _say)))) as batches,
    metric_files.make_writer(workdir, start) as writer,
    observe.Progress(steps, start) as progress,
  ):
    opened = _Open(batches, window, checkpoints, writer, progress, watchdog)
    _keep_tokenizer(stage, opened, start)
    compiled: set[tuple] = set()
    for step in range(start + 1, steps + 1):
      state = hooks(state, step - 1, embedding, progress.print)
      watchdog.doing(f"reading batch {step}")
      with window.watch.waiting():
        batch = sharding.put_batch(next(batches), mesh)
      first, shapes = step == start + 1, tuple(leaf.shape for leaf in jax.tree.leaves(batch))
      watchdog.doing(f"step {step}", 1 if shapes in compiled else PATIENCE)  # the first of a shape compiles
      compiled.add(shapes)
      state, metrics = program.step(state, batch)
      window.add(step, metrics, len(batch["index"]))
      if first:
        jax.block_until_ready(metrics)
        progress.print(f"first step done, compilation included, after {observe.duration(window.restart())}")
      checkpoints.check()
      check_lock()
      due = _due(config, step, window, notice)
      if due.anything:
        _after_step(stage, opened, due, state)
      if due.preempted:
        break
    progress.print(batches.summary())
    watchdog.doing("ending: waiting for the last checkpoint", PATIENCE)

  # ---- The end ----------------------------------------------------------------------------------
  if int(state.step) < steps:
    raise Preempted(f"stopped by SIGTERM after step {int(state.step)} of {steps}, its checkpoint is saved")
  if distributed.is_first():
    from mmcontrast.report.losses import draw_losses  # matplotlib, which takes its time

    draw_losses(observe.read_jsonl(workdir / "metrics.jsonl"), workdir / "losses.png")
  return state


def _batches(stage: _Stage, start: int, groups: np.ndarray | None) -> pipeline.Batches:
  config = stage.plan.config
  return pipeline.train_batches(
    config["data"],
    seed=config["seed"],
    batch_size=config["batch"]["size"],
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    data_dir=stage.data_dir,
    groups=groups,
  )


def _keep_tokenizer(stage: _Stage, opened: _Open, start: int) -> None:
  """Copies the tokenizer to the run; says once what its length cuts off the captions."""
  if not opened.batches.tokenizer or not distributed.is_first():
    return
  keep_file(opened.batches.tokenizer, stage.workdir)
  opened.watchdog.doing("looking at the captions", PATIENCE)
  if start == 0 and (line := opened.batches.cut_line()):
    opened.progress.print(line)


def _due(config: Mapping[str, Any], step: int, window: Window, notice: Notice) -> _Due:
  last = step == config["steps"]

  def at(every_steps: int) -> bool:
    return bool(every_steps) and (last or step % every_steps == 0)

  evaluation, checkpoint = at(config["evaluation"]["every_steps"]), at(config["checkpoint"]["every_steps"])
  return _Due(step, last, notice.reached(step) and not last, window.full, evaluation, checkpoint)


def _after_step(stage: _Stage, opened: _Open, due: _Due, state: TrainState) -> None:
  """Reports, evaluates and saves; an evaluation that failed is raised once what was trained is saved."""
  config, spec = stage.plan.config, stage.plan.spec
  kept = snapshot(state) if due.saves else None  # before the report waits for the device
  summary, failed = opened.window.summary() | opened.batches.counts, None
  for line in opened.window.remarks(summary):
    opened.progress.print(line)
  if due.saves:
    check_state(state)  # where it is: a snapshot may be on the host
  if due.evaluation and not due.preempted:
    opened.watchdog.doing(f"evaluating after step {due.step}", PATIENCE)
    try:
      summary |= _evaluate(stage, opened, due.step, state)
    except Exception as error:
      if jax.process_count() > 1 and not isinstance(error, UserError):
        raise  # the others may not have failed, and would not save
      failed, kept = error, kept if due.saves else snapshot(state)
  opened.writer.write(due.step, summary)
  if due.saves or failed:
    opened.watchdog.doing(f"saving the checkpoint of step {due.step}", PATIENCE)
    # One that only preemption or a failure asks for does not compete for the best.
    competes = (due.checkpoint or due.last) and not failed
    opened.writer.keep()  # before: what a resumed run does not write again
    opened.checkpoints.save(kept, config, summary if competes else None, spec.fingerprint)
  opened.progress.update(due.step, summary)
  if failed:
    raise failed


def _evaluate(stage: _Stage, opened: _Open, step: int, state: TrainState) -> dict[str, float]:
  config, method = stage.plan.config, stage.plan.program.method
  variables = distributed.on_this_process(variables_of(method, state))
  model = Inference(config, method.model, variables, opened.batches.tokenizer)
  results = evaluate_in_training(model, config, stage.data_dir, stage.workdir if distributed.is_first() else None)
  opened.progress.print(observe.evaluation_line(step, results))
  return results


def _what_lies_in(folder: places.Folder) -> list[str]:
  names = ("checkpoints", "metrics.jsonl", "losses.png", "parameters.txt", "tensorboard")
  return [name for name in names if (folder / name).exists()]


def _say(text: str) -> None:
  if distributed.is_first():
    print(text)


call_as(__name__, train)
