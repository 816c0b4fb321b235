"""What is computed on the host between epochs, and written into the state: `config.epoch_hooks`.

    c.epoch_hooks = dict(
        clusters=dict(name="kmeans", term="prototypes", embedding="image[0]/image_ssl@momentum", every_epochs=1))

A hook is a frozen dataclass in HOOKS, whose fields are its options. Before the first step of every `every_epochs`-th
epoch, from `first_epoch` on, it is called with

    embed(names) -> Examples   all examples of the set through nodes, the work shared by all processes
    state                      the TrainState, to be read
    key                        of the run's seed, the hook's name and the epoch

and returns arrays that take the place of a term's own (`TrainState.terms`) or of columns of its table, by the index of
the example (`TrainState.tables`). It is a pure function of the three: a run that was killed and goes on from any
checkpoint gets the same arrays, bit for bit, and so do all processes of a run.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcontrast.data.settings import view_counts
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.drawn_pairs import drawn_paths
from mmcontrast.objectives.embedding_path import of_momentum, parse_embedding
from mmcontrast.objectives.term import Run
from mmcontrast.runs.train_state import TrainState
from mmcontrast.stores.epoch_hooks import Scheduled, parse_hooks
from mmcontrast.stores.hook import Examples, Update
from mmcontrast.training.embed_examples import compiled_embed, embed_examples, open_set
from mmcontrast.training.program import Plan, Program
from mmcontrast.training.step import embed_as_evaluated


def check_hooks(plan: Plan, data_dir: str | None = None) -> None:
  """Raises UserError, before anything compiles, where a hook of a run cannot be computed."""
  program, model = plan.program, plan.program.method.model
  momentum, views = program.method.names[1], view_counts(plan.config["data"])
  run = Run(
    model.node_of_head, plan.config["batch"]["size"], made=model.made_by_head, towers=model.modality_of_tower,
    reads=model.reads,
  )  # fmt: skip
  hooks = parse_hooks(plan.config.get("epoch_hooks", {}))
  _check_groups(hooks, plan.config)
  for one in hooks:
    where = f"config.epoch_hooks.{one.name}"
    for path in one.hook.embeddings:
      objective.check_path(path, f"{where}.embedding {path!r}", views, run, bool(momentum))
      head = parse_embedding(path).head
      if drawn_paths([path]):
        raise UserError(f"{where}.embedding: {path!r} is drawn in a training step, and a hook sees each example alone")
      if of_momentum(path):  # that branch has what terms read of it
        choose(head, {parse_embedding(name).head for name in momentum}, f"{where}.embedding {path!r}: head")
      for field in one.hook.TAKES:
        if field not in run.fields(head):
          fitting = [other for other in run.heads if field in run.fields(other)]
          raise UserError(f"{where}.embedding: it takes {field}, which head {head!r} does not give; "
                          f"{nearest(head, fitting)}")  # fmt: skip
    for label in getattr(one.hook, "labels", ()):
      choose(label, plan.spec.label_names, f"{where}.label")
    source = open_set(plan.config, one.set, f"{where}.set", data_dir)
    try:
      one.hook.check(program.state, len(source), not one.set)
    except UserError as error:
      raise UserError(f"{where}.{error}") from None
    _check_widths(one.hook, program, where)


def _check_widths(hook: Any, program: Program, where: str) -> None:
  """Raises UserError where an embedding of a hook has not the width of what the hook makes of it."""
  if not (vectors := getattr(hook, "vectors", {})):
    return
  paths = tuple(dict.fromkeys(vectors.values()))
  embed = functools.partial(embed_as_evaluated, program.method, names=paths)
  shapes = jax.eval_shape(embed, program.state, program.batch)
  for beginning, path in vectors.items():
    width = shapes[path].pooled.shape[-1]
    columns = [name for name in program.state.tables.get(hook.term, {}) if name.startswith(beginning)]
    arrays = program.state.terms.get(hook.term, {}).items()
    kept = [array.shape[-1] for name, array in arrays if name.startswith(beginning)] + [len(columns)] * bool(columns)
    if other := next((one for one in kept if one != width), None):
      of_term = ", ".join(dict.fromkeys(program.method.terms[hook.term].embeddings))
      raise UserError(
        f"{where}: vectors of {path!r} are of {width} numbers, and those that term {hook.term!r} keeps of {other}; "
        f"name what the term reads, {of_term}, or one as wide"
      )


def _check_groups(hooks: Sequence[Scheduled], config: Mapping[str, Any]) -> None:
  """Raises UserError where the groups of which batches are made are not known from the first step on, or twice."""
  grouping = [one for one in hooks if "group" in getattr(one.hook, "table", {})]
  for one in grouping:
    where = f"config.epoch_hooks.{one.name}"
    if one.first_epoch:
      raise UserError(f"{where}.first_epoch: batches are of its groups from the first step on; leave it out")
    if config["data"]["mixture"] or config["data"]["balance"]["label"]:
      other = "mixture" if config["data"]["mixture"] else "balance"
      raise UserError(f"{where}: config.data.{other} makes batches too; leave one of them out")
  if len(grouping) > 1:
    names = " and ".join(one.name for one in grouping)
    raise UserError(f"config.epoch_hooks: batches are of one hook's groups, and {names} make some; leave one out")


class EpochHooks:
  """The hooks of a run, called before each step."""

  def __init__(self, plan: Plan, data_dir: str | None = None):
    self._plan, self._data_dir, self._last = plan, data_dir, None
    self._hooks = parse_hooks(plan.config.get("epoch_hooks", {}))
    self._functions: dict[tuple[str, ...], Callable[..., Any]] = {}

  def __call__(
    self, state: TrainState, steps: int, doing: Callable[[str], object], say: Callable[[str], object]
  ) -> TrainState:
    """The state before step `steps` + 1, with what the hooks write that are due; once for a step."""
    if self._last == steps:
      return state
    self._last = steps
    for one in self._hooks:
      if one.is_due(steps, self._plan.spec.steps_per_epoch):
        doing(f"epoch hook {one.name}")
        update = self._run(one, state, steps // self._plan.spec.steps_per_epoch, doing)
        state = written(state, update, f"config.epoch_hooks.{one.name}")
        shown = "".join(f", {key} {value:,g}" for key, value in update.shown.items())
        say(f"epoch hook {one.name} before step {steps + 1}{shown}")
    return state

  def groups(self, state: TrainState) -> np.ndarray | None:
    """The group of each example [E], below 0 of those in none, that a hook keeps whose groups make batches; None
    without such a hook. To be called once what is due has run."""
    for one in self._hooks:
      if "group" in getattr(one.hook, "table", {}):
        column = state.tables[one.name]["group"]
        whole = multihost_utils.process_allgather(column, tiled=True) if jax.process_count() > 1 else column
        return np.asarray(whole)[: self._plan.spec.examples].astype(np.int64)
    return None

  def _run(self, one: Scheduled, state: TrainState, epoch: int, doing: Callable[[str], object]) -> Update:
    source = open_set(self._plan.config, one.set, f"config.epoch_hooks.{one.name}.set", self._data_dir)
    key = jax.random.fold_in(jax.random.key(self._plan.config["seed"]), zlib.crc32(one.name.encode()))

    def embed(names: Sequence[str]) -> Examples:
      if (names := tuple(names)) not in self._functions:
        self._functions[names] = compiled_embed(self._plan, names)
      return embed_examples(self._plan, state, source, self._functions[names], doing)

    update = one.hook(embed, state, jax.random.fold_in(key, epoch))
    tables = {**update.tables, **({one.name: update.own} if update.own else {})}
    update = Update(*jax.tree.map(np.asarray, (dict(update.terms), tables)), dict(update.shown))
    if jax.process_count() > 1:  # equal to the last bit, whatever machines the others are
      arrays = multihost_utils.broadcast_one_to_all((update.terms, update.tables))
      update = update._replace(terms=arrays[0], tables=arrays[1])
    return update


def written(state: TrainState, update: Update, where: str) -> TrainState:
  """The state with what a hook gives, where it lives; raises UserError for what the state has no place for, and for
  numbers that are not finite."""
  terms = {name: dict(arrays) for name, arrays in state.terms.items()}
  tables = {name: dict(columns) for name, columns in state.tables.items()}
  for kind, new, old in (("state", update.terms, terms), ("table", update.tables, tables)):
    for term, arrays in new.items():
      for name, value in arrays.items():
        place = f"{where}: gives {name!r} for the {kind} of term {term!r}"
        if name not in old.get(term, {}):
          raise UserError(f"{place}, which has {', '.join(old.get(term, {})) or 'none'}")
        if not np.isfinite(value).all():
          raise UserError(f"{place}, and not all of it is finite; look at the learning rate")
        old[term][name] = _placed(old[term][name], value, kind == "table", place)
  return state.replace(terms=terms, tables=tables)


def _placed(old: jax.Array, value: np.ndarray, of_examples: bool, place: str) -> jax.Array:
  value = np.asarray(value, old.dtype)
  fits = value.ndim == 1 and len(old) - len(value) >= 0 if of_examples else value.shape == old.shape
  if not fits:
    raise UserError(f"{place} of shape {list(value.shape)}, where {list(old.shape)} belongs")
  if of_examples:  # a table is as long as devices can share it
    value = np.pad(value, (0, len(old) - len(value)))
  return jax.make_array_from_callback(value.shape, old.sharding, lambda part: value[part])
