"""A config turned into a program: checked, its shapes known, nothing allocated or compiled."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from mmcontrast.config import options
from mmcontrast.config.stages import errors_of, resolve
from mmcontrast.data import native, pipeline, settings
from mmcontrast.data.order import TooFewExamples
from mmcontrast.encoders.lowering import lowered_for
from mmcontrast.errors import UserError, choose
from mmcontrast.evaluation import suite
from mmcontrast.evaluation.embed import Space
from mmcontrast.inference.kinds import space_of
from mmcontrast.modalities import MODALITIES
from mmcontrast.modalities.views import Inputs, Preparation
from mmcontrast.models.lora import Lora
from mmcontrast.models.model import Model, build_model
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.drawn_pairs import drawn_paths
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.optimization import optim
from mmcontrast.optimization.schedules import make_schedule
from mmcontrast.optimization.update_rules import make_update_rule
from mmcontrast.parallel import sharding
from mmcontrast.parallel.compilation import compiler_options
from mmcontrast.runs.train_state import TrainState
from mmcontrast.stores.epoch_hooks import parse_hooks
from mmcontrast.training.initialization import initial_arrays
from mmcontrast.training.microbatches import check_microbatches
from mmcontrast.training.step import (
  Method,
  init_encoding,
  init_terms,
  prepared,
  shown_in,
  state_of,
  train_step,
  variables_of,
)


class Program(NamedTuple):
  """A config ready to be compiled: `step(state, batch)`, and the shapes of both where they will live."""

  method: Method
  batch: Any
  state: TrainState
  step: Any


class Plan(NamedTuple):
  """A run, or a stage of one, that has been checked: it can be trained, or compiled and read."""

  config: Mapping
  mesh: jax.sharding.Mesh
  program: Program
  spec: pipeline.Spec


def make_plans(
  config: Mapping, find_spec: Callable[[Mapping], pipeline.Spec], devices: Sequence[jax.Device] | None = None
) -> dict[str, Plan]:
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
      run, spec = _fitted(run, find_spec)
      native.check_parts(spec.sizes, sharding.batch_parts(mesh), run["batch"]["microbatches"])
      suite.check(run["evaluation"])
      program = build_program(run, spec, mesh)
      earlier = {stage: functools.partial(variable_shapes, plan.program) for stage, plan in plans.items()}
      initial_arrays(run, variable_shapes(program), earlier)
      plans[name] = Plan(run, mesh, program, spec)
      evaluation = run["evaluation"]
      if evaluation["evaluators"] and evaluation["every_steps"]:
        check_evaluation(plans[name])
  if evaluation["evaluators"]:
    check_evaluation(plans[name])
  return plans


def check_evaluation(plan: Plan) -> Space:
  """What evaluators may ask of the run. Raises UserError where they ask for a node, or a head, that it lacks."""
  space = space_of(plan.config, plan.program.method.model, variable_shapes(plan.program))
  suite.check_space(plan.config["evaluation"], space)
  return space


def _fitted(run: Mapping, find_spec: Callable[[Mapping], pipeline.Spec]) -> tuple[dict[str, Any], pipeline.Spec]:
  """A run with its steps, and what its data are; raises UserError with all of its numbers that do not fit the data."""
  problems = []
  try:
    spec = find_spec(run)
  except TooFewExamples as error:
    if not error.most:
      raise
    problems.append(f"config.batch.size: {error}")
    spec = find_spec({**run, "batch": {**run["batch"], "size": error.most}})
  run = {**run, "steps": _steps(run, spec)}
  for where, schedule in options.schedules(run).items():
    try:
      make_schedule(schedule, run["steps"], spec.steps_per_epoch, f"config.{where}")
    except UserError as error:
      problems.append(str(error))
  if len(problems) > 1:
    count = "an unknown number of" if spec.examples is None else spec.examples
    listed = "; ".join(f"({number}) {problem}" for number, problem in enumerate(problems, 1))
    raise UserError(f"{len(problems)} settings do not fit {count} examples and {run['steps']} steps: {listed}")
  if problems:
    raise UserError(problems[0])
  return run, spec


def _steps(run: Mapping, spec: pipeline.Spec) -> int:
  """config.steps, or those of config.epochs."""
  if not run.get("epochs"):
    return run["steps"]
  if run["steps"]:
    raise UserError(
      f"config.epochs is {run['epochs']} and config.steps {run['steps']}: give one of them, and set the other to 0"
    )
  return max(1, round(run["epochs"] * spec.steps_per_epoch))


def build_program(config: Mapping, spec: pipeline.Spec, mesh: jax.sharding.Mesh) -> Program:
  """The config as a program on `mesh`; nothing is allocated or compiled. Raises UserError."""
  method, variables = _method_and_variables(config, spec)
  shapes = shapes_of(spec)
  state = jax.eval_shape(functools.partial(state_of, method), variables, shapes)
  if config["batch"]["size"] == 1:  # What a module cannot do with one example, it says when it is traced.
    jax.eval_shape(functools.partial(train_step, method, mesh), state, shapes)
  check_microbatches(method.microbatches, config["batch"]["size"], mesh, state.batch_stats, method.model.frozen)
  placed = sharding.shard_state(config["sharding"], mesh, state)
  state = jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), state, placed)
  platform = mesh.devices.flat[0].platform

  def step_on_mesh(state, batch):
    with lowered_for(platform, mesh):
      return train_step(method, mesh, state, batch)

  step_on_mesh.__name__ = "train_step"  # what profiles and compiled programs call it
  step = jax.jit(
    step_on_mesh,
    donate_argnums=0,
    in_shardings=(placed, sharding.batch_sharding(mesh)),
    out_shardings=(placed, sharding.replicated(mesh)),
    compiler_options=compiler_options(platform),
  )
  return Program(method, shapes, state, step)


def make_method(config: Mapping, spec: pipeline.Spec) -> Method:
  """The config turned into modules, terms, optimizer and schedules; raises UserError where it cannot be."""
  return _method_and_variables(config, spec)[0]


def _method_and_variables(config: Mapping, spec: pipeline.Spec) -> tuple[Method, Any]:
  """`make_method`, and the shapes of `step.init_terms`."""
  model = build_model(config, spec.vocab_size)
  terms = objective.parse_terms(config["objective"])
  counts = settings.view_counts(config["data"])
  for name, modality in model.modality_of_tower.items():
    if not counts[modality]:
      raise UserError(
        f"config.towers.{name}: it reads {modality} views, and config.data.views.{modality} is 0; "
        "set it to 1 or more, or leave the tower and its heads out"
      )
  check_terms = functools.partial(
    objective.check_terms,
    terms,
    views=counts,
    heads=model.node_of_head,
    tag_count=len(spec.tag_names),
    labels=spec.label_names,
    token_heads=model.token_heads,
    weighted_heads=model.weighted_heads,
    head_dims=model.head_dims,
    examples=spec.examples,
    made=model.made_by_head,
    towers=model.modality_of_tower,
    reads=model.reads,
    facts=settings.view_facts(config["data"]),
    words=spec.vocab_size,
    token_ids=config["data"]["token_ids"],
  )
  _check_queues(terms, spec.sizes)
  for size in dict.fromkeys((config["batch"]["size"], *spec.sizes)):
    check_terms(batch_size=size)
  _check_drawn(terms, config["batch"]["microbatches"])
  _check_moved(config["update_rule"], config["batch"]["microbatches"])
  steps, epoch = config["steps"], spec.steps_per_epoch
  lora, preparations = Lora(**config["lora"]), make_preparations(config)
  preparations = {name: one.of_words(spec.vocab_size, spec.mask_id) for name, one in preparations.items()}
  variables, spaces = _variable_shapes(model, terms, preparations, spec, lora)
  params, frozen = variables["params"], config["optimizer"].get("frozen", ())
  optimizer, rates = optim.make_optimizer(config["optimizer"], params, steps, epoch)
  model = dataclasses.replace(model, frozen=_frozen_parts(model, frozen, params))
  method = Method(
    model=model,
    terms=terms,
    optimizer=optimizer,
    schedules=rates,
    weights={
      name: make_schedule(term.weight, steps, epoch, f"config.objective.{name}.weight") for name, term in terms.items()
    },
    scheduled={
      name: {key: make_schedule(schedule, steps, epoch, f"config.{where}") for key, (schedule, where) in found.items()}
      for name, found in objective.schedules(terms).items()
    },
    update_rule=make_update_rule(config["update_rule"], params, terms, steps, epoch),
    decay=make_schedule(config["momentum"]["decay"], steps, epoch, "config.momentum.decay", within=(0, 1)),
    momentum_update=config["momentum"]["update"],
    preparations=preparations,
    seed=config["seed"],
    examples=spec.examples,
    matrix_impl=config["matrix"]["impl"],
    matrix_tile=config["matrix"]["tile"],
    matrix_precision=config["matrix"]["precision"],
    microbatches=config["batch"]["microbatches"],
    lora=lora,
    ema=make_schedule(decay, steps, epoch, "config.ema.decay", within=(0, 1))
    if (decay := config["ema"]["decay"])
    else None,
    frozen=optim.frozen_mask(params, frozen),
    hook_tables=_hook_tables(config, terms),
    spaces=spaces,
  )
  return method, variables


def _hook_tables(config: Mapping, terms: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
  """What epoch hooks keep of each example, by their names; raises UserError for one that is a term's name too."""
  tables = {one.name: one.hook.table for one in parse_hooks(config.get("epoch_hooks", {}))
            if getattr(one.hook, "table", {})}  # fmt: skip
  if both := sorted(tables.keys() & terms.keys()):
    raise UserError(f"config.epoch_hooks.{both[0]}: an entry of the objective has this name; give the hook another")
  return tables


