"""Convolution and max-pooling with a lowering chosen for the backend.

XLA's CPU backend runs the gradients of convolutions and of `reduce_window` as scalar
loops, several times slower than a matrix product of the same size. `Conv` has the
parameters of `flax.linen.Conv` and the same outputs whichever lowering computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

LOWERINGS = ("auto", "conv", "matmul")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")

Padding = Sequence[tuple[int, int]]


def resolve(lowering: str) -> str:
  """Turns "auto" into "matmul" on CPU and "conv" on TPU and GPU."""
  if lowering != "auto":
    return lowering
  return "matmul" if jax.default_backend() == "cpu" else "conv"


def taps(x: jax.Array, size: tuple[int, int], stride: int, padding: Padding, fill: float = 0.0):
  """The kh * kw shifted, strided views of a padded image.

  Args:
    x: [B, H, W, C].

  Returns:
    list of [B, h, w, C], row-major over the kernel's positions.
  """
  (top, bottom), (left, right) = padding
  if any((top, bottom, left, right)):
    edges = ((0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0))
    x = lax.pad(x, jnp.asarray(fill, x.dtype), edges)
  batch, height, width, channels = x.shape
  h, w = (height - size[0]) // stride + 1, (width - size[1]) // stride + 1
  views = []
  for i in range(size[0]):
    for j in range(size[1]):
      end = (batch, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, channels)
      views.append(lax.slice(x, (0, i, j, 0), end, (1, stride, stride, 1)))
  return views


def conv_matmul(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
  """A convolution as one matrix product: patches [B h w, kh kw C] times kernel [kh kw C, O]."""
  kh, kw, channels, out = kernel.shape
  matrix = kernel.reshape(kh * kw * channels, out)
  if kh == kw == stride and not any(p for pair in padding for p in pair):  # patches do not overlap
    batch, height, width, _ = x.shape
    h, w = height // kh, width // kw
    x = x[:, : h * kh, : w * kw].reshape(batch, h, kh, w, kw, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, -1) @ matrix
  views = taps(x, (kh, kw), stride, padding)
  patches = views[0] if len(views) == 1 else jnp.concatenate(views, axis=-1)
  return patches @ matrix


def conv(
  x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, lowering: str = "auto"
) -> jax.Array:
  """Two-dimensional cross-correlation of x [B, H, W, C] with kernel [kh, kw, C, O]."""
  if resolve(lowering) == "matmul":
    return conv_matmul(x, kernel, stride, padding)
  return lax.conv_general_dilated(
    x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS
  )


def max_pool(
  x: jax.Array, size: int, stride: int, padding: Padding, lowering: str = "auto"
) -> jax.Array:
  """Maximum over windows of x [B, H, W, C]; the two lowerings differ in gradients at ties only."""
  if resolve(lowering) == "conv":
    return nn.max_pool(x, (size, size), (stride, stride), padding)
  views = taps(x, (size, size), stride, padding, fill=-jnp.inf)
  out = views[0]
  for view in views[1:]:
    out = jnp.maximum(out, view)
  return out


class Conv(nn.Module):
  """`flax.linen.Conv` in two dimensions: the same parameters, the lowering an option.

  Attributes:
    features: output channels.
    size: side of the square kernel.
    padding: zeros on every side; None: (size - 1) // 2, torchvision's.
    lowering: "conv" (XLA's convolution), "matmul", or "auto" by backend.
  """

  features: int
  size: int = 3
  stride: int = 1
  padding: int | None = None
  use_bias: bool = False
  dtype: Any = None
  lowering: str = "auto"
  kernel_init: Callable[..., jax.Array] = nn.initializers.variance_scaling(2.0, "fan_out", "normal")

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, H, W, C] -> [B, h, w, features]."""
    shape = (self.size, self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, shape[-1:]) if self.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    pad = (self.size - 1) // 2 if self.padding is None else self.padding
    y = conv(x, kernel, self.stride, ((pad, pad), (pad, pad)), self.lowering)
    return y if bias is None else y + bias
