"""Makes what a config names from a table of its kind, with errors a user can act on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose, nearest


def build(registry: Mapping[str, type], config: str | Mapping[str, Any], where: str) -> Any:
  """Makes one of `registry` from a name or {"name": ..., options}."""
  options = {"name": config} if isinstance(config, str) else dict(config.items())
  kind = registry[choose(options.pop("name", None), registry, where)]
  fields = [field.name for field in dataclasses.fields(kind) if field.name not in ("parent", "name")]  # Flax's own
  for option in options:
    if option not in fields:
      raise UserError(f"{where}: no option {option!r}; {nearest(option, fields)}")
  try:
    return kind(**options)
  except UserError as error:
    raise UserError(f"{where}.{error}") from None
