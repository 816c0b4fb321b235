"""FIFO queues of past keys and of what is known about them (He et al. 2020, MoCo).

A queue is a dictionary: "keys" [K, D] float32 unit rows, "pointer" int32 [] (where the next batch
goes), and one [K, ...] array for each piece of information (tags, id, valid) its terms read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError

Queue = dict[str, Any]


def init(key: jax.Array, length: int, dim: int, info: Mapping[str, Any]) -> Queue:
  """A queue of `length` random unit keys about which nothing is known.

  Args:
    key: PRNG key.
    length: K, a multiple of the global batch.
    dim: D.
    info: name -> (shape of one entry, dtype), or a mapping of such (labels). Signed integers
      start at -1 (an id of nobody), booleans at True (random keys are negatives, as in MoCo),
      others (tags) at 0.
  """
  keys = jax.random.normal(key, (length, dim), jnp.float32)

  def blank(entry: Any) -> Any:
    if isinstance(entry, Mapping):
      return {name: blank(value) for name, value in entry.items()}
    shape, dtype = entry[0], jnp.dtype(entry[1])
    start = -1 if jnp.issubdtype(dtype, jnp.signedinteger) else dtype == jnp.bool_
    return jnp.full((length, *shape), start, dtype)

  return {
    "keys": keys / jnp.linalg.norm(keys, axis=1, keepdims=True),
    "pointer": jnp.zeros((), jnp.int32),
    **blank(info),
  }


def push(queue: Queue, keys: jax.Array, info: Mapping[str, jax.Array]) -> Queue:
  """Overwrites the oldest N entries by `keys` [N, D] and their `info`; the pointer wraps.

  Only the information the queue was made with is stored. No gradient flows into the queue.
  """
  length, count = queue["keys"].shape[0], keys.shape[0]
  if length % count:
    raise UserError(
      f"queue: its length {length} is not a multiple of the global batch {count}; "
      f"use {max(1, round(length / count)) * count}"
    )
  pointer = queue["pointer"]

  def write(old: jax.Array, new: jax.Array) -> jax.Array:
    new = jax.lax.stop_gradient(new).astype(old.dtype)
    return jax.lax.dynamic_update_slice_in_dim(old, new, pointer, 0)

  stored = {name: value for name, value in queue.items() if name != "pointer"}
  given = {"keys": keys, **info}
  pushed = jax.tree.map(write, stored, {name: given[name] for name in stored})
  return {**pushed, "pointer": (pointer + count) % length}
