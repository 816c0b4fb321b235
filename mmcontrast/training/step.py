"""TrainState and the train step: one pure function, jitted once.

    state, metrics = step(state, batch)

Randomness is the example's own seed, for dropout with `fold_in(key(seed), step)`; no
generator state is carried. So an example's views are the same in any part of the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.lowering import lowering
from mmcontrast.errors import choose
from mmcontrast.modalities.views import Inputs, Preparation
from mmcontrast.models.lora import NO_LORA, Lora
from mmcontrast.models.model import Model
from mmcontrast.objectives import terms as objective
from mmcontrast.objectives.drawn_pairs import Drawer, itself
from mmcontrast.objectives.embedding_path import of_momentum
from mmcontrast.objectives.global_matrix import PRECISIONS
from mmcontrast.objectives.presence import taking_part
from mmcontrast.optimization.adversarial import with_moved
from mmcontrast.optimization.update_rules import UpdateRule
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs.train_state import TrainState
from mmcontrast.stores import momentum as momentum_store
from mmcontrast.stores import queue as queue_store
from mmcontrast.stores import table as table_store
from mmcontrast.training.microbatches import encode_in_chunks

Schedule = Callable[[jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Method:
  """What the step is made of, all static: the config turned into objects.

  `preparations`: modality -> how its views are made of the batch, of those with views; `ema` is the decay of the
  average that evaluation uses; `frozen` says of each parameter whether it is; `hook_tables`: epoch hook -> what it
  keeps of each example; `spaces`: the shapes of the embeddings that must be known before the first step (`shown_in`).
  """

  model: Model
  terms: Mapping[str, Any]
  optimizer: optax.GradientTransformation
  schedules: Mapping[str, Schedule]
  weights: Mapping[str, Schedule]
  scheduled: Mapping[str, Mapping[str, Schedule]]
  update_rule: UpdateRule
  decay: Schedule
  momentum_update: str
  preparations: Mapping[str, Preparation]
  seed: int
  examples: int
  matrix_impl: str = "auto"
  matrix_tile: int = 0
  matrix_precision: str = "highest"
  microbatches: int = 1
  lora: Lora = NO_LORA
  ema: Schedule | None = None
  frozen: Any = None
  hook_tables: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  spaces: Mapping[str, Encoded] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    choose(self.momentum_update, ("before_keys", "after_step"), "config.momentum.update")
    choose(self.matrix_precision, PRECISIONS, "config.matrix.precision")

  @property
  def names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the embeddings the terms need: (online, momentum)."""
    names = objective.required_embeddings(self.terms)
    return tuple(n for n in names if not of_momentum(n)), tuple(n for n in names if of_momentum(n))


def init_state(
  method: Method, batch: Mapping[str, jax.Array], given: Mapping[str, jax.Array] | None = None
) -> TrainState:
  """The state before the first step.

  Args:
    method: the run.
    batch: a batch of the right shapes (zeros will do).
    given: values of config.init (`initialization.initial_arrays`), for the momentum branch too.
  """
  key = _first_key(method)
  encoding = init_encoding(method.model, key, prepared(method.preparations, batch, train=False))
  variables = init_terms(method.terms, key, encoding, method.spaces, method.lora)
  return state_of(method, _laid_over(variables, given or {}), batch)


def state_of(method: Method, variables: Any, batch: Mapping[str, jax.Array]) -> TrainState:
  """The state before the first step, of what it encodes with: `init_terms`, perhaps with other values."""
  key, params = _first_key(method), variables["params"]
  _, momentum_names = method.names
  momentum = method.model.branch(variables, momentum_names) if momentum_names else None
  state = TrainState(
    step=jnp.int32(0),
    params=params,
    batch_stats=variables["batch_stats"],
    opt_state=method.optimizer.init(params),
    momentum=jax.tree.map(jnp.copy, momentum),
    queues=_init_queues(method, batch, jax.random.fold_in(key, 1)),
    tables={
      name: table_store.init(method.examples, columns)
      for name, columns in {**objective.tables(method.terms), **method.hook_tables}.items()
    },
    terms=objective.init_states(method.terms, jax.random.fold_in(key, 2), method.spaces),
  )
  return state if method.ema is None else state.replace(ema=jax.tree.map(jnp.copy, variables_of(method, state)))


