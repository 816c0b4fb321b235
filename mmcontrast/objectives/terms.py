"""Terms: the weighted edges of the method graph, from their config to their sum.

    objective = dict(
        image_text=dict(
            query="image[0]/image_joint", key="text[0]/text_joint",  # or lists of them
            score="cosine", target="identity", criterion="softmax",  # or dict(name=..., ...)
            negatives="batch",       # "queue:K": own key and queue (MoCo); "batch+queue:K" (ALBEF)
            negative_keys=(),        # more keys for every query, positives of none: hard negatives
            negative_queries=(),     # and more queries for every key
            negative_weights=None,   # (w, v): a hard negative counts w times for its own example, v times for others
            token_keys=False,        # keys are of a token head, and each token is a key of its own
            prototypes=0,            # so many learned vectors that every anchor sees beside the others
            direction="both",        # "rows" (each query chooses a key), "columns", or their mean
            # or 0.1, or another term's name, or dict(schedule=dict(name="cosine", init=0.2, end=0.05))
            temperature=dict(init=0.07, learned=True, min=0.01),
            bias=None, weight=1.0))

A list of queries or keys stacks the views of each example (K captions an image); the same list on
both sides contrasts the views with each other, each embedding leaving itself out (NT-Xent, SupCon).
A queue holds keys; with direction "columns", where keys choose, it holds queries. Prototypes are
negatives, but under target same_label prototype k is a positive of class k.
A score of more than two modalities (gram_volume, multilinear) makes one column of an example's keys;
`negatives="permuted"` and "combined" are then tuples of different examples' keys (tuple_negatives.py).

An entry with "regularizer" asks something of embeddings themselves (regularizers.py).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.comparison import Comparison, LossMatrix
from mmcontrast.objectives.compositional import Compositional
from mmcontrast.objectives.criteria import Criterion, build_criterion
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.pairwise import pairwise
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.regularizers import Regularizer, parse_regularizer, regularize
from mmcontrast.objectives.score import Score, normalize
from mmcontrast.objectives.scores import build_score
from mmcontrast.objectives.sides import AXES, SIDES
from mmcontrast.objectives.targets import Target, Teacher, build_target
from mmcontrast.objectives.temperature import Temperature, parse_temperature, share
from mmcontrast.objectives.term_checks import check_combination, check_terms

__all__ = [
  "Term",
  "Terms",
  "check_terms",
  "clamp_after_step",
  "comparisons",
  "evaluate",
  "evaluate_and_remember",
  "init_parameters",
  "keys_to_push",
  "parse_terms",
  "prototype_spaces",
  "queues",
  "required_embeddings",
  "schedules",
  "tables",
]

DIRECTIONS = ("rows", "columns", "both")
NEGATIVES = ("batch", "queue", "batch+queue", "permuted", "combined")


def _join(score: Score, *keys: jax.Array) -> jax.Array:
  return score.join([score.prepare(key) for key in keys])


@dataclass(frozen=True)
class Term:
  """One weighted edge between embeddings; `temperature_of` names the term that owns its own."""

  name: str
  query: tuple[str, ...]
  key: tuple[str, ...]
  score: Score
  target: Target
  criterion: Criterion
  negatives: str
  negative_keys: tuple[str, ...]
  negative_queries: tuple[str, ...]
  negative_weights: tuple[float, float] | None
  token_keys: bool
  prototypes: int
  queue_length: int
  direction: str
  temperature: Temperature
  temperature_of: str
  weight: Any

  @property
  def reads(self) -> tuple[str, ...]:
    """The embeddings without which an example is of no use to the term."""
    return (*self.query, *self.key, *self.target.embeddings)

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (*self.query, *self.key, *self.negative_keys, *self.negative_queries, *self.target.embeddings)

  @property
  def compares(self) -> Comparison | None:
    """What the term compares, and by which score; of a kind of term that compares nothing, None."""
    return Comparison(self.name, self.query, self.key, self.score)

  def logit_scale(self, parameters: Mapping[str, Any]) -> tuple[float, float | None] | None:
    """(scale, bias or None) of its logits, from what all terms have learned; None where a schedule says it."""
    if self.temperature.schedule is not None:
      return None
    own = parameters.get(self.temperature_of, {})
    own = self.temperature.clip(own) if self.temperature.clamp == "forward" else own
    # In double precision, so that the logarithm again of this number is the same float32.
    scale = math.exp(own["log_scale"]) if "log_scale" in own else float(self.temperature.scale(own))
    bias = self.temperature.offset(own)
    return scale, None if bias is None else float(bias)

  def after_step(self, parameters: Mapping[str, jax.Array]) -> Mapping[str, jax.Array]:
    """What the term has learned, after the optimizer's step: moved back within its bounds."""
    return self.temperature.clip(parameters) if self.temperature.clamp == "after_step" else parameters

  def matrices(self, embeddings: Mapping[str, Any], size: int) -> list[LossMatrix]:
    """The matrices that its loss goes over, from the shapes of embeddings and of the global batch."""
    query, key, keys = embeddings[self.query[0]], embeddings[self.key[0]], len(self.key)
    if self.score.joins:
      key, keys = jax.eval_shape(partial(_join, self.score), *map(embeddings.get, self.key)), 1
    dim = max(math.prod(x.shape[1:]) for x in (key, *map(embeddings.get, (*self.key, *self.target.embeddings))))
    cells = self.score.cells(*(jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in (query, key)))
    rows, columns, queue = size * len(self.query), size * keys, self.queue_length
    columns *= key.shape[1] if self.token_keys else 1
    kind = "permuted" if self.negatives == "permuted" else "batch"  # combined: parts of this shape
    shapes = {} if self.negatives == "queue" else {kind: (rows, columns)}
    shapes |= {"hard negative keys": (rows, size * len(self.negative_keys))} if self.negative_keys else {}
    shapes |= {"hard negative queries": (size * len(self.negative_queries), columns)} if self.negative_queries else {}
    more = {"prototypes": self.prototypes, "queue": queue}
    for kind, count in more.items():
      if count:
        shapes[kind] = (count, columns) if self.direction == "columns" else (rows, count)
    return [LossMatrix(*shape, kind, dim, cells) for kind, shape in shapes.items()]

  @property
  def queued(self) -> str | None:
    """The embedding whose queue the anchors also see; None without a queue."""
    if not self.queue_length:
      return None
    return self.query[0] if self.direction == "columns" else self.key[0]


