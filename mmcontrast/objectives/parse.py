"""The terms of `config.objective` from their entries (terms.py says how these are written)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.objectives import auxiliary, balance, matryoshka, module_term, regularizers
from mmcontrast.objectives.auxiliary import parse_auxiliary
from mmcontrast.objectives.criteria import build_criterion
from mmcontrast.objectives.edge_checks import check_combination
from mmcontrast.objectives.embedding_path import parse_embedding, parse_names
from mmcontrast.objectives.module_term import parse_module
from mmcontrast.objectives.pairwise import Pairwise
from mmcontrast.objectives.regularizers import parse_regularizer
from mmcontrast.objectives.scores import build_score
from mmcontrast.objectives.targets import build_target
from mmcontrast.objectives.temperature import owner_of, parse_temperature
from mmcontrast.objectives.term import Term
from mmcontrast.registry import REQUIRED, check_options

Terms = dict[str, Term]

# The key that says of what kind an entry is -> what makes a term of (name, entry); without one it is pairwise.
KINDS = {"regularizer": parse_regularizer, "module": parse_module, "auxiliary": parse_auxiliary}
OPTIONS = {"regularizer": regularizers.DEFAULTS, "module": module_term.DEFAULTS, "auxiliary": auxiliary.DEFAULTS}
DIRECTIONS = ("rows", "columns", "both")
NEGATIVES = ("batch", "queue", "batch+queue", "permuted", "combined")


DEFAULTS: dict[str, Any] = {
  "query": REQUIRED,
  "key": REQUIRED,
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
  "matryoshka": (),
  "balance": False,
  "weight": 1.0,
}
"""The options of a pairwise term and their defaults (`REQUIRED`: required)."""


def parse_terms(objective: Mapping[str, Any]) -> Terms:
  """Makes the terms of a config; raises UserError naming term, key and nearest valid choice."""
  objective = {name: _plain(config) for name, config in objective.items()}
  for name, config in objective.items():
    if not isinstance(config, dict):
      raise UserError(f"objective.{name}: a term is a dict with query and key, not {config!r}")
  kinds = {name: _kind(name, config) for name, config in objective.items()}
  temperatures = {name: objective[name].get("temperature") for name, kind in kinds.items() if kind is None}
  terms = {
    name: KINDS[kinds[name]](name, config) if kinds[name] else _parse_pairwise(name, config, temperatures, objective)
    for name, config in objective.items()
  }
  terms = {name: matryoshka.wrapped(term, objective[name].get("matryoshka", ())) for name, term in terms.items()}
  terms = {name: balance.wrapped(term, objective[name].get("balance", False)) for name, term in terms.items()}
  if not terms:
    raise UserError(
      "objective: has no terms; add one such as image_text=dict(query='image[0]/image_joint', key='text[0]/text_joint')"
    )
  return terms


def defaults_of(entry: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
  """The options of an entry of its kind with their defaults, and what to call the kind in a message."""
  for kind, options in OPTIONS.items():
    if kind in entry:
      return options, f"a {kind}"
  return DEFAULTS, "a term"


def _kind(name: str, config: Mapping[str, Any]) -> str | None:
  named = [kind for kind in KINDS if kind in config]
  if len(named) > 1:
    raise UserError(f"objective.{name}: {' and '.join(named)} are two kinds of term; make two entries of it")
  return named[0] if named else None


def _plain(config: Any) -> Any:
  """Mappings of any kind (ConfigDict included) as dictionaries."""
  if hasattr(config, "items"):
    return {key: _plain(value) for key, value in config.items()}
  return tuple(config) if isinstance(config, (list, tuple)) else config


def _parse_pairwise(name: str, config: dict, temperatures: Mapping, objective: Mapping) -> Pairwise:
  where = f"objective.{name}"
  check_options(config, DEFAULTS, where, others=KINDS)
  for key in ("query", "key"):
    if key not in config:
      raise UserError(f"{where}.{key}: must be given, such as 'image[0]/image_joint'")
  options = DEFAULTS | config
  query, key = (parse_names(config[side], f"{where}.{side}") for side in ("query", "key"))
  negatives, length = _negatives(options["negatives"], f"{where}.negatives")
  criterion = build_criterion(options["criterion"], f"{where}.criterion")
  target = build_target(options["target"], f"{where}.target")
  for embedding in target.embeddings:
    parse_embedding(embedding, f"{where}.target")
  owner = owner_of(temperatures, name)
  shared = {k: objective[owner].get(k) for k in ("temperature", "bias")}
  if shared["temperature"] is None:
    shared["temperature"] = criterion.default_temperature
  if owner != name and _by_spread(shared["temperature"]):
    raise UserError(
      f"{where}.temperature: {owner!r} takes its own from the spread of its similarities, which are not those of this "
      "term; give it its own, temperature=dict(spread=..., min=...), or a number"
    )
  if owner != name and "bias" in config:
    raise UserError(f"{where}.bias: belongs to {owner!r}, whose temperature this term shares")
  term = Pairwise(
    name=name,
    query=query,
    key=key,
    score=build_score(options["score"], f"{where}.score"),
    target=target,
    criterion=criterion,
    negatives=negatives,
    negative_keys=parse_names(options["negative_keys"], f"{where}.negative_keys", some=False),
    negative_queries=parse_names(options["negative_queries"], f"{where}.negative_queries", some=False),
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


def _by_spread(temperature: Any) -> bool:
  return isinstance(temperature, Mapping) and temperature.get("spread") is not None


def _negatives(value: str, where: str) -> tuple[str, int]:
  kind, _, length = str(value).partition(":")
  choose(kind, NEGATIVES, where)
  if "queue" not in kind:
    if length:
      raise UserError(f"{where}: {value!r} has a length that {kind!r} does not take; write {kind!r}")
    return kind, 0
  if not length.isdigit() or not int(length):
    raise UserError(f"{where}: {value!r} has no queue length; write it as in '{kind}:16384'")
  return kind, int(length)


def _negative_weights(value: Any, where: str) -> tuple[float, float] | None:
  if value is None:
    return None
  numbers = isinstance(value, tuple) and all(isinstance(weight, int | float) and weight >= 0 for weight in value)
  if not numbers or len(value) != 2 or not any(value):
    raise UserError(
      f"{where}: {value!r} is not a pair of numbers of 0 or more, such as (2.0, 0.5), or (1.0, 0.0) for negatives that "
      "only their own example sees"
    )
  return value


def _prototypes(value: Any, where: str) -> int:
  if not isinstance(value, int) or value < 0:
    raise UserError(f"{where}: {value!r} is not a number of prototypes; write it as in prototypes=256")
  return value
