"""Names of parameters: the keys to each in its tree, joined by "/"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax


def path_name(path: Sequence[Any]) -> str:
  """The "/"-joined name of a jax key path."""
  return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def parameter_paths(params: Any) -> list[str]:
  """The names of all parameters, in tree order."""
  return [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