Terms = dict[str, Term | Regularizer]

DEFAULTS: dict[str, Any] = {
  "query": inspect.Parameter.empty,
  "key": inspect.Parameter.empty,
  "score": "cosine",
  "target": "identity",
  "criterion": "softmax",
  "negatives": "batch",
  "negative_keys": (),
  "negative_queries": (),
  "negative_weights": None,
  "token_keys": False,
  "prototypes": 0,
  "direction": "rows",
  "temperature": None,  # the criterion's own
  "bias": None,
  "weight": 1.0,
}
"""The options of a term and their defaults (`inspect.Parameter.empty`: required)."""


def parse_terms(objective: Mapping[str, Any]) -> Terms:
  """Makes the terms of a config; raises UserError naming term, key and nearest valid choice."""
  objective = {name: _plain(config) for name, config in objective.items()}
  for name, config in objective.items():
    if not isinstance(config, dict):
      raise UserError(f"objective.{name}: a term is a dict with query and key, not {config!r}")
  temperatures = {
    name: config.get("temperature") for name, config in objective.items() if "regularizer" not in config
  }
  terms = {
    name: parse_regularizer(name, config)
    if "regularizer" in config
    else _parse(name, config, temperatures, objective)
    for name, config in objective.items()
  }
  if not terms:
    raise UserError(
      "objective: has no terms; add one such as "
      "image_text=dict(query='image[0]/image_joint', key='text[0]/text_joint')"
    )
  queues(terms)
  return terms


