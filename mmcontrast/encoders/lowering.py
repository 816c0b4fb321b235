"""How the same arithmetic is written for each platform: one table, read by the layers that have a choice.

    with lowered_for("tpu", mesh):   # while a program for these devices is traced
      ...

What is fast is a property of the devices that a program is compiled for, not of the process that compiles it:
a step for a TPU slice may be compiled where there is none. Parameters, their names and results are the same on all.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P


class Lowering(NamedTuple):
  """What a layer chooses by.

  Attributes:
    platform: "cpu", "gpu" or "tpu".
    conv: "split" or "conv": see `conv.conv`.
    attention: "ordered" (our order of XLA's operations), "library" (`jax.nn.dot_product_attention`) or "kernel"
      (short_attention.py).
    fused_qkv: whether queries, keys and values come of one product. Its result must then be cut between heads, which
      on a TPU is a copy of the whole activation, forward and backward.
    flat_products: whether [..., D] x [D, E] is written as a product of two matrices. On a TPU the reshape is a copy
      where the length is no multiple of the tile; on a CPU the gradient needs it.
    patches: how patches that do not overlap are multiplied: "matmul" or "conv": see `conv.conv`. On a TPU the reshape
      to patches is a copy, of three channels in a row of 128.
    sums_by_product: whether gradients of biases are products with ones: see `dense.add_bias`.
    kept_statistics: whether layer norms keep their means and deviations for the backward pass: layer_norm.py.
    tile: rows of a tile of the global matrix where the config does not say: a CPU's caches hold few, and a TPU
      multiplies larger ones faster (docs/results/tpu.md).
    mesh: the devices of the program; None: one.
  """

  platform: str
  conv: str
  attention: str
  fused_qkv: bool
  flat_products: bool
  patches: str = "matmul"
  sums_by_product: bool = False
  kept_statistics: bool = False
  tile: int = 512
  mesh: Mesh | None = None


LOWERINGS = {
  "cpu": Lowering("cpu", "split", "ordered", fused_qkv=True, flat_products=True),
  "gpu": Lowering("gpu", "conv", "library", fused_qkv=True, flat_products=True),
  "tpu": Lowering(
    "tpu",
    "conv",
    "kernel",
    fused_qkv=False,
    flat_products=False,
    patches="conv",
    sums_by_product=True,
    kept_statistics=True,
    tile=1024,
  ),
}
_current: contextvars.ContextVar[Lowering | None] = contextvars.ContextVar("lowering", default=None)


@contextlib.contextmanager
def lowered_for(platform: str, mesh: Mesh | None = None) -> Iterator[None]:
  """Layers traced inside are written for `platform`; `mesh`: the devices over which a batch is cut."""
  token = _current.set(LOWERINGS.get(platform, LOWERINGS["gpu"])._replace(mesh=mesh))
  try:
    yield
  finally:
    _current.reset(token)


def lowering() -> Lowering:
  """That of the program being traced; outside of `lowered_for`, of JAX's default device."""
  return _current.get() or LOWERINGS.get(jax.default_backend(), LOWERINGS["gpu"])


def by_batch(x: jax.Array) -> jax.Array:
  """[B, ...] cut between devices along B only, where parameters are cut between them too (the mesh's axis "fsdp").

  Layers say so of what products with parameters give: the compiler then gathers the parameters of a layer. Left alone
  it may do the reverse, and hold a whole batch on each device, cut as the parameters are.
  """
  mesh = lowering().mesh
  if not _cuts_parameters(mesh) or x.ndim == 0 or x.shape[0] % (mesh.shape["data"] * mesh.shape["fsdp"]):
    return x
  cut = P(("data", "fsdp"), *[P.UNCONSTRAINED] * (x.ndim - 1))
  return lax.with_sharding_constraint(x, NamedSharding(mesh, cut))


def whole(table: jax.Array) -> jax.Array:
  """A parameter that examples pick rows of, gathered first where parameters are cut between devices: the ids of a whole
  batch would go to each part of it instead."""
  mesh = lowering().mesh
  return lax.with_sharding_constraint(table, NamedSharding(mesh, P())) if _cuts_parameters(mesh) else table


def _cuts_parameters(mesh: Mesh | None) -> bool:
  return mesh is not None and mesh.shape["fsdp"] > 1
