"""What a section of a config may hold, asked of the room that reads it.

Towers, heads, terms and the parts of terms, recipes, optimizers, schedules, update rules and evaluators have options by
their name; other sections have the keys of `base_config`. So an option need not be in a config to be known:
`section(("towers", "text"), {"name": "text_transformer"}).options["remat"]` is its default, "none".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmcontrast.registry import REQUIRED, options_of


@dataclasses.dataclass(frozen=True)
class Section:
  """A mapping in a config.

  Attributes:
    options: the keys it may have and their defaults (REQUIRED: none); None: any keys.
    short: the key that a value in place of the mapping is short for: criterion="softmax" is
      criterion=dict(name="softmax"); "" where there is no such form.
    kind: what it is, for messages, such as "a schedule".
    names: whether its keys are names of the user's, so that a new one is given whole.
    fixed: whether its keys are those of `base_config`, and their values of the types they have there.
  """

  options: Mapping[str, Any] | None
  short: str = ""
  kind: str = "a mapping"
  names: bool = False
  fixed: bool = False


def section(path: Sequence[str], value: Any, base: Mapping[str, Any]) -> Section | None:
  """The section at `path`, whose content now is `value`; None where one value stands and no mapping can.

  Args:
    path: keys from the top: ("optimizer", "learning_rate").
    value: what stands there: a mapping, a value that is short for one, or None.
    base: the config of all defaults (`config.base_config`), which says the keys of the other sections.
  """
  path = tuple(path)
  for pattern, room in _ROOMS:
    if pattern[-1:] == ("**",):
      if path[: len(pattern) - 1] == pattern[:-1]:
        return room(value)
    elif len(path) == len(pattern) and all(map(_matches, pattern, path)):
      return room(path, value) if room in _BY_PATH else room(value)
  for key in path:
    base = base.get(key) if isinstance(base, Mapping) else None
  return Section(base, fixed=True) if isinstance(base, Mapping) else None


def schedules(config: Mapping[str, Any]) -> dict[str, Any]:
  """What follows a schedule in a config: "optimizer.learning_rate" -> its number or mapping."""
  found = {}
  for pattern in [pattern for pattern, room in _ROOMS if room is schedule_options]:
    here = {"": config}
    for want in pattern:
      here = {
        f"{path}.{key}".lstrip("."): value[key]
        for path, value in here.items()
        if hasattr(value, "keys")
        for key in (value if want == "*" else (want,) if want in value else ())
      }
    found |= {path: value for path, value in here.items() if value is not None}
  return found


def _matches(want: str, key: str) -> bool:
  return key.startswith("[") if want == "[]" else want in ("*", key)


def schedule_options(value: Any) -> Section:
  """A schedule: a number, or a mapping by its name."""
  from mmcontrast.optimization import schedules

  return Section({"name": REQUIRED} | schedules.options_of(_name(value)), kind="a schedule")


def _name(value: Any, key: str = "name") -> Any:
  return value.get(key) if hasattr(value, "get") else value


def _tower(value: Any) -> Section:
  from mmcontrast.encoders import ENCODERS

  name = _name(value)
  own = options_of(ENCODERS[name]) if name in ENCODERS else {}
  if _name(value, "same_as"):
    return Section({"same_as": REQUIRED, "modality": None}, kind="a tower with the parameters of another")
  return Section({"name": REQUIRED, "modality": None, "reads": (), "same_as": None} | own, kind="a tower")


def _tower_within(value: Any) -> Section:
  """A tower that is an option of another, for which its name is short."""
  found = _tower({"name": _name(value)}).options
  own = {key: default for key, default in found.items() if key not in ("modality", "reads", "same_as")}
  return Section(own, short="name", kind="a tower")


def _head(value: Any) -> Section:
  from mmcontrast.encoders import HEADS

  name = _name(value)
  own = options_of(HEADS[name]) if name in HEADS else {}
  return Section({"name": REQUIRED, "tower": None, "of": None, "shared": {}} | own, kind="a head")


def _term(value: Any) -> Section:
  from mmcontrast.objectives.parse import defaults_of

  defaults, kind = defaults_of(value if hasattr(value, "get") else {})
  return Section(defaults, kind=kind)


def _of_registry(find: Callable[[], Mapping[str, type]], kind: str) -> Callable[[Any], Section]:
  """A room of dataclasses by name, which stands for a mapping of it alone."""

  def room(value: Any) -> Section:
    registry, name = find(), _name(value)
    return Section(
      {"name": REQUIRED} | (options_of(registry[name]) if name in registry else {}), short="name", kind=kind
    )

  return room


def _scores() -> Mapping[str, type]:
  from mmcontrast.objectives.scores import SCORES

  return SCORES


def _targets() -> Mapping[str, type]:
  from mmcontrast.objectives.targets import TARGETS

  return TARGETS


def _criteria() -> Mapping[str, type]:
  from mmcontrast.objectives.criteria import CRITERIA

  return CRITERIA


def _regularizers() -> Mapping[str, type]:
  from mmcontrast.objectives.regularizers import REGULARIZERS

  return REGULARIZERS


def _modules() -> Mapping[str, type]:
  from mmcontrast.objectives.module_term import MODULES

  return MODULES


def _hook(value: Any) -> Section:
  from mmcontrast.stores.epoch_hooks import HOOKS, SHARED

  name = _name(value)
  own = options_of(HOOKS[name]) if name in HOOKS else {}
  return Section({"name": REQUIRED} | SHARED | own, kind="an epoch hook")


def _update_rules() -> Mapping[str, type]:
  from mmcontrast.optimization.update_rules import RULES

  return RULES


def _temperature(value: Any) -> Section:
  from mmcontrast.objectives.temperature import Temperature

  fields = {key: default for key, default in options_of(Temperature).items() if not key.startswith("bias")}
  return Section(fields | {"learned": True}, short="init", kind="a temperature")


def _matryoshka(value: Any) -> Section:
  from mmcontrast.objectives.matryoshka import OPTIONS

  return Section(OPTIONS, short="widths", kind="widths")


def _bias(value: Any) -> Section:
  return Section({"init": 0.0, "learned": True}, short="init", kind="a bias")


def _recipe(path: Sequence[str], value: Any) -> Section:
  from mmcontrast.modalities import MODALITIES, modality_of

  modality, base = MODALITIES.get(modality_of(path[1])), _name(value, "base")
  options = modality.recipe_options(base if isinstance(base, str) else "none") if modality else {}
  return Section({"base": "none"} | options, short="base", kind="a recipe")


def _recipes(value: Any) -> Section:
  from mmcontrast.modalities import MODALITIES

  return Section({view_set: "none" for modality in MODALITIES.values() for view_set in modality.drawn_sets})


def _views(value: Any) -> Section:
  from mmcontrast.modalities import MODALITIES

  return Section(dict.fromkeys(MODALITIES, 0))


def _optimizer(value: Any) -> Section:
  from mmcontrast.optimization import optim

  return Section(optim.options_of(_name(value)), kind="an optimizer")


def _evaluators(value: Any) -> Section:
  from mmcontrast.evaluation.suite import EVALUATORS

  return Section({name: {} for name in EVALUATORS}, kind="evaluators")


def _evaluator(path: Sequence[str], value: Any) -> Section:
  from mmcontrast.evaluation import suite

  return Section(suite.options_of(path[-1]), kind="an evaluator")


def _names(value: Any) -> Section:
  return Section(dict(value.items()) if hasattr(value, "items") else {}, names=True)


def _any(value: Any) -> Section:
  return Section(None)


def _evaluation_set(value: Any) -> Section:
  from mmcontrast.data.evaluation_set import SET_OPTIONS

  return Section(SET_OPTIONS, kind="a set")


def _mixture(value: Any) -> Section:
  from mmcontrast.data.sources import OF_A_MIXTURE

  return Section(OF_A_MIXTURE, kind="a source")


def _known_labels(value: Any) -> Section:
  from mmcontrast.data.known_labels import SHARES

  return Section(SHARES, kind="a label")


_BY_PATH = (_evaluator, _recipe)
"""Rooms whose options depend on where they stand: they are asked with the path, too."""
_ROOMS: tuple[tuple[tuple[str, ...], Callable[..., Section]], ...] = (
  (("towers",), _names),
  (("towers", "*"), _tower),
  (("towers", "*", "of"), _tower_within),
  (("heads",), _names),
  (("heads", "*"), _head),
  (("heads", "*", "shared"), _any),
  (("objective",), _names),
  (("objective", "*"), _term),
  (("objective", "*", "weight"), schedule_options),
  (("objective", "*", "bias"), _bias),
  (("objective", "*", "matryoshka"), _matryoshka),
  (("objective", "*", "temperature"), _temperature),
  (("objective", "*", "temperature", "schedule"), schedule_options),
  (("objective", "*", "score"), _of_registry(_scores, "a score")),
  (("objective", "*", "target"), _of_registry(_targets, "a target")),
  (("objective", "*", "target", "share"), schedule_options),
  (("objective", "*", "target", "labels"), _any),
  (("objective", "*", "criterion"), _of_registry(_criteria, "a criterion")),
  (("objective", "*", "criterion", "gamma"), schedule_options),
  (("objective", "*", "regularizer"), _of_registry(_regularizers, "a regularizer")),
  (("objective", "*", "module"), _of_registry(_modules, "a module")),
  (("objective", "*", "module", "temperature"), schedule_options),
  (("objective", "*", "module", "share"), schedule_options),
  (("objective", "*", "module", "contrast"), schedule_options),
  (("objective", "*", "module", "hardest"), schedule_options),
  (("objective", "*", "module", "teacher_temperature"), schedule_options),
  (("augment", "*"), _recipe),
  (("augment", "*", "[]"), _recipe),
  (("augment",), _recipes),
  (("optimizer",), _optimizer),
  (("optimizer", "learning_rate"), schedule_options),
  (("optimizer", "layer_decay"), _any),
  (("momentum", "decay"), schedule_options),
  (("ema", "decay"), schedule_options),
  (("epoch_hooks",), _names),
  (("epoch_hooks", "*"), _hook),
  (("update_rule",), _of_registry(_update_rules, "an update rule")),
  (("update_rule", "drop_below"), schedule_options),
  (("evaluation", "evaluators"), _evaluators),
  (("evaluation", "evaluators", "*"), _evaluator),
  (("evaluation", "data"), _names),
  (("evaluation", "data", "*"), _evaluation_set),
  (("evaluation", "data", "*", "source"), _any),
  (("data", "views"), _views),
  (("data", "known_labels"), _names),
  (("data", "known_labels", "*"), _known_labels),
  (("data", "mixture"), _names),
  (("data", "mixture", "*"), _mixture),
  (("data", "mixture", "*", "source"), _any),
  (("data", "source", "**"), _any),
  (("data", "captions"), _any),
  (("init", "**"), _any),
)
"""Where in a config which room's options stand; "*" is any key, "[]" a place in a list, "**" anything from there on."""