def _plain(config: Any) -> Any:
  """Mappings of any kind (ConfigDict included) as dictionaries."""
  if hasattr(config, "items"):
    return {key: _plain(value) for key, value in config.items()}
  return tuple(config) if isinstance(config, (list, tuple)) else config


def _parse(name: str, config: dict, temperatures: Mapping, objective: Mapping) -> Term:
  where = f"objective.{name}"
  for key in config:
    if key not in DEFAULTS:
      raise UserError(f"{where}: no key {key!r}; {nearest(key, (*DEFAULTS, 'regularizer'))}")
  for key in ("query", "key"):
    if key not in config:
      raise UserError(f"{where}.{key}: must be given, such as 'image[0]/image_joint'")
  options = DEFAULTS | config
  query, key = (_names(config[side], f"{where}.{side}") for side in ("query", "key"))
  negatives, length = _negatives(options["negatives"], f"{where}.negatives")
  criterion = build_criterion(options["criterion"], f"{where}.criterion")
  target = build_target(options["target"], f"{where}.target")
  for embedding in target.embeddings:
    parse_embedding(embedding, f"{where}.target")
  owner = share(temperatures, name)
  shared = {k: objective[owner].get(k) for k in ("temperature", "bias")}
  if shared["temperature"] is None:
    shared["temperature"] = criterion.default_temperature
  if owner != name and "bias" in config:
    raise UserError(f"{where}.bias: belongs to {owner!r}, whose temperature this term shares")
  term = Term(
    name=name,
    query=query,
    key=key,
    score=build_score(options["score"], f"{where}.score"),
    target=target,
    criterion=criterion,
    negatives=negatives,
    negative_keys=_names(options["negative_keys"], f"{where}.negative_keys", some=False),
    negative_queries=_names(options["negative_queries"], f"{where}.negative_queries", some=False),
    negative_weights=_negative_weights(options["negative_weights"], f"{where}.negative_weights"),
    prototypes=_prototypes(options["prototypes"], f"{where}.prototypes"),
    token_keys=bool(options["token_keys"]),
    queue_length=length,
    direction=choose(options["direction"], DIRECTIONS, f"{where}.direction"),
    temperature=parse_temperature(shared["temperature"], shared["bias"], f"objective.{owner}"),
    temperature_of=owner,
    weight=options["weight"],
  )
  check_combination(term, where)
  return term


def _names(given: Any, where: str, some: bool = True) -> tuple[str, ...]:
  names = (given,) if isinstance(given, str) else tuple(given)
  for name in names:
    parse_embedding(name, where)
  if (some and not names) or len(set(names)) < len(names):
    raise UserError(f"{where}: name one or more different embeddings, not {list(names)}")
  return names


def _negatives(given: str, where: str) -> tuple[str, int]:
  kind, _, length = str(given).partition(":")
  choose(kind, NEGATIVES, where)
  if "queue" not in kind:
    if length:
      raise UserError(f"{where}: {given!r} has a length that {kind!r} does not take; write {kind!r}")
    return kind, 0
  if not length.isdigit() or not int(length):
    raise UserError(f"{where}: {given!r} has no queue length; write it as in '{kind}:16384'")
  return kind, int(length)


def _negative_weights(given: Any, where: str) -> tuple[float, float] | None:
  if given is None:
    return None
  if not isinstance(given, tuple) or len(given) != 2 or not all(weight > 0 for weight in given):
    raise UserError(f"{where}: {given!r} is not a pair of numbers above 0, such as (2.0, 0.5)")
  return given


def _prototypes(given: Any, where: str) -> int:
  if not isinstance(given, int) or given < 0:
    raise UserError(f"{where}: {given!r} is not a number of prototypes; write it as in prototypes=256")
  return given


def _compared(terms: Terms) -> list[Term]:
  """The terms, without the regularizers."""
  return [term for term in terms.values() if isinstance(term, Term)]


def required_embeddings(terms: Terms) -> tuple[str, ...]:
  """Every embedding the terms read, once, in order of first use."""
  return tuple(dict.fromkeys(name for term in terms.values() for name in term.embeddings))


