"""Texts longer than a tower was trained on: stretched positions, and rotary ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.positions import stretched
from mmcontrast.errors import UserError
from mmcontrast.training.initialization import initial_arrays

TEXT = {"name": "text_transformer", "vocab_size": 30, "width": 8, "depth": 1, "heads": 2, "max_length": 12,
        "positions": "rope", "rope_base": 50.0}  # fmt: skip
IDS = np.random.default_rng(0).integers(3, 30, (2, 6)).astype(np.int32)


def random_variables(module, *inputs):
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False))
  draw = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: draw.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


def test_77_positions_become_the_248_of_long_clip():
  """Its formula, place by place: between two neighbours a quarter at a time, and on beyond the last."""
  position = np.random.default_rng(0).standard_normal((77, 4))
  found = stretched(position, 248)
  np.testing.assert_array_equal(found[:20], position[:20])
  for old in range(20, 77):
    left, right = (position[old], position[old + 1]) if old < 76 else (position[75], position[76])
    for quarter in range(4):
      expected = left + (right - left) * quarter / 4 if old < 76 else right + (right - left) * quarter / 4
      np.testing.assert_allclose(found[20 + 4 * (old - 20) + quarter], expected, atol=1e-12)
  assert found.shape == (248, 4)


@pytest.mark.parametrize("options, behind", [({"causal": True, "pool": "eos"}, 0), ({"pool": "end_token"}, 1)], ids=str)
def test_a_longer_tower_starts_from_a_shorter_one(options, behind):
  """Of an earlier stage; the position of a token behind the text stays behind it."""
  text = TEXT | {"positions": "learned"} | options
  short, long = (build_encoder(text | {"max_length": length}) for length in (24, 36))
  source, wanted = ({"params": {"towers": {"text": random_variables(one, IDS)["params"]}}, "batch_stats": {}}
                    for one in (short, long))  # fmt: skip
  config = {"init": {"towers/text": "first:towers/text"}}
  found = initial_arrays(config, wanted, {"first": lambda: source})
  position = source["params"]["towers"]["text"]["pos_embed"]
  made = found["params/towers/text/pos_embed"]
  assert made.shape == (36 + behind, 8) and found.keys() >= {"params/towers/text/token_embedding/embedding"}
  np.testing.assert_allclose(made[:36], stretched(position[:24], 36), atol=1e-6)
  np.testing.assert_array_equal(made[36:], position[24:])
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), source)
  assert initial_arrays(config, wanted, {"first": lambda: shapes})["params/towers/text/pos_embed"].shape == made.shape


def test_rope_is_its_formula():
  """The whole tower in numpy; a pair of numbers of a head is a complex number, turned by its place."""
  tower = build_encoder(TEXT)
  weights = random_variables(tower, IDS)
  assert "pos_embed" not in weights["params"]
  out = jax.jit(lambda ids: tower.apply(weights, ids, train=False).tokens)(IDS)
  p = jax.tree.map(np.float64, weights["params"])
  block = p["blocks_0"]

  def norm(x, of):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * of["scale"] + of["bias"]

  def dense(x, of):
    return x @ of["kernel"] + of["bias"]

  x = p["token_embedding"]["embedding"][IDS]
  q, k, v = (part.reshape(2, 6, 2, 4) for part in np.split(dense(norm(x, block["norm1"]), block["attn"]["qkv"]), 3, -1))
  turn = np.exp(1j * np.arange(6)[:, None] * 50.0 ** -(np.arange(0, 4, 2) / 4))[:, None]
  q, k = ((y[..., :2] + 1j * y[..., 2:]) * turn for y in (q, k))
  logits = np.einsum("blhd,bmhd->bhlm", q, k.conj()).real / 2
  share = np.exp(logits - logits.max(-1, keepdims=True))
  share /= share.sum(-1, keepdims=True)
  x = x + dense(np.einsum("bhlm,bmhd->blhd", share, v).reshape(2, 6, 8), block["attn"]["proj"])
  y = dense(norm(x, block["norm2"]), block["mlp"]["fc1"])
  y = 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))
  x = x + dense(y, block["mlp"]["fc2"])
  np.testing.assert_allclose(out, norm(x, p["norm"]), atol=2e-5)


def test_with_rope_a_text_that_is_moved_stays_what_it_is_and_a_cache_goes_on_counting():
  tower = build_encoder(TEXT | {"causal": True, "pool": "eos"})
  weights = random_variables(tower, IDS)
  moved = np.pad(IDS, ((0, 0), (5, 0)), constant_values=7)
  seen = np.arange(11)[None] >= np.array([[5], [5]])
  at_front = jax.jit(lambda ids, mask: tower.apply(weights, ids, mask, train=False).pooled)
  plain = at_front(np.pad(IDS, ((0, 0), (0, 5))), np.arange(11)[None] < np.array([[6], [6]]))
  np.testing.assert_allclose(at_front(moved, seen), plain, atol=1e-5)

  @jax.jit
  def one_by_one(ids):
    empty = jnp.zeros((2, 6, 2, 4))
    at = jnp.int32(0)
    cache, found = {"at": at, "blocks_0": {"attn": {"k": empty, "v": empty, "at": at}}}, []
    for place in range(6):
      made, new = tower.apply({**weights, "cache": cache}, ids[:, place : place + 1], train=False, mutable=["cache"])
      cache, found = new["cache"], [*found, made.tokens]
    return jnp.concatenate(found, 1)[:, -1]

  np.testing.assert_allclose(one_by_one(IDS), plain, atol=1e-5)


def test_what_does_not_fit_is_said():
  with pytest.raises(UserError, match=r"positions 'rope' need heads of an even size, not 3"):
    module = build_encoder(TEXT | {"width": 6})
    jax.eval_shape(lambda: module.init(jax.random.key(0), IDS, train=False))
  with pytest.raises(UserError, match=r"20 learned positions are not stretched to 40: the first 20 stay as they are"):
    stretched(np.zeros((20, 4)), 40)
