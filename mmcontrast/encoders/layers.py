"""Parameters of blocks that run in a loop (`scan=True`) and of the same blocks one by one, each from the other.

    blocks_0/mlp/fc1/kernel [D, H], blocks_1/mlp/fc1/kernel, ...  <->  blocks/mlp/fc1/kernel [depth, D, H]

Files of other packages are read and written one by one; a scanned run exchanges weights with them, and
with runs that are not scanned, through these functions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_ONE = re.compile(r"(?P<before>(?:.*/)?blocks)_(?P<layer>\d+)/(?P<after>.+)")
_ALL = re.compile(r"(?P<before>(?:.*/)?blocks)/(?P<after>.+)")


def stack_layers(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The arrays by path, those of "blocks_0/...", "blocks_1/..." as one of "blocks/..."."""
  kept, layers = {}, {}
  for path, array in arrays.items():
    if found := _ONE.fullmatch(path):
      layers.setdefault(f"{found['before']}/{found['after']}", {})[int(found["layer"])] = array
    else:
      kept[path] = array
  return kept | {path: _stack([found[i] for i in sorted(found)]) for path, found in layers.items()}


def unstack_layers(arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The arrays by path, each of "blocks/..." as "blocks_0/...", "blocks_1/...": undoes `stack_layers`."""
  found = {}
  for path, array in arrays.items():
    if match := _ALL.fullmatch(path):
      for i in range(array.shape[0]):
        layer = jax.ShapeDtypeStruct(array.shape[1:], array.dtype) if _is_shape(array) else array[i]
        found[f"{match['before']}_{i}/{match['after']}"] = layer
    else:
      found[path] = array
  return found


def layers_as(wanted: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
  """`arrays` with their blocks in one or one by one, as in `wanted`."""
  if any(_ALL.fullmatch(path) for path in wanted):
    return stack_layers(arrays)
  return unstack_layers(arrays) if any(_ONE.fullmatch(path) for path in wanted) else dict(arrays)


def _is_shape(array: Any) -> bool:
  return isinstance(array, jax.ShapeDtypeStruct)


def _stack(layers: Sequence[Any]) -> Any:
  if _is_shape(layers[0]):
    return jax.ShapeDtypeStruct((len(layers), *layers[0].shape), layers[0].dtype)
  return jnp.stack(layers) if isinstance(layers[0], jax.Array) else np.stack(layers)
