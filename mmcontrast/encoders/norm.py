"""Batch normalisation over the global batch."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.errors import UserError


class BatchNorm(nn.Module):
  """Normalises each channel over all other axes (Ioffe and Szegedy, arXiv:1502.03167).

  Parameters and statistics are named as in `flax.linen.BatchNorm`: params "scale", "bias";
  batch_stats "mean", "var" (biased, as Flax keeps it). Under `jax.jit` over a batch sharded
  across devices the plain means below are those of the global batch, so no axis name is
  needed. Statistics are float32 whatever `dtype` is.

  Attributes:
    momentum: share of the old running statistic that is kept (1 - torch's momentum).
    affine: whether it has a learned scale and bias.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = None
  scale_init: Any = nn.initializers.ones
  affine: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, mask: jax.Array | None = None, *, train: bool) -> jax.Array:
    """[..., C] -> [..., C]; with `train`, by and into the statistics of this batch, of those that `mask` [...] lets
    pass (None: all).

    Raises UserError for a batch of one value a channel, which is its own mean: nothing is left of it, and the gradient
    grows by 1 / sqrt(epsilon) in each layer.
    """
    if train and not self.is_initializing() and math.prod(x.shape[:-1]) == 1:
      raise UserError(
        "batch norm over one value: the batch is one example, so what is normalised is always 0; raise "
        "config.batch.size to 2 or more, or take the batch norm out"
      )
    shape = x.shape[-1:]
    scale = self.param("scale", self.scale_init, shape, jnp.float32) if self.affine else jnp.float32(1.0)
    bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32) if self.affine else jnp.float32(0.0)
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
    running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
    if train:
      axes = tuple(range(x.ndim - 1))
      wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
      mean = _mean(wide, mask, axes)
      var = jnp.maximum(_mean(jnp.square(wide), mask, axes) - jnp.square(mean), 0.0)
      if not self.is_initializing():
        keep = self.momentum
        running_mean.value = keep * running_mean.value + (1 - keep) * lax.stop_gradient(mean)
        running_var.value = keep * running_var.value + (1 - keep) * lax.stop_gradient(var)
    else:
      mean, var = running_mean.value, running_var.value
    gain = scale * lax.rsqrt(var + self.epsilon)
    return (x * gain + (bias - mean * gain)).astype(self.dtype or x.dtype)


def _mean(x: jax.Array, mask: jax.Array | None, axes: tuple[int, ...]) -> jax.Array:
  """Over `axes`, of what `mask` lets pass; 0 where that is nothing."""
  if mask is None:
    return x.mean(axes)
  return jnp.where(mask[..., None], x, 0.0).sum(axes) / jnp.maximum(mask.sum(), 1)
