"""Convolution and max-pooling with a lowering chosen for the backend.

XLA's CPU backend hands a plain NHWC convolution to Eigen, but runs the reversed and
transposed convolutions that differentiation makes, those on images smaller than their
kernel, and the gradient of `reduce_window`, as scalar loops, 3 to 100 times slower.
`Conv` has the parameters of `flax.linen.Conv` and the same outputs and gradients
whichever lowering computes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.lowering import by_batch
from mmcontrast.encoders.lowering import lowering as platform_lowering

LOWERINGS = ("auto", "conv", "matmul", "split")
DIMENSIONS = ("NHWC", "HWIO", "NHWC")
# Measured on CPU, forward and backward:
SMALL_MAP = 16  # up to so many output positions one matrix product beats Eigen's convolution
FEW_CHANNELS = 16  # below so many channels patches in memory beat one matrix product a tap
SOME_CHANNELS = 64  # up to so many, one product of copies for rows and for columns of the kernel does

Padding = tuple[tuple[int, int], tuple[int, int]]


def resolve(lowering: str) -> str:
  """Turns "auto" into "split" on CPU and "conv" on TPU and GPU: lowering.py."""
  return platform_lowering().conv if lowering == "auto" else lowering


def pad(x: jax.Array, padding: Padding, fill: float = 0.0) -> jax.Array:
  """[B, H, W, C] with `padding` ((top, bottom), (left, right)) added."""
  if not any(p for pair in padding for p in pair):
    return x
  edges = ((0, 0, 0), (*padding[0], 0), (*padding[1], 0), (0, 0, 0))
  return lax.pad(x, jnp.asarray(fill, x.dtype), edges)


def taps(x: jax.Array, size: int, stride: int, axis: int) -> list[jax.Array]:
  """The `size` shifted, strided views of a padded x [B, H, W, C] along one axis."""
  reach = (x.shape[axis] - size) // stride * stride + 1
  return [lax.slice_in_dim(x, i, i + reach, stride, axis) for i in range(size)]


def patches(x: jax.Array, size: tuple[int, int], stride: int) -> jax.Array:
  """im2col of a padded image: [B, H, W, C] -> [B, h, w, kh kw C], ordered as a kernel is."""
  # Rows first: two concatenations of ever longer runs cost less than one of kh * kw.
  row = jnp.concatenate(taps(x, size[1], stride, 2), axis=-1)
  return jnp.concatenate(taps(row, size[0], stride, 1), axis=-1)


def conv_xla(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
  """XLA's own convolution."""
  return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=DIMENSIONS)


def conv_matmul(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
  """One matrix product: patches [B h w, kh kw C] times kernel [kh kw C, O]."""
  kh, kw, channels, out = kernel.shape
  x = pad(x, padding)
  if kh == kw == stride and kh > 1:  # patches do not overlap: a reshape makes them
    batch, h, w = x.shape[0], x.shape[1] // kh, x.shape[2] // kw
    x = x[:, : h * kh, : w * kw].reshape(batch, h, kh, w, kw, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h, w, -1)
  else:
    x = patches(x, (kh, kw), stride)
  # Two axes, or the gradient of the kernel contracts three and XLA transposes x in memory.
  y = x.reshape(-1, x.shape[-1]) @ kernel.reshape(-1, out)
  return y.reshape(*x.shape[:-1], out)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_split(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
  """XLA's forward convolution; gradients by forward convolution and matrix products."""
  return conv_xla(x, kernel, stride, padding)


def _conv_split_forward(x, kernel, stride, padding):
  return conv_split(x, kernel, stride, padding), (x, kernel)


def _conv_split_backward(stride, padding, saved, dy):
  x, kernel = saved
  kh, kw = kernel.shape[:2]
  # Input: dy spread by the stride, convolved with the kernel turned by 180 degrees.
  edges = []
  for k, (low, _), size, steps in zip((kh, kw), padding, x.shape[1:3], dy.shape[1:3]):
    before = k - 1 - low
    edges.append((before, size + k - 1 - before - ((steps - 1) * stride + 1), stride - 1))
  spread = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), *edges, (0, 0, 0)))
  dx = conv_xla(spread, kernel[::-1, ::-1].swapaxes(2, 3), 1, ((0, 0), (0, 0)))
  return dx, _kernel_gradient(pad(x, padding), dy, kernel.shape, stride)


