"""Builds a module from a config and the table of its kind, with errors a user can act on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from flax import linen as nn

from mmcontrast.errors import UserError, choose

DTYPES = ("float32", "bfloat16", "float16", "float64")


def options_of(builder: Callable[..., nn.Module]) -> dict[str, Any]:
  """The options a builder takes and their defaults (`inspect.Parameter.empty`: required)."""
  parameters = inspect.signature(builder).parameters.values()
  return {p.name: p.default for p in parameters if p.name not in ("parent", "name")}


def build(table: Mapping[str, Callable[..., nn.Module]], config: Mapping[str, Any], where: str) -> nn.Module:
  """Builds the module `config["name"]` names, with the rest of the config as its options.

  Args:
    table: builders by name; a module class may list allowed values in `CHOICES`.
    config: "name" and options.
    where: path of the config, for the error message, such as "towers.image".

  Raises:
    UserError: the name, an option or an option's value is unknown, or one is missing.
  """
  options = dict(config)
  if "name" not in options:
    raise UserError(f"{where}: 'name' is missing; choose one of {', '.join(sorted(table))}")
  name = choose(options.pop("name"), table, f"{where}.name")
  builder = table[name]
  known = options_of(builder)
  for key in options:
    choose(key, known, f"{where} ({name})")
  for key, default in known.items():
    if default is inspect.Parameter.empty and key not in options:
      raise UserError(f"{where} ({name}): option {key!r} is required; add {where}.{key}=...")
  module = builder.func if isinstance(builder, functools.partial) else builder
  for key, choices in getattr(module, "CHOICES", {}).items():
    if key in options:
      choose(options[key], choices, f"{where}.{key}")
  try:
    return builder(**options)
  except UserError as error:
    raise UserError(f"{where} ({name}): {error}") from None
