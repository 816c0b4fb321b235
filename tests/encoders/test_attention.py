"""Attention on a CPU beside `jax.nn.dot_product_attention`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders.attention import attend

BATCH, LENGTH, HEADS, WIDTH = 3, 9, 2, 5
MASK = np.arange(LENGTH) < np.array([[LENGTH], [4], [0]])  # the last text has no real token


@pytest.mark.parametrize("dtype, atol", [("float32", 2e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "mask"])
@pytest.mark.parametrize("causal, window", [(False, None), (True, None), (False, 2), (True, 3)])
def test_values_and_gradients(mask, causal, window, dtype, atol):
  draw = np.random.default_rng(0)
  q, k, v, cotangent = (jnp.asarray(draw.standard_normal((BATCH, LENGTH, HEADS, WIDTH)), dtype) for _ in range(4))

  def theirs(q, k, v):
    y = jax.nn.dot_product_attention(
      q,
      k,
      v,
      mask=None if mask is None else jnp.asarray(mask)[:, None, None, :],
      is_causal=causal,
      local_window_size=window,
    )
    return y.reshape(BATCH, LENGTH, -1)

  def ours(q, k, v):
    return attend(q, k, v, mask, causal, window=window)

  (expected, back), (found, our_back) = jax.vjp(theirs, q, k, v), jax.vjp(ours, q, k, v)
  assert found.dtype == expected.dtype == dtype
  np.testing.assert_allclose(np.float32(found), np.float32(expected), atol=atol)
  for one, other in zip(our_back(cotangent.reshape(expected.shape)), back(cotangent.reshape(expected.shape))):
    np.testing.assert_allclose(np.float32(one), np.float32(other), atol=4 * atol)


def test_a_single_query():
  draw = np.random.default_rng(0)
  q, k, v = (
    jnp.asarray(draw.standard_normal((BATCH, length, HEADS, WIDTH)), jnp.float32) for length in (1, LENGTH, LENGTH)
  )
  expected = jax.nn.dot_product_attention(q, k, v, mask=jnp.asarray(MASK)[:, None, None, :])
  np.testing.assert_allclose(attend(q, k, v, MASK, False), expected.reshape(BATCH, 1, -1), atol=2e-6)


def test_logits_far_from_zero():
  q = jnp.full((1, 2, 1, 1), 300.0) * jnp.asarray([1, -1])[None, :, None, None]
  found = attend(q, q, q, None, False)
  np.testing.assert_array_equal(found[0], [[300], [-300]])
