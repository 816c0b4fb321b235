"""The training program, top to bottom.

    mmcontrast train --config quickstart --workdir runs/quickstart
    mmcontrast train --config quickstart --workdir runs/quickstart

Running the same command again resumes from the newest checkpoint. A config with stages is trained
stage by stage, each in the folder of its name in `workdir` (stages.py).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from mmcontrast import folders as places
from mmcontrast.called import call_as
from mmcontrast.config import overridden, to_json
from mmcontrast.config.stages import errors_of, stages_in
from mmcontrast.data import pipeline
from mmcontrast.data.tokenizers import keep_file
from mmcontrast.errors import Preempted, UserError
from mmcontrast.evaluate import check_sets, evaluate_model
from mmcontrast.inference import Inference
from mmcontrast.inference.evaluation_config import say_change
from mmcontrast.parallel import distributed, sharding
from mmcontrast.runs import run_lock
from mmcontrast.runs.checkpoint import (
  OF_THE_DATA,
  Checkpoints,
  complete_steps,
  disk_errors,
  load_run,
  saved_run,
  snapshot,
)
from mmcontrast.runs.train_state import TrainState
from mmcontrast.training import metric_files, observe
from mmcontrast.training.divergence import Diverged, check_state, with_way_back
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.preemption import Notice
from mmcontrast.training.program import Plan, make_plans, variable_shapes
from mmcontrast.training.resume import check_resume, data_words
from mmcontrast.training.selection import check_best_metric
from mmcontrast.training.step import init_state, variables_of
from mmcontrast.training.watchdog import PATIENCE, Watchdog


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
  folders = {name: workdir / name for name in plans}  # without stages: "" and workdir itself
  state, last = None, list(plans)[-1]
  places.make(workdir, "--workdir")
  with run_lock.held(workdir) as check_lock, Notice() as notice:
    saved = _check_workdir(workdir, plans, folders)
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
        state = _train(plan, name, folders, data_dir, notice, watchdog, check_lock)
  _say(
    f"done: {folders[last]} holds {', '.join(_what_lies_in(folders[last]))}; now: "
    f"mmcontrast evaluate --workdir {shlex.quote(str(workdir))}"
  )
  return state


def _train(
  plan: Plan,
  stage: str,
  folders: Mapping[str, places.Folder],
  data_dir: str | None,
  notice: Notice,
  watchdog: Watchdog,
  check_lock: Callable[[], None],
) -> TrainState:
  """Trains one stage of those that have `folders`, or the run "" without stages, to its end."""
  config, mesh, (recipe, batch_shapes, like, step_function), spec = plan
  workdir = folders[stage]
  workdir.mkdir(parents=True, exist_ok=True)
  checkpoints = Checkpoints(workdir, config["checkpoint"])
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), batch_shapes)
  placed = jax.tree.map(lambda leaf: leaf.sharding, like)
  if checkpoints.latest_step() is not None:
    # What is known of examples is not of these ones.
    state = checkpoints.restore(like, OF_THE_DATA if data_words(saved_run(workdir), plan, workdir) else ())
    if state.queues is None:
      made = jax.jit(lambda batch: _of_the_data(init_state(recipe, batch)), out_shardings=_of_the_data(placed))
      state = state.replace(**made(zeros))
    if distributed.is_first():
      if changed := say_change(workdir, config):
        _say(changed)
      (workdir / "config.json").write_text(to_json(config))
    if int(state.step) == config["steps"]:
      _say(
        f"{workdir}: finished at step {config['steps']}, so nothing is trained; a larger config.steps continues "
        "the run if the schedules allow it"
      )
      checkpoints.close()
      return state
    _say(f"resuming {workdir} from step {int(state.step)}")
  else:
    sources = {name: functools.partial(_saved_variables, folder) for name, folder in folders.items()}
    given = initial_arrays(config, variable_shapes(plan.program), sources)
    state = jax.jit(functools.partial(init_state, recipe), out_shardings=placed)(zeros, given)
    _say(observe.parameter_summary(like.params))
  if distributed.is_first():
    (workdir / "config.json").write_text(to_json(config))
    (workdir / "parameters.txt").write_text(observe.parameter_overview(like.params) + "\n")
  snapshot(state)  # compiled before the loop

  start = int(state.step)
  batches = pipeline.train_batches(
    config["data"],
    seed=config["seed"],
    batch_size=config["batch"]["size"],
    start_step=start,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    data_dir=data_dir,
  )
  every = {"checkpoint": config["checkpoint"]["every_steps"], "evaluation": config["evaluation"]["every_steps"]}
  window = Window(config["log"]["every_steps"], config["batch"]["size"])
  with (
    with_way_back(workdir),
    contextlib.closing(checkpoints),
    contextlib.closing(batches),
    metric_files.make_writer(workdir, start) as writer,
    observe.Progress(config["steps"], start) as progress,
  ):
    if batches.tokenizer and distributed.is_first():
      keep_file(batches.tokenizer, workdir)
      watchdog.doing("looking at the captions", PATIENCE)
      if start == 0 and (line := batches.cut_line()):
        progress.print(line)
    for step in range(start + 1, config["steps"] + 1):
      watchdog.doing(f"reading batch {step}")
      with window.watch.waiting():
        batch = sharding.put_batch(next(batches), mesh)
      first, last = step == start + 1, step == config["steps"]
      watchdog.doing(f"step {step}", PATIENCE if first else 1)  # the first one compiles
      state, metrics = step_function(state, batch)
      window.add(step, metrics)
      if first:
        jax.block_until_ready(metrics)
        progress.print(f"first step done, compilation included, after {observe.duration(window.restart())}")
      checkpoints.check()
      check_lock()
      preempted = notice.reached(step) and not last
      due = {name: bool(period) and (last or step % period == 0) for name, period in every.items()}
      saves = due["checkpoint"] or last or preempted
      if saves:
        kept = snapshot(state)  # before the report waits for the device
      if window.full or any(due.values()) or saves:
        summary, failed = window.summary() | batches.counts, None
        for line in window.remarks(summary):
          progress.print(line)
        if saves:
          check_state(state)  # where it is: a snapshot may be on the host
        if due["evaluation"] and not preempted:
          watchdog.doing(f"evaluating after step {step}", PATIENCE)
          try:
            variables = distributed.on_this_process(variables_of(recipe, state))
            found = evaluate_model(Inference(config, recipe.model, variables, batches.tokenizer), config, data_dir)
            progress.print(observe.evaluation_line(step, found))
            summary |= found
          except Exception as error:
            if jax.process_count() > 1 and not isinstance(error, UserError):
              raise  # the others may not have failed, and would not save
            failed = error
            kept = kept if saves else snapshot(state)
        writer.write(step, summary)
        if saves or failed:  # steps that were trained are kept, whatever becomes of their evaluation
          watchdog.doing(f"saving the checkpoint of step {step}", PATIENCE)
          # One that only preemption or a failure asks for does not compete for the best.
          competes = (due["checkpoint"] or last) and not failed
          writer.keep()  # before: what a resumed run does not write again
          checkpoints.save(kept, config, summary if competes else None, spec.fingerprint)
        progress.update(step, summary)
        if failed:
          raise failed
        if preempted:
          break
    progress.print(batches.summary())
    watchdog.doing("ending: waiting for the last checkpoint", PATIENCE)
  if int(state.step) < config["steps"]:
    raise Preempted(f"stopped by SIGTERM after step {int(state.step)} of {config['steps']}, its checkpoint is saved")
  if distributed.is_first():
    from mmcontrast.report.losses import draw_losses  # matplotlib, which takes its time

    draw_losses(observe.read_jsonl(workdir / "metrics.jsonl"), workdir / "losses.png")
  return state


class Window:
  """Metrics since the last report: kept on the device, so that the loop does not wait for them.

  It does wait for those of AHEAD steps before: further ahead, it would fill the device with batches, and
  hide from the watchdog which step hangs.
  """

  AHEAD = 2

  def __init__(self, steps: int, batch_size: int):
    """`steps`: how many make a report."""
    self._steps, self._batch_size, self._entries = steps, batch_size, []
    self._idle: set[str] = set()
    self.watch = observe.Stopwatch()

  def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Keeps the metrics of `step`."""
    self._entries.append((step, metrics))
    if len(self._entries) > self.AHEAD:
      jax.block_until_ready(self._entries[-1 - self.AHEAD])

  @property
  def full(self) -> bool:
    """Whether a report is due."""
    return bool(self._entries) and self._entries[-1][0] % self._steps == 0

  def restart(self) -> float:
    """Seconds since the window began; the clock starts anew."""
    return self.watch.lap(1, self._batch_size)["seconds_per_step"]

  def summary(self) -> dict[str, float]:
    """Means over the window and its rates; empties it. Waits for the device.

    Raises Diverged naming the step and the terms when a loss is not finite.
    """
    entries = [(step, observe.as_floats(metrics)) for step, metrics in self._entries]
    for step, metrics in entries:
      if bad := observe.check_finite(metrics):
        terms = [name for name in bad if name.endswith("/loss")] or bad
        raise Diverged(f"step {step}: {', '.join(terms)} not finite")
    means = {name: float(np.mean([metrics[name] for _, metrics in entries])) for name in entries[0][1]}
    rates = self.watch.lap(len(entries), len(entries) * self._batch_size)
    self._entries = []
    return means | rates

  def remarks(self, summary: Mapping[str, float]) -> list[str]:
    """A line for each term in which no example of the window of `summary` took part, unless it was so in the last."""
    idle = observe.idle_terms(summary)
    new, self._idle = [name for name in idle if name not in self._idle], set(idle)
    return [
      f"objective.{name}: no example since the last report took part in it, so nothing is learned from it: none "
      "has all that it compares (data.missing), or none has a positive (its target)"
      for name in new
    ]