def _check_queues(terms: objective.Terms, sizes: Sequence[int]) -> None:
  """Raises UserError where a term has a queue, and batches of different sizes would not fill it in turn."""
  queued = objective.queues(terms) if len(set(sizes)) > 1 else {}
  for name, term in terms.items():
    if term.queued in queued:
      raise UserError(
        f"objective.{name}.negatives: a queue takes batches of one size, and config.data.native.tokens makes batches "
        f"of {' and '.join(map(str, sizes))} examples; set tokens to 0"
      )


def _check_drawn(terms: objective.Terms, microbatches: int) -> None:
  """Raises UserError where a term draws other examples of a batch that is encoded in chunks."""
  for name, term in terms.items():
    if microbatches != 1 and (drawn := drawn_paths(term.embeddings)):
      raise UserError(
        f"config.batch.microbatches={microbatches}: objective.{name} reads {drawn[0]!r}, whose tokens are drawn from "
        "the whole batch, which a chunk does not hold; use microbatches=1"
      )


def _check_moved(update_rule: str | Mapping, microbatches: int) -> None:
  """Raises UserError where the update rule moves views of a batch that is encoded in chunks."""
  name = update_rule if isinstance(update_rule, str) else update_rule.get("name")
  if name == "adversarial" and microbatches != 1:
    raise UserError(
      f"config.batch.microbatches={microbatches}: config.update_rule 'adversarial' moves the views of the whole batch, "
      "which a chunk does not hold; use microbatches=1"
    )


