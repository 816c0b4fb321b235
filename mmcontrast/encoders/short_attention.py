"""Attention over short sequences as one TPU kernel: logits and weights stay in the chip's own memory.

A text or the patches of an image are some hundred tokens: all keys of an example fit beside its queries, so
no running maximum is needed, and the backward pass computes the weights again from queries and keys, as
FlashAttention does (Dao et al., arXiv:2205.14135). Arrays keep the layout [B, L, heads * d] in which products
make them and take them; with an axis of heads, XLA would copy each of them twice.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

MEMORY = 14 << 20  # bytes of a chip's memory for one program; compilers grant 16 MiB
LANES = 128  # a block's width is a multiple of it, or all of the array's
_NEVER = -0.7 * float(jnp.finfo(jnp.float32).max)
_BATCH = ("data", "fsdp")


def heads_at_once(queries: int, keys: int, heads: int, dim: int, itemsize: int) -> int | None:
  """How many heads of width `dim` one program takes, the most that fit its memory; None where not even the fewest do.

  The backward pass holds seven blocks [tokens, heads * dim], each twice, since the next is fetched meanwhile, and
  about six matrices [queries, keys] in float32.
  """
  for count in range(heads, 0, -1):
    width = count * dim
    if heads % count == 0 and (count == heads or width % LANES == 0):
      blocks = 2 * width * itemsize * (3 * queries + 4 * keys)
      if blocks + 6 * 4 * queries * keys <= MEMORY:
        return count
  return None


def fits(queries: int, keys: int, heads: int, dim: int, itemsize: int) -> bool:
  """Whether the kernel can take `heads` heads of width `dim` over so many queries and keys."""
  return queries > 1 and keys > 1 and heads_at_once(queries, keys, heads, dim, itemsize) is not None


def short_attention(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array | None,
  heads: int,
  causal: bool,
  window: int | None = None,
  mesh: Mesh | None = None,
  interpret: bool = False,
) -> jax.Array:
  """Scaled dot-product attention.

  Args:
    q: [B, L, heads * d]; k, v: [B, S, heads * d].
    mask: [B or 1, S] bool, the keys that may be attended to; None for all.
    causal: position i sees positions 0 to i only.
    window: how many positions on either side are seen; None for all.
    mesh: devices over whose axes "data" and "fsdp" the batch is cut, and the heads over "tensor"; None for one.
    interpret: compute without a TPU, for tests.
  Returns:
    [B, L, heads * d]. Logits, their maxima and sums are float32.
  """
  batch = P(_BATCH) if mesh is not None else None
  run = functools.partial(_attention, causal, window, interpret)
  seen = jnp.ones((1, k.shape[1]), jnp.float32) if mask is None else mask.astype(jnp.float32)
  if mesh is None or q.shape[0] % _parts(mesh, _BATCH):
    return run(heads, q, k, v, seen)
  parts = mesh.shape["tensor"]
  cut = "tensor" if parts > 1 and heads % parts == 0 else None
  of_rows = P(_BATCH, None, cut)
  of_mask = batch if seen.shape[0] > 1 else P()
  run = functools.partial(run, heads // parts if cut else heads)
  return jax.shard_map(
    run, mesh=mesh, in_specs=(of_rows, of_rows, of_rows, of_mask), out_specs=of_rows, check_vma=False
  )(q, k, v, seen)


def _parts(mesh: Mesh, axes: tuple[str, ...]) -> int:
  return functools.reduce(lambda count, axis: count * mesh.shape[axis], axes, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _attention(causal, window, interpret, heads, q, k, v, seen):
  return _call(_forward_kernel, (q, k, v), seen, (q,), causal, window, interpret, heads)[0]


def _forward(causal, window, interpret, heads, q, k, v, seen):
  return _attention(causal, window, interpret, heads, q, k, v, seen), (q, k, v, seen)


def _backward(causal, window, interpret, heads, saved, dy):
  q, k, v, seen = saved
  gradients = _call(_backward_kernel, (q, k, v, dy), seen, (q, k, v), causal, window, interpret, heads)
  return (*gradients, jnp.zeros_like(seen))


_attention.defvjp(_forward, _backward)


def _call(kernel, arrays, seen, like, causal, window, interpret, heads):
  """A program an example and group of heads: `kernel` on blocks of `arrays` and of `seen`; results like `like`."""
  batch, queries, width = arrays[0].shape
  keys, dim = arrays[1].shape[1], width // heads
  group = heads_at_once(queries, keys, heads, dim, arrays[0].dtype.itemsize) or heads

  def block(array):
    return pl.BlockSpec((None, array.shape[1], group * dim), lambda example, part: (example, 0, part))

  seen = seen[:, None, :]
  of_all = seen.shape[0] == 1
  of_seen = pl.BlockSpec((None, 1, keys), lambda example, part: (0 if of_all else example, 0, 0))
  return pl.pallas_call(
    functools.partial(kernel, heads=group, causal=causal, window=window),
    grid=(batch, heads // group), in_specs=[of_seen, *map(block, arrays)], out_specs=[block(array) for array in like],
    out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in like], interpret=interpret,
    compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
    cost_estimate=pl.CostEstimate(
      flops=(2 if kernel is _forward_kernel else 5) * 2 * batch * queries * keys * width,
      transcendentals=batch * heads * queries * keys,
      bytes_accessed=sum(array.size * array.dtype.itemsize for array in (*arrays, *like))),
  )(seen, *arrays)  # fmt: skip


def _dot(a, b, contract_a, contract_b):
  return lax.dot_general(a, b, (((contract_a,), (contract_b,)), ((), ())), preferred_element_type=jnp.float32)


def _weights(q, k, seen, causal, window):
  """exp(logits - their maximum) [L, S] float32 of one head, their sums [L, 1], and which keys are visible [L, S]."""
  logits = _dot(q, k, 1, 1) * q.shape[-1] ** -0.5
  visible = jnp.broadcast_to(seen > 0, logits.shape)
  if causal or window is not None:
    row = lax.broadcasted_iota(jnp.int32, logits.shape, 0)
    column = lax.broadcasted_iota(jnp.int32, logits.shape, 1)
    visible &= (column <= row) if causal else True
    visible &= (jnp.abs(column - row) <= window) if window is not None else True
  logits = jnp.where(visible, logits, _NEVER)
  weights = jnp.exp(logits - logits.max(-1, keepdims=True))
  return weights, weights.sum(-1, keepdims=True), visible


def _heads(heads, *refs):
  """For each head, its columns of each block."""
  for head in range(heads):
    yield [ref[:, head * (ref.shape[-1] // heads) : (head + 1) * (ref.shape[-1] // heads)] for ref in refs]


def _forward_kernel(seen_ref, q_ref, k_ref, v_ref, y_ref, *, heads, causal, window):
  outputs = []
  for q, k, v in _heads(heads, q_ref, k_ref, v_ref):
    weights, total, _ = _weights(q, k, seen_ref[...], causal, window)
    outputs.append((_dot(weights.astype(v.dtype), v, 1, 0) / total).astype(y_ref.dtype))
  y_ref[...] = jnp.concatenate(outputs, -1)


def _backward_kernel(seen_ref, q_ref, k_ref, v_ref, dy_ref, dq_ref, dk_ref, dv_ref, *, heads, causal, window):
  gradients = []
  for q, k, v, dy in _heads(heads, q_ref, k_ref, v_ref, dy_ref):
    weights, total, visible = _weights(q, k, seen_ref[...], causal, window)
    weights = weights / total
    dweights = _dot(dy, v, 1, 1)
    dlogits = weights * (dweights - (weights * dweights).sum(-1, keepdims=True)) * q.shape[-1] ** -0.5
    dlogits = jnp.where(visible, dlogits, 0).astype(q.dtype)  # a query that sees no key weighs all the same
    gradients.append((_dot(dlogits, k, 1, 0), _dot(dlogits, q, 0, 0), _dot(weights.astype(dy.dtype), dy, 0, 0)))
  for ref, parts in zip((dq_ref, dk_ref, dv_ref), zip(*gradients)):
    ref[...] = jnp.concatenate(parts, -1).astype(ref.dtype)
