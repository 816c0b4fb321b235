"""The training program, top to bottom.

    mmcontrast train --config configs/quickstart.py --workdir runs/quickstart
    python -m mmcontrast.train --config configs/quickstart.py --workdir runs/quickstart

Running the same command again resumes from the newest checkpoint. A config with stages is trained
stage by stage, each in the folder of its name in `workdir` (stages.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from mmcontrast import augment, distributed, observe, optim, sharding
from mmcontrast.checkpoint import Checkpoints, load_run
from mmcontrast.config import check_same_run, to_json
from mmcontrast.data import pipeline
from mmcontrast.errors import UserError
from mmcontrast.evaluate import evaluate_model
from mmcontrast.evaluation import suite
from mmcontrast.inference import Inference, load_tokenizer
from mmcontrast.initialization import initial_arrays
from mmcontrast.microbatches import check_microbatches
from mmcontrast.model import build_model
from mmcontrast.objectives import terms as objective
from mmcontrast.schedules import make_schedule
from mmcontrast.stages import errors_of, resolve, stages_in
from mmcontrast.step import Recipe, TrainState, init_state, init_variables, train_step
from mmcontrast.update_rules import make_update_rule


def train(config: Mapping, workdir: str | pathlib.Path, data_dir: str | None = None) -> TrainState:
  """Trains until `config.steps`, from the newest checkpoint of `workdir` if there is one.

  Leaves in `workdir`, or in the folder of each stage there: config.json, checkpoints/,
  metrics.jsonl and TensorBoard events. Stages that are done are not done again.
  Returns the final state, of the last stage.
  Raises UserError before any compilation when the config, the data or a checkpoint, of any
  stage, do not fit, and in the loop when the loss is not finite (the last checkpoint stays).
  """
  workdir = pathlib.Path(workdir)
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain reads absl flags
  plans = make_plans(config, lambda run: pipeline.spec(run["data"], run["batch"]["size"], data_dir))
  folders = {name: workdir / name for name in plans}  # without stages: "" and workdir itself
  saved = _check_workdir(workdir, plans, folders)
  if config.get("stages") and distributed.is_first():
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "config.json").write_text(to_json(config))
  state, last = None, list(plans)[-1]
  for name, plan in plans.items():
    if saved[name] == plan.config["steps"] and name != last:
      _say(f"stage {name}: done")
      continue
    if name:
      _say(f"stage {name}")
    state = None  # its memory is the next stage's
    with errors_of(name):
      state = _train(plan, name, folders, data_dir)
  return state


def _train(plan: Plan, stage: str, folders: Mapping[str, pathlib.Path], data_dir: str | None) -> TrainState:
  """Trains one stage of those that have `folders`, or the run "" without stages, to its end."""
  config, mesh, (recipe, batch_shapes, like, step_function) = plan
  workdir = folders[stage]
  workdir.mkdir(parents=True, exist_ok=True)
  checkpoints = Checkpoints(workdir, config["checkpoint"])
  if checkpoints.latest_step() is not None:
    state = checkpoints.restore(like)
    _say(f"resuming {workdir} from step {int(state.step)}")
  else:
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), batch_shapes)
    placed = jax.tree.map(lambda leaf: leaf.sharding, like)
    sources = {name: functools.partial(_saved_variables, folder) for name, folder in folders.items()}
    given = initial_arrays(config["init"], _variables(like), sources)
    state = jax.jit(functools.partial(init_state, recipe), out_shardings=placed)(zeros, given)
    if distributed.is_first():
      (workdir / "config.json").write_text(to_json(config))
    _say(observe.parameter_overview(like.params))

  start = int(state.step)
  batches = pipeline.train_batches(
      config["data"], seed=config["seed"], batch_size=config["batch"]["size"], start_step=start,
      process_index=jax.process_index(), process_count=jax.process_count(), data_dir=data_dir)
  every = {"checkpoint": config["checkpoint"]["every_steps"], "evaluation": config["evaluation"]["every_steps"]}
  window = Window(config["log"]["every_steps"], config["batch"]["size"])
  with (contextlib.closing(checkpoints), contextlib.closing(batches),
        observe.make_writer(workdir, start) as writer, observe.Progress(config["steps"], start) as progress):
    for step in range(start + 1, config["steps"] + 1):
      with window.watch.waiting():
        batch = sharding.put_batch(next(batches), mesh)
      state, metrics = step_function(state, batch)
      window.add(step, metrics)
      if step == start + 1:
        jax.block_until_ready(metrics)
        progress.print(f"first step done, compilation included, after {observe.duration(window.restart())}")
      last = step == config["steps"]
      due = {name: last or (bool(period) and step % period == 0) for name, period in every.items()}
      if window.full or any(due.values()):
        summary = window.summary() | {"data/skipped": batches.skipped}
        if due["evaluation"] and not last:
          variables = distributed.on_this_process(_variables(state))
          model = Inference(config, recipe.model, variables, load_tokenizer(config, data_dir))
          summary |= evaluate_model(model, config, data_dir)
        writer.write(step, summary)
        progress.update(step, summary)
        if due["checkpoint"]:
          checkpoints.save(state, config, summary)
  return state


class Program(NamedTuple):
  """A config ready to be compiled: `step(state, batch)`, and the shapes of both where they will live."""

  recipe: Recipe
  batch: Any
  state: TrainState
  step: Any


class Plan(NamedTuple):
  """A run, or a stage of one, that has been checked: it can be trained, or compiled and read."""

  config: Mapping
  mesh: jax.sharding.Mesh
  program: Program


def make_plans(config: Mapping, find_spec: Callable[[Mapping], pipeline.Spec],
               devices: Sequence[jax.Device] | None = None) -> dict[str, Plan]:
  """A plan for each stage of `config`, by its name in order; for a run without stages one, of the name "".

  Args:
    config: a resolved config.
    find_spec: the config of a stage -> what its data are.
    devices: those to use; None: all.
  Raises UserError for the first stage that cannot be trained.
  """
  plans: dict[str, Plan] = {}
  for name, run in resolve(config).items():
    with errors_of(name):
      mesh = sharding.make_mesh(run["mesh"], devices)
      sharding.check_batch(run["batch"]["size"], mesh)
      spec = find_spec(run)
      suite.check(run["evaluation"])
      program = build_program(run, spec, mesh)
      earlier = {stage: functools.partial(_variables, plan.program.state) for stage, plan in plans.items()}
      initial_arrays(run["init"], _variables(program.state), earlier)
      plans[name] = Plan(run, mesh, program)
  return plans


def build_program(config: Mapping, spec: pipeline.Spec, mesh: jax.sharding.Mesh) -> Program:
  """The config as a program on `mesh`; nothing is allocated or compiled. Raises UserError."""
  recipe = make_recipe(config, spec)
  shapes = shapes_of(spec)
  state = jax.eval_shape(functools.partial(init_state, recipe), shapes)
  check_microbatches(recipe.microbatches, config["batch"]["size"], mesh, state.batch_stats, recipe.model.frozen)
  placed = sharding.shard_state(config["sharding"], mesh, state)
  state = jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, placed)
  step = jax.jit(functools.partial(train_step, recipe, mesh), donate_argnums=0,
                 in_shardings=(placed, sharding.batch_sharding(mesh)),
                 out_shardings=(placed, sharding.replicated(mesh)))
  return Program(recipe, shapes, state, step)


def make_recipe(config: Mapping, spec: pipeline.Spec) -> Recipe:
  """The config turned into modules, terms, optimizer and schedules; raises UserError where it cannot be."""
  model = build_model(config, spec.vocab_size)
  terms = objective.parse_terms(config["objective"])
  objective.check_terms(
      terms, views=config["data"]["views"],
      heads={name: model.modality_of_tower[tower] for name, tower in model.tower_of_head.items()},
      tag_count=len(spec.tag_names), labels=tuple(spec.label_names), batch_size=config["batch"]["size"],
      token_heads=model.token_heads, weighted_heads=model.weighted_heads, head_dims=model.head_dims,
      examples=spec.examples)
  steps, epoch = config["steps"], spec.steps_per_epoch
  params = _parameter_shapes(model, terms, spec)
  optimizer, rates = optim.make_optimizer(config["optimizer"], params, steps, epoch)
  model = dataclasses.replace(model, frozen=_frozen_parts(config["optimizer"].get("frozen", ()), params))
  return Recipe(
      model=model, terms=terms, optimizer=optimizer, schedules=rates,
      weights={name: make_schedule(term.weight, steps, epoch, f"config.objective.{name}.weight")
               for name, term in terms.items()},
      scheduled={name: {key: make_schedule(schedule, steps, epoch, f"config.{where}")
                        for key, (schedule, where) in found.items()}
                 for name, found in objective.schedules(terms).items()},
      update_rule=make_update_rule(config["update_rule"], params, terms),
      decay=make_schedule(config["momentum"]["decay"], steps, epoch, "config.momentum.decay"),
      momentum_update=config["momentum"]["update"],
      augmentations=augment.view_recipes(config["augment"].get("image", "none"),
                                         config["data"]["views"].get("image", 0), "config.augment.image"),
      mean=tuple(config["normalize"]["mean"]),
      std=tuple(config["normalize"]["std"]), seed=config["seed"], examples=spec.examples,
      matrix_impl=config["matrix"]["impl"], matrix_tile=config["matrix"]["tile"],
      microbatches=config["batch"]["microbatches"])


class Window:
  """Metrics since the last report: kept on the device, so that the loop does not wait for them."""

  def __init__(self, steps: int, batch_size: int):
    """`steps`: how many make a report."""
    self._steps, self._batch_size, self._entries = steps, batch_size, []
    self.watch = observe.Stopwatch()

  def add(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Keeps the metrics of `step`."""
    self._entries.append((step, metrics))

  @property
  def full(self) -> bool:
    """Whether a report is due."""
    return bool(self._entries) and self._entries[-1][0] % self._steps == 0

  def restart(self) -> float:
    """Seconds since the window began; the clock starts anew."""
    return self.watch.lap(1, self._batch_size)["seconds_per_step"]

  def summary(self) -> dict[str, float]:
    """Means over the window and its rates; empties it. Waits for the device.

    Raises UserError naming the step and the terms when a loss is not finite.
    """
    entries = [(step, observe.as_floats(metrics)) for step, metrics in self._entries]
    for step, metrics in entries:
      if bad := observe.check_finite(metrics):
        terms = [name for name in bad if name.endswith("/loss")] or bad
        raise UserError(f"step {step}: {', '.join(terms)} not finite; the last checkpoint is intact: "
                        "lower the learning rate, or the weight of that term, and run again")
    means = {name: float(np.mean([metrics[name] for _, metrics in entries])) for name in entries[0][1]}
    rates = self.watch.lap(len(entries), len(entries) * self._batch_size)
    self._entries = []
    return means | rates


