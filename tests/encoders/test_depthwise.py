"""A depthwise convolution's lowerings against Flax's convolution of one group a channel, values and gradients."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from mmcontrast.encoders.depthwise import DepthwiseConv


@pytest.mark.parametrize("side, size", [(9, 7), (4, 7), (5, 3)])
@pytest.mark.parametrize("lowering", ["split", "conv"])
def test_module_is_flax_conv_in_value_and_gradient(side, size, lowering):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, side, side + 1, 6), np.float32)
  theirs = nn.Conv(6, (size, size), feature_group_count=6)
  ours = DepthwiseConv(size, lowering=lowering)
  shapes = jax.eval_shape(theirs.init, jax.random.key(0), x)
  assert shapes == jax.eval_shape(ours.init, jax.random.key(0), x)
  params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes)

  def run(module):
    y, back = jax.vjp(module.apply, params, x)
    return y, back(np.random.default_rng(1).standard_normal(y.shape, np.float32))

  want, got = (jax.jit(run, static_argnums=0)(module) for module in (theirs, ours))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), want, got)