def queues(terms: Terms) -> dict[str, int]:
  """Embedding -> length of its queue, shared by all terms that queue it."""
  found: dict[str, int] = {}
  for term in _compared(terms):
    if term.queued and found.setdefault(term.queued, term.queue_length) != term.queue_length:
      raise UserError(
        f"objective.{term.name}.negatives: the queue of {term.queued!r} has length "
        f"{found[term.queued]} in another term; use one length for one embedding"
      )
  return found


def tables(terms: Terms) -> dict[str, dict[str, float]]:
  """Term -> what it remembers of each example (stores.table): name -> the value of one not seen yet."""
  return {
    term.name: {SIDES[axis]: term.criterion.unseen for axis in AXES[term.direction]}
    for term in _compared(terms)
    if isinstance(term.criterion, Compositional)
  }


def schedules(terms: Terms) -> dict[str, dict[str, tuple[Any, str]]]:
  """Term -> its numbers that follow a schedule, weight aside: name -> (schedule, where it is configured)."""
  found: dict[str, dict[str, tuple[Any, str]]] = {}
  for term in _compared(terms):
    own = {}
    if term.temperature.schedule is not None:
      own["temperature"] = (term.temperature.schedule, f"objective.{term.temperature_of}.temperature.schedule")
    if isinstance(term.criterion, Compositional):
      own["gamma"] = (term.criterion.gamma, f"objective.{term.name}.criterion.gamma")
    if isinstance(term.target, Teacher) and not isinstance(term.target.share, (int, float)):
      own["share"] = (term.target.share, f"objective.{term.name}.target.share")
    if own:
      found[term.name] = own
  return found


def comparisons(terms: Terms) -> list[Comparison]:
  """What terms compare, of those that compare something, in order."""
  return [found for term in terms.values() if (found := term.compares)]


def logits_between(objective: Mapping[str, Any], parameters: Mapping[str, Any], heads: Collection[str]
                   ) -> tuple[float | None, float | None]:
  """(scale, bias) of the first term of a config that compares two heads, of what all terms have learned.

  (None, None) where no term compares them, or a schedule says the scale; the bias is None where there is none.
  """
  for term in parse_terms(objective).values() if objective and len(set(heads)) == 2 else ():
    compared = term.compares
    sides = {parse_embedding(name).head for name in (*compared.query, *compared.key)} if compared else set()
    if sides == set(heads) and (logits := term.logit_scale(parameters)):
      return logits
  return None, None


def prototype_spaces(terms: Terms) -> tuple[str, ...]:
  """The embeddings, one of each term with prototypes, whose length these have."""
  return tuple(dict.fromkeys(term.query[0] for term in _compared(terms) if term.prototypes))


def init_parameters(
  terms: Terms, key: jax.Array | None = None, widths: Mapping[str, int] | None = None
) -> dict[str, dict[str, jax.Array]]:
  """What terms learn, float32: term -> {"log_scale"|"tau", "bias", "prototypes" [K, D]}.

  Args:
    key, widths: a PRNG key, and embedding -> D of `prototype_spaces`; only terms with prototypes need them.
  """
  found = {}
  for number, term in enumerate(_compared(terms)):
    own = term.temperature.parameters() if term.temperature_of == term.name else {}
    if term.prototypes:
      shape = (term.prototypes, widths[term.query[0]])
      own["prototypes"] = normalize(jax.random.normal(jax.random.fold_in(key, number), shape, jnp.float32))
    if own:
      found[term.name] = own
  return found


def clamp_after_step(terms: Terms, parameters: Mapping[str, Any]) -> dict[str, Any]:
  """Moves the learned temperatures that ask for it back within their bounds."""
  return {name: terms[name].after_step(own) for name, own in parameters.items()}