def shapes_of(spec: pipeline.Spec, size: int | None = None) -> dict[str, Any]:
  """The global batch as jax.ShapeDtypeStruct, of `size` examples (default: config.batch.size)."""
  batch: dict[str, Any] = {}
  for name, (shape, dtype) in spec.batch.items():
    section, _, key = name.rpartition("/")
    place = batch.setdefault(section, {}) if section else batch
    place[key] = jax.ShapeDtypeStruct((size or shape[0], *shape[1:]), dtype)
  return batch


def _variables(state: TrainState) -> dict[str, Any]:
  return {"params": state.params, "batch_stats": state.batch_stats}


def _saved_variables(workdir: pathlib.Path) -> dict[str, Any]:
  return load_run(workdir)[1]


def _say(text: str) -> None:
  if distributed.is_first():
    print(text)


def _parameter_shapes(model: Any, terms: Any, spec: pipeline.Spec) -> Any:
  batch = shapes_of(spec, 8)
  views = {name: jax.ShapeDtypeStruct(batch[name].shape, "float32" if name == "image" else "int32")
           for name in ("image", "text") if name in batch}
  return jax.eval_shape(functools.partial(init_variables, model, terms), jax.random.key(0), views)["params"]


def _frozen_parts(patterns: Sequence[str], params: Any) -> frozenset[str]:
  """The towers and heads all of whose parameters are frozen."""
  mask = optim.frozen_mask(params, patterns)
  return frozenset(f"{kind}/{name}" for kind in ("towers", "heads") for name, tree in mask[kind].items()
                   if all(jax.tree.leaves(tree)))


