"""Layer normalisation whose backward pass keeps two numbers a token on a TPU."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from mmcontrast.encoders.dense import column_sums
from mmcontrast.encoders.lowering import lowering

STATISTICS = "statistics"  # what a policy of rematerialisation calls them


class LayerNorm(nn.LayerNorm):
  """`flax.linen.LayerNorm`: the same parameters and numbers.

  On a TPU (lowering.py) its gradient is written out: means and deviations [..., 1] are kept, under the name STATISTICS
  where a block is rematerialised, so that no pass over the activations is needed to find them again.
  """

  @nn.compact
  def __call__(self, x: jax.Array, *, mask: jax.Array | None = None) -> jax.Array:
    """[..., D] -> [..., D]."""
    if not (lowering().kept_statistics and self.use_scale and self.use_bias and mask is None):
      return super().__call__(x, mask=mask)
    scale = self.param("scale", self.scale_init, x.shape[-1:], self.param_dtype)
    bias = self.param("bias", self.bias_init, x.shape[-1:], self.param_dtype)
    return _normalised(x, scale, bias, self.epsilon, jnp.dtype(self.dtype or jnp.result_type(x, scale)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _normalised(x, scale, bias, epsilon, dtype):
  return _forward(x, scale, bias, epsilon, dtype)[0]


def _forward(x, scale, bias, epsilon, dtype):
  wide = _widened(x)
  mean = wide.mean(-1, keepdims=True)
  variance = jnp.maximum(jnp.square(wide).mean(-1, keepdims=True) - jnp.square(mean), 0.0)
  mean, factor = (checkpoint_name(found, STATISTICS) for found in (mean, lax.rsqrt(variance + epsilon)))
  return ((wide - mean) * (factor * scale) + bias).astype(dtype), (x, mean, factor, scale, bias)


def _backward(epsilon, dtype, saved, dy):
  del epsilon, dtype
  x, mean, factor, scale, bias = saved
  normal, dnormal = (_widened(x) - mean) * factor, _widened(dy) * scale
  dx = factor * (dnormal - dnormal.mean(-1, keepdims=True) - normal * (dnormal * normal).mean(-1, keepdims=True))
  dscale, dbias = column_sums((_widened(dy) * normal).astype(dy.dtype)), column_sums(dy)
  return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype)


_normalised.defvjp(_forward, _backward)


def _widened(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
