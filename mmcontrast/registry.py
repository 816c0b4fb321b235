"""Makes what a config names from a table of its kind, with errors a user can act on.

A registry is a table of builders by name: dataclasses, Flax modules, or functions; their parameters are the options
that a config may give. Where options are checked elsewhere (optimizers, schedules, evaluators), `check_options` says
the same of one that there is not.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from mmcontrast.errors import UserError, choose, nearest

REQUIRED = inspect.Parameter.empty
"""In place of the default of an option that has none."""

_WORDS = {
  bool: "True or False",
  int: "a whole number",
  float: "a number",
  str: "a text",
  tuple: "a list",
  types.NoneType: "None",
}


def build(registry: Mapping[str, Callable[..., Any]], config: str | Mapping[str, Any], where: str) -> Any:
  """Makes one of `registry` from its name, or from {"name": ..., options}.

  A builder may list the values that an option can have in `CHOICES` (option -> values).

  Raises:
    UserError, naming `where`: no such name, or none at all; no such option; a value of another type or not among its
      choices; an option that must be given; and what the builder itself refuses, with the option before it.
  """
  if isinstance(config, str):
    name, options = choose(config, registry, where), {}
  elif not hasattr(config, "keys"):
    raise UserError(f"{where}: {config!r} is not a name, nor a dict(name=...); {nearest('', registry)}")
  else:
    options = dict(config.items())
    if "name" not in options:
      raise UserError(f"{where}: 'name' is missing; {nearest('', registry)}")
    name = choose(options.pop("name"), registry, f"{where}.name")
  builder = registry[name]
  _check(builder, name, options, where)
  try:
    return builder(**options)
  except UserError as error:
    raise type(error)(f"{where}.{error}" if _names_option(error, builder) else f"{where}: {error}") from None


def vary(registry: Mapping[str, Any], config: str | Mapping[str, Any], where: str) -> Any:
  """One of a registry of recipes, which are dataclasses, by its name, or {"base": its name, new values of fields}.

  Without "base" it is the one called "none". Raises UserError for a name or a field that there is not.
  """
  if isinstance(config, str):
    return registry[choose(config, registry, where)]
  if not hasattr(config, "keys"):
    raise UserError(f"{where}: {config!r} is neither a recipe's name nor a table of its settings")
  changes = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
  base = registry[choose(changes.pop("base", "none"), registry, f"{where}.base")]
  check_options(changes, [*options_of(type(base)), "base"], where)
  return dataclasses.replace(base, **changes)


def options_of(builder: Callable[..., Any]) -> dict[str, Any]:
  """The options that a builder takes and their defaults (REQUIRED: none)."""
  parameters = inspect.signature(builder).parameters.values()
  options = {p.name: p.default for p in parameters if p.name not in ("parent", "name")}  # of Flax itself
  for field in dataclasses.fields(builder) if dataclasses.is_dataclass(builder) else ():
    if field.name in options and field.default_factory is not dataclasses.MISSING:
      options[field.name] = field.default_factory()
  return options


def check_options(given: Iterable[str], known: Collection[str], where: str, others: Collection[str] = ()) -> None:
  """Raises UserError for an option that is not `known`, naming the nearest of them and of `others`."""
  for key in given:
    if key not in known:
      raise UserError(f"{where}: no option {key!r}; {nearest(key, [*known, *others])}")


def check_values(kind: Callable[..., Any], given: Mapping[str, Any], where: str) -> None:
  """Raises UserError for a value of another type than the parameter of a function or class, or not among its
  `CHOICES`; of options that it has, as `check_options` checked."""
  _check_types(kind, given, where, options_of(kind))


def _check(builder: Callable[..., Any], name: str, options: Mapping[str, Any], where: str) -> None:
  known, kind = options_of(builder), unwrapped(builder)
  check_options(options, known, where)
  for key, default in known.items():
    if default is REQUIRED and key not in options:
      raise UserError(f"{where}.{key}: {name!r} needs it; add {key}=...")
  _check_types(kind, options, where, known)


def _check_types(kind: Callable[..., Any], options: Mapping[str, Any], where: str, defaults: Mapping[str, Any]) -> None:
  """Raises UserError for a value of another type than the parameter of `kind`, or not among its `CHOICES`."""
  allowed, hints = getattr(kind, "CHOICES", {}), _hints(kind)
  for key, value in options.items():
    if key in allowed:
      choose(value, allowed[key], f"{where}.{key}")
    elif not _fits(value, hints.get(key, Any)):
      default = "" if defaults[key] is REQUIRED else f"; the default is {defaults[key]!r}"
      raise UserError(f"{where}.{key}: {value!r} is not {_words(hints[key])}{default}")


def unwrapped(builder: Callable[..., Any]) -> Callable[..., Any]:
  """The class or function that a builder with some options set is of."""
  while isinstance(builder, functools.partial):
    builder = builder.func
  return builder


def _names_option(error: UserError, builder: Callable[..., Any]) -> bool:
  """Whether what a builder says begins with one of its options, as in "margin: -1 is below 0"."""
  return str(error).partition(":")[0].partition(".")[0] in options_of(builder)


def _hints(kind: Callable[..., Any]) -> dict[str, Any]:
  """Option -> its type, of those whose annotation can be read: bases first."""
  owners = reversed(kind.__mro__) if isinstance(kind, type) else (kind,)
  hints = {}
  for owner in owners:
    module = vars(sys.modules.get(owner.__module__, typing))
    hints |= {name: _hint(text, module) for name, text in inspect.get_annotations(owner).items()}
  return hints


def _hint(annotation: Any, module: Mapping[str, Any]) -> Any:
  if not isinstance(annotation, str):
    return annotation
  try:
    return eval(annotation, dict(module))
  except (NameError, AttributeError, TypeError, SyntaxError):  # of a name for type checkers alone
    return Any


def _fits(value: Any, hint: Any) -> bool:
  """Whether a value of a config can be what the type says; True of types that configs cannot hold."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, part) for part in arguments)
  if hint in (types.NoneType, None):
    return value is None
  if hint is bool:
    return isinstance(value, bool)
  if hint is int:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if hint is float:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
  if hint is str:
    return isinstance(value, str)
  if tuple in (hint, origin):
    if not isinstance(value, list | tuple):
      return False
    parts = [arguments[0]] * len(value) if arguments[1:] == (...,) else arguments or [Any] * len(value)
    return len(parts) == len(value) and all(map(_fits, value, parts))
  return True


def _words(hint: Any) -> str:
  """What a type is called in a message: "a number or None"."""
  parts = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
  words = []
  for part in parts:
    arguments = [argument for argument in typing.get_args(part) if argument is not ...]
    of = f" of {len(arguments)}" if typing.get_origin(part) is tuple and ... not in typing.get_args(part) else ""
    words.append(_WORDS.get(typing.get_origin(part) or part, "of that kind") + of)
  return " or ".join(dict.fromkeys(words))