def make_preparations(config: Mapping) -> dict[str, Preparation]:
  """Modality -> how its views are made of a batch, of those with views. Raises UserError."""
  run = {**config, "data": settings.resolve(config["data"])}
  found = {name: modality.preparation(run) for name, modality in settings.shown(run["data"]).items()}
  every = {view_set for modality in MODALITIES.values() for view_set in modality.drawn_sets}
  for view_set in config["augment"]:
    choose(view_set, every, "config.augment")
  count = config["batch"]["microbatches"]
  for name, preparation in found.items():
    if preparation.reads_others and count != 1:
      raise UserError(
        f"config.batch.microbatches={count}: config.augment.{name} mixes examples of the whole batch, which a chunk "
        "does not hold; use microbatches=1, or an augmentation that takes each example alone"
      )
  return found


def shapes_of(spec: pipeline.Spec, size: int | None = None) -> dict[str, Any]:
  """The global batch as jax.ShapeDtypeStruct, of `size` examples (default: config.batch.size)."""
  batch: dict[str, Any] = {}
  for name, (shape, dtype) in spec.batch.items():
    section, _, key = name.rpartition("/")
    place = batch.setdefault(section, {}) if section else batch
    place[key] = jax.ShapeDtypeStruct((size or shape[0], *shape[1:]), dtype)
  return batch


def variable_shapes(program: Program) -> dict[str, Any]:
  """The shapes of what a run encodes with: `step.variables_of` its state."""
  return jax.eval_shape(functools.partial(variables_of, program.method), program.state)


def view_shapes(preparations: Mapping[str, Preparation], batch: Mapping[str, Any]) -> dict[str, Inputs]:
  """The shapes of a batch's sets of views as the model takes them, of the shapes of a batch."""
  return jax.eval_shape(functools.partial(prepared, preparations, train=False), batch)


def _variable_shapes(
  model: Any, terms: Any, preparations: Any, spec: pipeline.Spec, lora: Lora
) -> tuple[Any, dict[str, Any]]:
  """The shapes of `step.init_terms` and of `step.shown_in`, each tower traced once for both."""
  key, views = jax.random.key(0), view_shapes(preparations, shapes_of(spec, 8))
  encoding = jax.eval_shape(functools.partial(init_encoding, model), key, views)
  for modality in MODALITIES.values():
    for view_set in modality.view_sets[1:]:  # `init` has seen the first
      names = [name for name in objective.required_embeddings(terms) if parse_embedding(name).views == view_set]
      try:
        jax.eval_shape(functools.partial(model.embed, names=names, train=False), encoding, views)
      except UserError as error:
        raise modality.check_shapes(error, view_set, views[view_set]) from None
  views = view_shapes(preparations, shapes_of(spec))
  spaces = jax.eval_shape(functools.partial(shown_in, model, terms=terms), encoding, views)
  variables = jax.eval_shape(functools.partial(init_terms, terms, spaces=spaces, lora=lora), key, encoding)
  objective.check_nodes(terms, spaces)
  return variables, spaces


def _frozen_parts(model: Model, patterns: Sequence[str], params: Any) -> frozenset[str]:
  """The towers and heads all of whose parameters, own or shared, are frozen, and that LoRA does not adapt."""
  mask = optim.frozen_mask(params, patterns)
  found = set()
  for kind in ("towers", "heads"):
    for name, tree in mask[kind].items():
      leaves = jax.tree.leaves(
        (tree, mask.get("lora", {}).get(kind, {}).get(name), model.shared_parts(mask, kind, name))
      )
      if leaves and all(leaves):  # what has no parameter, and may have a batch norm, trains
        found.add(f"{kind}/{name}")
  return frozenset(found)
