"""A batch encoded in chunks, with the gradient of the whole: memory of one chunk.

A contrastive loss is no mean over examples, so averaging the gradients of small batches is another
method. Instead (GradCache, Gao et al. 2021, arXiv:2101.06983): encode chunk after chunk and keep
embeddings only; take the loss and its gradient on all of them; encode each chunk again and carry
its gradient back. That is differentiation through a scan whose body is rematerialised.

Value and gradients are those of one big batch, because an example is encoded the same in any
chunk: augmentation and dropout draw from the example's own seed, and batch norm is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from mmcontrast.errors import UserError
from mmcontrast.parallel.sharding import batch_parts, batch_sharding

Tree = Any


def encode_in_chunks(
  encode: Callable[[Tree, Tree], Tree], variables: Tree, batch: Tree, count: int, mesh: Mesh | None = None
) -> Tree:
  """`encode(variables, batch)`, in `count` chunks, without residuals of the encoder.

  Args:
    encode: maps variables and a batch to arrays with the batch's leading axis, each example by
      itself.
    variables: what is differentiated.
    batch: tree of [B, ...].
    count: chunks; divides the examples of a device.
    mesh: devices over which the batch is cut; every chunk is cut over all of them.
  Returns:
    What `encode` returns for the whole batch, in its order.
  """
  parts = 1 if mesh is None else batch_parts(mesh)

  def on_devices(x: jax.Array) -> jax.Array:
    return x if mesh is None else jax.lax.with_sharding_constraint(x, batch_sharding(mesh))

  def split(x: jax.Array) -> jax.Array:  # every device cuts its own examples: none moves
    return on_devices(x.reshape(parts, count, -1, *x.shape[1:])).swapaxes(0, 1)

  def join(x: jax.Array) -> jax.Array:  # [count, B / count, ...]
    x = x.reshape(count, parts, -1, *x.shape[2:]).swapaxes(0, 1)
    return on_devices(x.reshape(-1, *x.shape[3:]))

  @functools.partial(jax.checkpoint, prevent_cse=False)  # a scan keeps them apart already
  def body(variables, chunk):
    merged = jax.tree.map(lambda x: on_devices(x.reshape(-1, *x.shape[2:])), chunk)
    return jax.tree.map(on_devices, encode(variables, merged))

  found = jax.lax.scan(lambda _, chunk: (None, body(variables, chunk)), None, jax.tree.map(split, batch))[1]
  return jax.tree.map(join, found)


def check_microbatches(
  count: Any, size: int, mesh: Mesh, batch_stats: Mapping[str, Mapping[str, Tree]], frozen: Collection[str] = ()
) -> None:
  """Raises UserError unless a batch of `size` can be encoded in `count` chunks exactly.

  Args:
    count: `config.batch.microbatches`.
    size: `config.batch.size`, a multiple of the devices.
    batch_stats: of the model ({"towers", "heads"}: name -> statistics), shapes will do.
    frozen: parts such as "towers/image" that keep their running statistics, and so do not matter.
  """
  where = f"config.batch.microbatches={count}"
  own = size // batch_parts(mesh)
  if not isinstance(count, int) or count < 1 or own % count:
    valid = [k for k in range(1, own + 1) if own % k == 0]
    near = min(valid, key=lambda k: abs(k - count)) if isinstance(count, int | float) else 1
    raise UserError(
      f"{where} does not divide the {own} examples of a device (config.batch.size={size} over "
      f"{batch_parts(mesh)}); the nearest that does is {near}"
    )
  normed = [
    f"config.{kind}.{name}"
    for kind, trees in sorted(batch_stats.items())
    for name, tree in sorted(trees.items())
    if jax.tree.leaves(tree) and f"{kind}/{name}" not in frozen
  ]
  if count > 1 and normed:
    raise UserError(
      f"{where}: {normed[0]} has batch norm, whose statistics over a chunk are not the batch's, so the "
      "gradient would not be that of one big batch; use microbatches=1, or a tower without it (vit) "
      "and heads with batch_norm=False"
    )