def _first_key(method: Method) -> jax.Array:
  """The key of all that is drawn before the first step."""
  return jax.random.key(method.seed, impl="rbg")  # a tenth of threefry's compile time for many arrays


def variables_of(method: Method, state: TrainState) -> dict[str, Any]:
  """What a state encodes with after the run: {"params": {"towers", "heads", "terms"}, "batch_stats"}.

  The average where the run keeps one, else the parameters; what LoRA adapted is summed.
  """
  return state.ema or {"params": method.lora.merge(state.params), "batch_stats": state.batch_stats}


def init_encoding(model: Model, key: jax.Array, views: Mapping[str, Inputs]) -> Any:
  """{"params": {"towers", "heads"}, "batch_stats"} before the first step, for views [B, V, ...]."""
  return model.init(jax.random.fold_in(key, 0), {name: of_set.view(0) for name, of_set in views.items()})


def shown_in(model: Model, encoding: Any, views: Mapping[str, Inputs], terms: Mapping[str, Any]) -> dict[str, Encoded]:
  """The embeddings that terms want to know, or whose shapes their parameters, states and queues have, as evaluated.

  It is for its shapes: what a term draws of other examples is the examples themselves.
  """
  names = (*objective.wanted_nodes(terms), *objective.spaces(terms), *objective.queues(terms))
  return model.embed(encoding, views, dict.fromkeys(names), train=False, draw=itself)[0] if names else {}


def init_terms(
  terms: Mapping[str, Any], key: jax.Array, encoding: Any, spaces: Mapping[str, Encoded], lora: Lora = NO_LORA
) -> Any:
  """{"params": {"towers", "heads", "terms"}, "batch_stats"} before the first step: `init_encoding` and what terms of
  `spaces` learn. With `lora` also "lora" among the parameters."""
  own = objective.init_parameters(terms, jax.random.fold_in(key, 2), spaces)
  return {**encoding, "params": lora.init({**encoding["params"], "terms": own}, jax.random.fold_in(key, 3))}


def _laid_over(variables: Any, given: Mapping[str, jax.Array]) -> Any:
  """`variables` with the arrays of `given`, by path, in their places."""

  def pick(path, leaf):
    found = given.get(path_name(path))
    return leaf if found is None else jnp.asarray(found, leaf.dtype)

  return jax.tree_util.tree_map_with_path(pick, variables)


def train_step(
  method: Method, mesh: Mesh | None, state: TrainState, batch: Mapping[str, jax.Array]
) -> tuple[TrainState, dict[str, jax.Array]]:
  """One step on the global batch. Pure in (state, batch).

  Returns:
    (new state, metrics): scalars "loss", "<term>/loss", "<term>/top1", ..., "gradient_norm".
  """
  seen = _see(method, state, batch)
  decay = method.decay(state.step)
  momentum, keys = _momentum_keys(method, mesh, state, seen, decay)
  embed, loss_of = _functions(method, mesh, state, seen, keys)
  found, gradients, rule_metrics = method.update_rule(
    embed, loss_of, state.params, tuple(method.terms), state.step, seen.batch["seed"]
  )
  loss, (metrics, new_rows, new_states), embeddings, stats = found
  params, opt_state = _updated(method, state, gradients)
  if momentum is not None and method.momentum_update == "after_step":
    momentum = _follow(method, momentum, params, decay)
  queues, tables = _stored(method, state, batch, {**jax.lax.stop_gradient(embeddings), **keys}, new_rows)
  metrics = {
    "loss": loss,
    **metrics,
    **rule_metrics,
    "gradient_norm": optax.global_norm(gradients),
    **{name: schedule(state.step) for name, schedule in method.schedules.items()},
  }
  if momentum is not None:
    metrics["momentum_decay"] = decay
  new = TrainState(state.step + 1, params, stats, opt_state, momentum, queues, tables, terms=new_states)
  if method.ema is not None:
    new = new.replace(ema=momentum_store.update(state.ema, variables_of(method, new), method.ema(state.step)))
  return new, metrics


