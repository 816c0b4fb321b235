"""CLIP's attention pool against the attention of all positions, and a ResNet at another image size."""

import jax
import numpy as np

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.clip_resnet import AttentionPool


def dense_pool(params, cells, heads):
  """Attention as CLIP computes it: every position a query, of which the first is the output."""
  x = cells.reshape(len(cells), -1, cells.shape[-1])
  x = np.concatenate([x.mean(1, keepdims=True), x], 1) + params["positional_embedding"]
  q, k, v = (x @ params[f"{name}_proj"]["kernel"] + params[f"{name}_proj"]["bias"] for name in "qkv")
  q, k, v = (one.reshape(*one.shape[:2], heads, -1) for one in (q, k, v))
  scores = np.einsum("blhd,bmhd->bhlm", q, k) / np.sqrt(q.shape[-1])
  weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
  return np.einsum("bhlm,bmhd->blhd", weights, v).reshape(x.shape)[:, 0]


def test_one_query_gives_what_all_of_them_give():
  rng = np.random.default_rng(0)
  cells = rng.standard_normal((2, 3, 3, 8))
  pool = AttentionPool(heads=2, dtype=np.float32)
  shapes = jax.eval_shape(pool.init, jax.random.key(0), cells)["params"]
  params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape), shapes)
  np.testing.assert_allclose(pool.apply({"params": params}, cells), dense_pool(params, cells, 2), rtol=1e-4, atol=1e-5)


def test_positions_of_another_image_size_are_resized():
  tower = build_encoder({"name": "clip_resnet50", "width": 2, "stages": (1, 1, 1, 1), "head_width": 16})
  small, large = (np.random.default_rng(0).standard_normal((1, px, px, 3), np.float32) for px in (64, 96))
  shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), small, train=False))
  assert shapes["params"]["attnpool"]["positional_embedding"].shape == (2 * 2 + 1, 64)
  out = jax.eval_shape(lambda variables: tower.apply(variables, large, train=False), shapes)
  assert out.pooled.shape == (1, 64) and out.tokens.shape == (1, 9, 64)