def _saved_variables(workdir: places.Folder) -> dict[str, Any]:
  return load_run(workdir)[1]


def _of_the_data(state: TrainState) -> dict[str, Any]:
  return {name: getattr(state, name) for name in OF_THE_DATA}


def _what_lies_in(folder: places.Folder) -> list[str]:
  names = ("checkpoints", "metrics.jsonl", "losses.png", "parameters.txt", "tensorboard")
  return [name for name in names if (folder / name).exists()]


def _say(text: str) -> None:
  if distributed.is_first():
    print(text)


def _check_workdir(
  workdir: places.Folder, plans: Mapping[str, Plan], folders: Mapping[str, places.Folder]
) -> dict[str, int | None]:
  """The step that each stage has reached; UserError where `workdir` holds another run."""
  if "" not in plans and _holds_checkpoints(workdir):
    raise UserError(f"{workdir}: holds a run without stages; give another --workdir")
  if "" in plans and (others := stages_in(workdir)):
    raise UserError(f"{workdir}: holds a run of the stages {', '.join(others)}; give another --workdir")
  steps: dict[str, int | None] = dict.fromkeys(plans)
  for name, plan in plans.items():
    if _holds_checkpoints(folders[name]):
      saved = saved_run(folders[name])
      steps[name] = saved.step
      if saved.step > plan.config["steps"]:
        raise UserError(f"{folders[name]}: already at step {saved.step}, beyond config.steps={plan.config['steps']}")
      with errors_of(name):
        for line in check_resume(saved, plan, folders[name]):
          _say(line)
  for name, after in itertools.pairwise(plans):
    if steps[after] is not None and steps[name] is not None and steps[name] < plans[name].config["steps"]:
      raise UserError(
        f"{folders[name]}: has {steps[name]} of {plans[name].config['steps']} steps, and stage {after!r} "
        f"has started from it; give the stage its {steps[name]} steps, or another --workdir"
      )
  return steps


def _holds_checkpoints(workdir: places.Folder) -> bool:
  return distributed.first_says(bool(complete_steps(workdir / "checkpoints")))


call_as(__name__, train)
