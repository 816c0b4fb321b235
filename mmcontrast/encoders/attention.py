"""Scaled dot-product attention, by what computes it fastest."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.lowering import lowering
from mmcontrast.encoders.short_attention import fits, short_attention
from mmcontrast.errors import UserError

ATTENTION = ("xla", "cudnn")
_NEVER = -0.7 * float(jnp.finfo(jnp.float32).max)  # as jax.nn: where no key may be seen, all weigh the same


def attend(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array | None,
  causal: bool,
  implementation: str = "xla",
  window: int | None = None,
  bias: jax.Array | None = None,
) -> jax.Array:
  """Scaled dot-product attention.

  Args:
    q: [B, L, heads, d]; k, v: [B, S, heads, d].
    mask: [B or 1, S] bool, the keys that may be attended to; [B or 1, L, S], those that each query may; None for all.
    causal: position i sees positions 0 to i only.
    implementation: one of ATTENTION. "xla" is the fastest of the platform (lowering.py), with the same numbers: an
      order of our own on a CPU, a kernel for short sequences on a TPU, `jax.nn.dot_product_attention` elsewhere.
    window: how many positions on either side are seen; None for all.
    bias: [heads, L, S], what is added to the scores; None for nothing.

  Returns:
    [B, L, heads * d].
  Raises UserError for "cudnn" where it cannot run.
  """
  chosen, heads = lowering(), q.shape[2]
  if implementation == "cudnn":
    if chosen.platform != "gpu":
      raise UserError(
        f"attention='cudnn' needs an NVIDIA GPU and this program is for {chosen.platform}; set attention='xla'"
      )
    if q.dtype not in (jnp.bfloat16, jnp.float16):
      raise UserError(
        f"attention='cudnn' computes in 16 bits, not in {q.dtype}; set dtype='bfloat16' or attention='xla'"
      )
  if (
    chosen.attention == "kernel"
    and bias is None
    and (mask is None or mask.ndim == 2)
    and fits(q.shape[1], k.shape[1], heads, q.shape[3], q.dtype.itemsize)
  ):
    q, k, v = (x.reshape(*x.shape[:2], -1) for x in (q, k, v))
    return short_attention(q, k, v, mask, heads, causal, window, chosen.mesh)
  if chosen.attention == "ordered":
    y = _on_cpu(q, k, v, mask, causal, window, bias)
  else:
    keys, bias = _over_heads(mask), None if bias is None else bias[None].astype(q.dtype)
    y = jax.nn.dot_product_attention(
      q, k, v, bias, mask=keys, is_causal=causal, implementation=implementation, local_window_size=window
    )
  return y.reshape(*y.shape[:2], -1)


def _on_cpu(
  q: jax.Array,
  k: jax.Array,
  v: jax.Array,
  mask: jax.Array | None,
  causal: bool,
  window: int | None,
  bias: jax.Array | None = None,
) -> jax.Array:
  """`attend` in an order that spares passes over [L, S], of which XLA's CPU backend makes one for each step.

  All masks are one, heads stand before positions, and the weights are divided by their sum only after
  the product with the values, as in FlashAttention (arXiv:2205.14135). Logits and sums are float32.
  Returns [B, L, heads, d].
  """
  q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
  batch = ((0, 1), (0, 1))
  logits = lax.dot_general(q, k, (((3,), (3,)), batch), preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
  logits = logits if bias is None else logits + bias
  row, column = jnp.arange(q.shape[2])[:, None], jnp.arange(k.shape[2])
  seen = [] if mask is None else [_over_heads(mask)]
  seen += [column <= row] if causal else []
  seen += [abs(column - row) <= window] if window is not None else []
  if seen:
    logits = jnp.where(functools.reduce(jnp.logical_and, seen), logits, _NEVER)
  weights = jnp.exp(logits - lax.stop_gradient(logits.max(-1, keepdims=True)))
  product = (((3,), (2,)), batch)
  y = lax.dot_general(weights.astype(v.dtype), v, product, preferred_element_type=jnp.float32)
  return (y / weights.sum(-1)[..., None]).astype(v.dtype).swapaxes(1, 2)


def _over_heads(mask: jax.Array | None) -> jax.Array | None:
  """[B, S] or [B, L, S] -> [B, 1, 1 or L, S]."""
  if mask is None:
    return None
  return mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
