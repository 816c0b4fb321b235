"""Encoders that compute the pooled vector alone: the same vector, and no tokens."""

import jax
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.transformer import exact_gelu

VIT = dict(name="vit", width=16, depth=2, heads=2, patch=8)
TEXT = dict(name="text_transformer", vocab_size=30, width=16, depth=2, heads=2, max_length=5)
IDS = np.array([[1, 5, 9, 2, 0], [1, 2, 0, 0, 0], [1, 4, 4, 4, 2]], np.int32)


@pytest.mark.parametrize("options", [
  dict(VIT, pool="cls", positions="rope", registers=1, layer_scale=0.1),
  dict(VIT, pool="cls", scan=True, norm_after_pool=True),
  dict(TEXT, pool="eos", causal=True, eos_id=2),
  dict(TEXT, pool="eos"),
  dict(TEXT, pool="last", attend_padding=True),
  dict(TEXT, pool="end_token", causal=True),
])  # fmt: skip
def test_the_pooled_vector_is_the_same(options):
  draw, encoder = np.random.default_rng(0), build_encoder(options)
  inputs = (IDS, IDS != 0) if "vocab_size" in options else (draw.normal(size=(3, 16, 16, 3)).astype(np.float32),)
  shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), *inputs, train=False))
  variables = jax.tree.map(lambda leaf: draw.normal(0, 0.4, leaf.shape).astype(np.float32), shapes)
  whole = encoder.apply(variables, *inputs, train=False)
  alone = encoder.apply(variables, *inputs, train=False, pooled_only=True)
  np.testing.assert_allclose(alone.pooled, whole.pooled, atol=2e-6)
  assert alone.tokens is None and whole.tokens is not None and np.asarray(whole.pooled).std() > 0.1


def test_gelu_is_that_of_jax():
  x = np.linspace(-12, 12, 4001).astype(np.float32)
  np.testing.assert_allclose(exact_gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
  half = jax.numpy.asarray(x, "bfloat16")
  ours, wide = exact_gelu(half), jax.nn.gelu(half.astype("float32"), approximate=False)
  assert ours.dtype == half.dtype
  np.testing.assert_allclose(np.asarray(ours, np.float32), wide, rtol=2**-8, atol=1e-6)  # half a step of bfloat16