class _Seen(NamedTuple):
  """A batch as the step sees it: its arrays; the views of all of it, None where chunks make their own; what terms are
  told of it; the key of dropout."""

  batch: Mapping[str, jax.Array]
  views: Mapping[str, Inputs] | None
  info: Mapping[str, Any]
  key: jax.Array


def _see(method: Method, state: TrainState, batch: Mapping[str, jax.Array]) -> _Seen:
  key = jax.random.fold_in(jax.random.key(method.seed), state.step)
  views = prepared(method.preparations, batch, train=True) if method.microbatches == 1 else None
  return _Seen(batch, views, _info(batch) | {"views": _facts_of_views(method.preparations, batch, train=True)}, key)


def _momentum_keys(
  method: Method, mesh: Mesh | None, state: TrainState, seen: _Seen, decay: jax.Array
) -> tuple[Any, dict[str, Encoded]]:
  """(the momentum branch with the statistics of this batch, its embeddings); (None, {}) without one."""
  if state.momentum is None:
    return None, {}
  momentum = state.momentum
  if method.momentum_update == "before_keys":
    momentum = _follow(method, momentum, state.params, decay)
  keys, stats = _embed(method, mesh, momentum, seen, method.names[1])
  return {**momentum, "batch_stats": stats}, jax.lax.stop_gradient(keys)


def _functions(
  method: Method, mesh: Mesh | None, state: TrainState, seen: _Seen, keys: Mapping[str, Encoded]
) -> tuple[Callable, Callable]:
  """What the update rule differentiates: parameters -> the online embeddings, and these -> the loss of some terms."""
  weights, scheduled = jax.tree.map(lambda schedule: schedule(state.step), (method.weights, method.scheduled))
  remembered = {name: table_store.read(table, seen.batch["index"]) for name, table in state.tables.items()}

  def embed(params, moved=None, measure=None):
    if method.frozen is not None:  # their gradients are not even computed
      params = jax.tree.map(lambda leaf, still: jax.lax.stop_gradient(leaf) if still else leaf, params, method.frozen)
    variables = {"params": method.lora.merge(params), "batch_stats": state.batch_stats}
    draw = Drawer(method.terms, seen.info, variables["params"]["terms"], scheduled, keys, mesh)
    shown = seen if moved is None else seen._replace(views=with_moved(seen.views, moved, measure))
    return _embed(method, mesh, variables, shown, method.names[0], draw)

  @jax.named_scope("loss")
  def loss_of(embeddings, own, names):
    loss, metrics, new_rows, new_states = objective.evaluate_and_remember(
      {name: method.terms[name] for name in names},
      {**embeddings, **keys},
      seen.info,
      method.lora.merge(own)["terms"],
      state.queues,
      weights,
      mesh=mesh,
      impl=method.matrix_impl,
      tile=method.matrix_tile or lowering().tile,
      precision=method.matrix_precision,
      scheduled=scheduled,
      remembered=remembered,
      states=state.terms,
      step=state.step,
    )
    return loss, (metrics, new_rows, new_states)

  return embed, loss_of


def _updated(method: Method, state: TrainState, gradients: Any) -> tuple[Any, Any]:
  """(parameters, state of the optimizer) after its step; what terms learn is moved back to where it must stay."""
  with jax.named_scope("optimizer"):
    updates, opt_state = method.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
  terms = objective.clamp_after_step(method.terms, params["terms"])
  return {**params, "terms": _still(method, params["terms"], terms)}, opt_state


def _stored(
  method: Method,
  state: TrainState,
  batch: Mapping[str, jax.Array],
  embeddings: Mapping[str, Encoded],
  new_rows: Mapping[str, Mapping[str, jax.Array]],
) -> tuple[dict[str, Any], dict[str, Any]]:
  """(queues, tables) after the batch."""
  pushed = objective.keys_to_push(method.terms, embeddings)
  queues = {name: queue_store.push(queue, pushed[name], _queue_info(batch)) for name, queue in state.queues.items()}
  tables = {
    name: table_store.write(table, batch["index"], new_rows[name], taking_part(batch, method.terms[name].reads))
    if name in method.terms
    else table  # of an epoch hook
    for name, table in state.tables.items()
  }
  return queues, tables