def _kernel_gradient(x: jax.Array, dy: jax.Array, shape: tuple[int, ...], stride: int) -> jax.Array:
  """[kh, kw, C, O] of a padded x and dy: sums over positions, as products of matrices that are not too narrow."""
  kh, kw, channels, out = shape
  over_positions = (((0,), (0,)), ((), ()))
  if FEW_CHANNELS <= channels <= SOME_CHANNELS and stride == 1:
    # One product: x at each row of the kernel [N, kh C], and dy at each of its columns [N, kw O].
    rows = jnp.concatenate(taps(x, kh, 1, 1), axis=-1)
    sides = [((0, 0, 0), (0, 0, 0), (j, kw - 1 - j, 0), (0, 0, 0)) for j in range(kw)]
    columns = jnp.concatenate([lax.pad(dy, jnp.zeros((), dy.dtype), side) for side in sides], axis=-1)
    product = lax.dot_general(columns.reshape(-1, kw * out), rows.reshape(-1, kh * channels), over_positions)
    return product.reshape(kw, out, kh, channels).transpose(2, 0, 3, 1)
  # Else dy [N, O] times the patches [N, kh kw C], all taps in one product when the image has
  # few channels, otherwise a product a tap, so that the patches are never written.
  dy = dy.reshape(-1, out)
  if channels < FEW_CHANNELS:
    views = [patches(x, (kh, kw), stride)]
  else:
    views = [tap for row in taps(x, kh, stride, 1) for tap in taps(row, kw, stride, 2)]
  products = [lax.dot_general(dy, v.reshape(-1, v.shape[-1]), over_positions).T for v in views]
  return jnp.stack(products).reshape(shape)


conv_split.defvjp(_conv_split_forward, _conv_split_backward)


def conv(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding, lowering: str = "auto") -> jax.Array:
  """Two-dimensional cross-correlation.

  Args:
    x: [B, H, W, C].
    kernel: [kh, kw, C, O].
    lowering: "conv" (XLA's), "matmul" (im2col), "split" (per shape the faster of the two,
      with gradients of its own: see `conv_split`) or "auto" (by backend).

  Returns:
    [B, h, w, O].
  """
  lowering = resolve(lowering)
  if lowering == "conv":
    return conv_xla(x, kernel, stride, padding)
  positions = (x.shape[1] // stride) * (x.shape[2] // stride)
  if lowering == "matmul" or kernel.shape[:2] == (1, 1) or positions <= SMALL_MAP:
    return conv_matmul(x, kernel, stride, padding)
  return conv_split(x, kernel, stride, padding)


def max_pool(x: jax.Array, size: int, stride: int, padding: Padding, lowering: str = "auto") -> jax.Array:
  """Maximum over windows of x [B, H, W, C]; lowerings differ only in the gradient at ties."""
  if resolve(lowering) == "conv":
    return nn.max_pool(x, (size, size), (stride, stride), padding)
  x = pad(x, padding, fill=-jnp.inf)
  for axis in (2, 1):  # separable: the maximum along rows, then along columns
    x = functools.reduce(jnp.maximum, taps(x, size, stride, axis))
  return x


def average_pool(x: jax.Array, size: int) -> jax.Array:
  """Means of windows of size x size that do not overlap, of x [B, H, W, C]; what fills no window is left out."""
  if size == 1:
    return x
  batch, h, w, channels = x.shape[0], x.shape[1] // size, x.shape[2] // size, x.shape[3]
  return x[:, : h * size, : w * size].reshape(batch, h, size, w, size, channels).mean((2, 4))


class Conv(nn.Module):
  """`flax.linen.Conv` in two dimensions: the same parameters, the lowering an option.

  Attributes:
    features: output channels.
    size: side of the square kernel.
    padding: zeros on every side; None: (size - 1) // 2, torchvision's.
    lowering: see `conv`.
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
    side = (self.size - 1) // 2 if self.padding is None else self.padding
    y = by_batch(conv(x, kernel, self.stride, ((side, side), (side, side)), self.lowering))
    return y if bias is None else y + bias
