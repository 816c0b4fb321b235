"""Tables keyed by example: what a term remembers of each example of the dataset.

A table is a dictionary: name -> [L, ...], row i for the example whose `batch["index"]` is i. L is
the number of examples rounded up to a multiple of LENGTH_MULTIPLE, so that devices can share it.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Table = dict[str, jax.Array]

LENGTH_MULTIPLE = 1024
"""A table that sharding cuts over up to that many devices (a power of two of them) divides evenly."""


def init(examples: int, columns: Mapping[str, float]) -> Table:
  """A table of float32 scalars for `examples` examples; columns: name -> what every row starts with."""
  length = -(-examples // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
  return {name: jnp.full(length, value, jnp.float32) for name, value in columns.items()}


def read(table: Table, index: jax.Array) -> Table:
  """The rows `index` [N] int32: name -> [N, ...]. No gradient flows into the table."""
  return jax.lax.stop_gradient(jax.tree.map(lambda column: column[index], table))


def write(table: Table, index: jax.Array, rows: Table, valid: jax.Array | None = None) -> Table:
  """The table with `rows` [N, ...] at `index` [N], those of examples that are not `valid` left out.

  Of an example that is in the batch twice (a bad record's replacement can be), the later row stays:
  which one does not depend on the order in which devices write.
  """
  length = next(iter(table.values())).shape[0]
  places = index if valid is None else jnp.where(valid, index, length)  # beyond the end: dropped
  order = jnp.argsort(places, stable=True)
  ordered = places[order]
  last = jnp.concatenate([ordered[1:] != ordered[:-1], jnp.ones(1, bool)])
  places = jnp.where(last, ordered, length)

  def put(column: jax.Array, new: jax.Array) -> jax.Array:
    new = jax.lax.stop_gradient(new[order]).astype(column.dtype)
    return column.at[places].set(new, mode="drop")

  return {name: put(column, rows[name]) for name, column in table.items()}