def embed_as_evaluated(
  method: Method, state: TrainState, batch: Mapping[str, jax.Array], names: tuple[str, ...]
) -> dict[str, Encoded]:
  """The embeddings `names` of a batch by the state as it is: no augmentation, no dropout, running statistics."""
  views = prepared(method.preparations, batch, train=False)
  online = {"params": method.lora.merge(state.params), "batch_stats": state.batch_stats}
  found: dict[str, Encoded] = {}
  for variables, momentum in ((online, False), (state.momentum, True)):
    if own := [name for name in names if of_momentum(name) == momentum]:
      found |= method.model.embed(variables, views, own, train=False)[0]
  return found


def _embed(
  method: Method, mesh: Mesh | None, variables: Any, seen: _Seen, names: tuple[str, ...], draw: Drawer | None = None
) -> tuple[dict[str, Encoded], Any]:
  """(the embeddings `names` in train mode, new batch statistics).

  What is drawn is of the whole batch: program.py refuses it with chunks.
  """
  batch, key = seen.batch, seen.key
  if seen.views is not None:
    return method.model.embed(variables, seen.views, names, train=True, key=key, seeds=batch["seed"], draw=draw)

  def encode(variables, part):
    views = prepared(method.preparations, part, train=True)
    return method.model.embed(variables, views, names, train=True, key=key, seeds=part["seed"])[0]

  read = {"seed", *(name for preparation in method.preparations.values() for name in preparation.arrays)}
  needed = {name: batch[name] for name in sorted(read) if name in batch}
  # There are no batch statistics to update: microbatches.check_microbatches.
  return encode_in_chunks(encode, variables, needed, method.microbatches, mesh), variables["batch_stats"]


def prepared(preparations: Mapping[str, Preparation], batch: Mapping[str, jax.Array], train: bool) -> dict[str, Inputs]:
  """Set of views -> what towers read of it, [B, V, ...]."""
  views: dict[str, Inputs] = {}
  for preparation in preparations.values():
    views |= preparation(batch, train)
  return views


def _facts_of_views(
  preparations: Mapping[str, Preparation], batch: Mapping[str, jax.Array], train: bool
) -> dict[str, dict[str, jax.Array]]:
  """ "image[0]" -> fact -> [B, ...]: what config.data.facts asks, of each view."""
  found: dict[str, dict[str, jax.Array]] = {}
  for preparation in preparations.values():
    for name, facts in preparation.facts(batch, train).items():
      for fact, values in facts.items():
        for number in range(values.shape[1]):
          found.setdefault(f"{name}[{number}]", {})[fact] = values[:, number]
  return found


def _info(batch: Mapping[str, Any]) -> dict[str, Any]:
  return {name: batch[name] for name in (*_queue_info(batch), "index", "seed", "weight") if name in batch}


def _queue_info(batch: Mapping[str, Any]) -> dict[str, Any]:
  """What queued keys are remembered by."""
  return {name: batch[name] for name in ("id", "tags", "labels", "valid", "present") if name in batch}


def _init_queues(method: Method, batch: Mapping[str, Any], key: jax.Array) -> dict[str, Any]:
  lengths = objective.queues(method.terms)
  widths = {name: method.spaces[name].pooled.shape[-1] for name in lengths}
  info = jax.tree.map(lambda leaf: (leaf.shape[1:], leaf.dtype), _queue_info(batch))
  return {
    name: queue_store.init(jax.random.fold_in(key, number), length, widths[name], info)
    for number, (name, length) in enumerate(sorted(lengths.items()))
  }


def _still(method: Method, before: Any, after: Any) -> Any:
  """What terms learn, `after` it was moved back to where it must stay; what is frozen as it was, to the bit."""
  if method.frozen is None:
    return after
  return jax.tree.map(lambda still, old, new: old if still else new, method.frozen["terms"], before, after)


def _follow(method: Method, momentum: Any, params: Any, decay: jax.Array) -> Any:
  """The momentum branch after a step towards the parameters."""
  online = method.model.branch({"params": method.lora.merge(params)}, method.names[1])["params"]
  return {**momentum, "params": momentum_store.update(momentum["params"], online, decay)}
