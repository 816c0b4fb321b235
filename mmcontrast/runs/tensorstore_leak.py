"""A leak in TensorStore's Python package, which a run of many checkpoints would feel.

Each key and value of what `KvStore.Spec.to_json` returns has one reference too many (seen in 0.1.80, 0.1.84 and
0.1.86) and is never freed; Orbax asks for each array of each save, though all arrays of an item have the same spec.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import tensorstore

_SPECS = 16  # that are remembered: more than those of one save


def mend() -> None:
  """From now on each spec of this process is asked for once; done again, it does nothing."""
  spec = tensorstore.KvStore.Spec
  if not hasattr(spec.to_json, "__wrapped__"):
    spec.to_json = _remembered(spec.to_json)


def _remembered(to_json: Callable[..., Any]) -> Callable[..., Any]:
  known: dict[str, Any] = {}

  @functools.wraps(to_json)
  def remembered(*arguments: Any, **options: Any) -> Any:
    key = repr((arguments, options))
    found = known.get(key)
    if found is None:
      if len(known) >= _SPECS:
        known.clear()
      found = known[key] = to_json(*arguments, **options)
    return copy.deepcopy(found)

  return remembered
