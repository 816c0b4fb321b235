"""Fields of a config.json of transformers: how activations are called, and which values we compute."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from mmcontrast.errors import UserError, choose

_ACTIVATIONS = {
  "gelu": "gelu",
  "gelu_new": "gelu_tanh",
  "gelu_pytorch_tanh": "gelu_tanh",
  "quick_gelu": "quick_gelu",
  "relu": "relu",
  "silu": "silu",
}  # theirs -> ours


def activation(config: Mapping[str, Any], key: str, where: object) -> str:
  """Our name of the activation that `config[key]` names."""
  return _ACTIVATIONS[choose(config[key], _ACTIVATIONS, f"{where}: {key}")]


def their_activation(name: str) -> str:
  """The inverse: "gelu_tanh" is "gelu_pytorch_tanh"."""
  return {ours: theirs for theirs, ours in _ACTIVATIONS.items()}[name]


def require(config: Mapping[str, Any], where: object, **values: Any) -> None:
  """Raises UserError for a field that is there with another value; one that is not there has the value."""
  for key, value in values.items():
    if config.get(key, value) != value:
      raise UserError(f"{where}: {key} is {config[key]!r}, which no encoder supports; it has to be {value!r}")


@contextlib.contextmanager
def missing_fields(where: pathlib.Path) -> Iterator[None]:
  """A KeyError within is the UserError that the config `where` lacks a field."""
  try:
    yield
  except KeyError as error:
    raise UserError(f"{where}: has no {error}; copy it again from where the weights come from") from None
