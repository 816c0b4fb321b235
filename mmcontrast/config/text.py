"""A config as plain dictionaries, flat, and as the JSON that travels in a checkpoint."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def flatten(config: Mapping, prefix: str = "") -> dict[str, Any]:
  """{"batch.size": 256, ...}: one entry a leaf."""
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping):
      flat.update(flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def to_json(config: Mapping) -> str:
  """The resolved config as sorted, indented JSON: what travels in a checkpoint."""
  return json.dumps(plain(config), indent=1, sort_keys=True) + "\n"


def from_json(text: str) -> dict[str, Any]:
  """Inverse of `to_json`; lists come back as tuples."""
  return _tuples(json.loads(text))


def dictionaries(value: Any) -> Any:
  """`value` with every ConfigDict in it, those in tuples too, as a dictionary; paths and numpy's numbers as JSON's."""
  if hasattr(value, "items"):
    return {key: dictionaries(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return tuple(dictionaries(item) for item in value)
  if isinstance(value, np.generic):
    return value.item()
  return str(value) if isinstance(value, pathlib.PurePath) else value


def plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {key: plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  return value


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
