"""Every lowering of a convolution and of a pool against Flax's, values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmcontrast.encoders.conv import Conv, average_pool, conv, max_pool

# side, channels, out, kernel, stride, padding: stems, 3x3 of both strides, 1x1, patches,
# odd sides, and images smaller than the kernel.
SHAPES = [
  (16, 3, 8, 7, 2, 3),
  (15, 3, 8, 7, 2, 3),
  (8, 16, 8, 3, 1, 1),
  (9, 16, 8, 3, 2, 1),
  (8, 4, 8, 3, 2, 1),
  (2, 8, 4, 3, 1, 1),
  (4, 8, 4, 3, 2, 1),
  (1, 8, 4, 3, 1, 1),
  (6, 5, 4, 1, 1, 0),
  (7, 5, 4, 1, 2, 0),
  (12, 3, 8, 4, 4, 0),
  (9, 20, 8, 5, 1, 2),
  (6, 66, 4, 3, 1, 1),
]


@pytest.mark.parametrize("lowering", ["matmul", "split"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lowerings_agree_in_value_and_gradient(shape, lowering):
  side, channels, out, size, stride, side_pad = shape
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, side, side + 2, channels), np.float32)
  kernel = rng.standard_normal((size, size, channels, out), np.float32)
  padding = ((side_pad, side_pad), (side_pad, side_pad))

  @functools.partial(jax.jit, static_argnums=3)
  def run(x, kernel, weight, lowering):
    y, back = jax.vjp(lambda x, k: conv(x, k, stride, padding, lowering), x, kernel)
    return y, back(weight)

  shape = jax.eval_shape(lambda: conv(x, kernel, stride, padding, "conv")).shape
  weight = rng.standard_normal(shape, np.float32)
  want, got = (run(x, kernel, weight, name) for name in ("conv", lowering))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), want, got)


def test_module_is_flax_conv_with_its_parameters():
  x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
  theirs = nn.Conv(5, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
  variables = theirs.init(jax.random.key(1), x)
  ours = Conv(5, 3, 2, use_bias=True, lowering="split")
  assert jax.tree.map(jnp.shape, ours.init(jax.random.key(1), x)) == jax.tree.map(jnp.shape, variables)
  np.testing.assert_allclose(ours.apply(variables, x), theirs.apply(variables, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [8, 7])
def test_max_pool_agrees_in_value_and_gradient(side):
  x = jax.random.normal(jax.random.key(0), (2, side, side, 3)) - 3.0  # padding must not win
  padding = ((1, 1), (1, 1))

  def total(x, lowering):
    y = max_pool(x, 3, 2, padding, lowering)
    return (y * jnp.arange(y.size).reshape(y.shape)).sum()

  want, got = (jax.value_and_grad(total)(x, name) for name in ("conv", "split"))
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  np.testing.assert_allclose(got[1], want[1], rtol=1e-6)


@pytest.mark.parametrize("side", [8, 7])
def test_average_pool_is_flax_and_leaves_out_the_odd_edge(side):
  x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
  np.testing.assert_allclose(average_pool(x, 2), nn.avg_pool(x, (2, 2), (2, 2)), rtol=1e-5, atol=1e-6)
