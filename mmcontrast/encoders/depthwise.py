"""Depthwise convolution, each channel with its own kernel, with a lowering chosen for the backend.

XLA's CPU backend runs a convolution of as many groups as channels as a scalar loop. A sum over taps,
each an image shifted and scaled by channel, is one vectorised loop there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.conv import DIMENSIONS, Padding, pad, resolve, taps


def depthwise_xla(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
  """XLA's own grouped convolution."""
  return lax.conv_general_dilated(
    x, kernel, (1, 1), padding, dimension_numbers=DIMENSIONS, feature_group_count=x.shape[-1]
  )


def _windows(x: jax.Array, size: tuple[int, int], padding: Padding) -> list[jax.Array]:
  """The image under each tap of the kernel, row by row: kh * kw views [B, h, w, C]."""
  return [view for row in taps(pad(x, padding), size[0], 1, 1) for view in taps(row, size[1], 1, 2)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise_taps(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
  """A sum over the taps of the kernel, with gradients of the same kind."""
  kh, kw, _, channels = kernel.shape
  weights = kernel.reshape(kh * kw, channels)
  return sum(view * weight for view, weight in zip(_windows(x, (kh, kw), padding), weights))


def _forward(x, kernel, padding):
  return depthwise_taps(x, kernel, padding), (x, kernel)


def _backward(padding, saved, dy):
  x, kernel = saved
  size = kernel.shape[:2]
  mirrored = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in zip(size, padding))
  dx = depthwise_taps(dy, kernel[::-1, ::-1], mirrored)
  products = [(view * dy).sum((0, 1, 2)) for view in _windows(x, size, padding)]
  return dx, jnp.stack(products).reshape(kernel.shape)


depthwise_taps.defvjp(_forward, _backward)


class DepthwiseConv(nn.Module):
  """`flax.linen.Conv` with one group a channel, stride 1 and the same size of map: the same parameters.

  Attributes:
    size: side of the square kernel, odd.
    lowering: "conv" is XLA's; all others are a sum over taps; "auto" by backend, see `conv.resolve`.
  """

  size: int
  dtype: Any = None
  lowering: str = "auto"
  kernel_init: Callable[..., jax.Array] = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, H, W, C]."""
    channels, side = x.shape[-1], self.size // 2
    kernel = self.param("kernel", self.kernel_init, (self.size, self.size, 1, channels), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    run = depthwise_xla if resolve(self.lowering) == "conv" else depthwise_taps
    return run(x, kernel, ((side, side), (side, side))) + bias