def _check_workdir(workdir: pathlib.Path, plans: Mapping[str, Plan],
                   folders: Mapping[str, pathlib.Path]) -> dict[str, int | None]:
  """The step that each stage has reached; UserError where `workdir` holds another run."""
  if "" not in plans and _holds_checkpoints(workdir):
    raise UserError(f"{workdir}: holds a run without stages; give another --workdir")
  if "" in plans and (others := stages_in(workdir)):
    raise UserError(f"{workdir}: holds a run of the stages {', '.join(others)}; give another --workdir")
  steps: dict[str, int | None] = dict.fromkeys(plans)
  for name, plan in plans.items():
    if _holds_checkpoints(folders[name]):
      saved, _, steps[name] = load_run(folders[name])
      check_same_run(saved, plan.config, folders[name])
      if steps[name] > plan.config["steps"]:
        raise UserError(f"{folders[name]}: already at step {steps[name]}, beyond "
                        f"config.steps={plan.config['steps']}")
  return steps


def _holds_checkpoints(workdir: pathlib.Path) -> bool:
  directory = workdir / "checkpoints"
  return distributed.first_says(directory.is_dir() and any(directory.iterdir()))


if __name__ == "__main__":
  from mmcontrast.cli import main
  sys.exit(main(["train", *sys.argv[1:]]))