def keys_to_push(terms: Terms, embeddings: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Queue name -> its new keys [N, D], prepared as the term's score wants them (unit float32)."""
  return {
    term.queued: jax.lax.stop_gradient(term.score.prepare(embeddings[term.queued]))
    for term in _compared(terms)
    if term.queued
  }


def _number(value: Any, where: str, argument: str) -> float:
  """A number of a config that is not given now; raises UserError when it follows a schedule."""
  if hasattr(value, "keys"):
    raise UserError(f"{where}: follows the schedule {value.get('name')!r}; give its value now in {argument}")
  return value


def evaluate(*arguments: Any, **options: Any) -> tuple[jax.Array, dict[str, jax.Array]]:
  """`evaluate_and_remember` of terms that remember nothing: (loss, metrics)."""
  return evaluate_and_remember(*arguments, **options)[:2]


def evaluate_and_remember(
  terms: Terms,
  embeddings: Mapping[str, jax.Array],
  info: Mapping[str, Any],
  parameters: Mapping[str, Any],
  queues: Mapping[str, Any],
  weights: Mapping[str, Any],
  *,
  mesh: jax.sharding.Mesh | None = None,
  impl: str = "auto",
  tile: int = 512,
  scheduled: Mapping[str, Mapping[str, Any]] | None = None,
  remembered: Mapping[str, Mapping[str, jax.Array]] | None = None,
) -> tuple[jax.Array, dict[str, jax.Array], dict[str, dict[str, jax.Array]]]:
  """The weighted sum of all terms over the global batch.

  Args:
    embeddings: name -> [N, D] (scores of tokens: [N, L, D]), of any float type, not normalised.
    info: what targets read ("id" [N], "tags" [N, T], "labels" {name: [N]}) and "valid" bool [N];
      examples that are not valid are neither anchors, positives nor negatives, and not counted.
      "present" {modality: bool [N]}: an example that lacks a modality is not valid in the terms
      that read it.
      "weight" [N] >= 0, if there: of each anchor in the mean over anchors (metrics are unweighted).
    parameters: what the terms learn, as from `init_parameters`.
    queues: embedding -> queue (stores.queue); what it does not know cannot be a positive.
    weights: term -> its weight now; of a term that is not there, the one of its config, which must be a number.
    mesh, impl, tile: how the matrix is computed (global_matrix.reduce_tiles).
    scheduled: term -> the values now of its `schedules`; those that are numbers need not be there.
    remembered: term -> the rows [N] of its table (`tables`) for the examples of the batch.

  Returns:
    (loss, metrics, new rows of the tables). Metrics are "<term>/loss" (unweighted), "/weight",
    "/temperature", "/anchors" (how many of the batch are there and have a positive), "/top1" (share of
    those whose best positive beats every negative), "/positive" and "/negative" (mean scores), and what
    is scheduled ("/gamma"); of a regularizer the first two, and "/anchors" (how many examples take
    part) where some may be missing.
  """
  total, metrics, remember = jnp.zeros(()), {}, {}
  for name, term in terms.items():
    now, how = dict((scheduled or {}).get(name, {})), {"mesh": mesh, "impl": impl, "tile": tile}
    for key, (schedule, where) in schedules({name: term}).get(name, {}).items():
      if key not in now:
        now[key] = _number(schedule, where, "`scheduled`")
    if isinstance(term, Regularizer):
      loss, found, rows = regularize(term, embeddings, info, **how), {}, {}
      if (valid := taking_part(info, term.embeddings)) is not None:
        found["anchors"] = jnp.sum(valid, dtype=jnp.float32)
    else:
      own = {**parameters.get(term.temperature_of, {}), **parameters.get(name, {}), **now}
      rows = (remembered or {}).get(name, {})
      loss, found, rows = pairwise(term, embeddings, info, own, queues.get(term.queued), rows, **how)
    weight = weights[name] if name in weights else _number(term.weight, f"objective.{name}.weight", "`weights`")
    total = total + weight * loss
    found |= {"loss": loss, "weight": weight, **now}
    if rows:
      remember[name] = rows
    metrics |= {
      f"{name}/{key}": jax.lax.stop_gradient(jnp.asarray(value)) for key, value in found.items()
    }
  return total, metrics, remember
