"""One block, several towers: branches and their order, and texts that are hidden from a decoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.dropout import per_example
from mmcontrast.encoders.fusion import FusionTransformer
from mmcontrast.encoders.text import TextTransformer
from mmcontrast.errors import UserError

IDS = np.array([[1, 5, 6, 2, 0], [1, 7, 8, 9, 2], [1, 2, 0, 0, 0]])
REAL = IDS > 0
SMALL = dict(width=8, depth=2, heads=2)


def random(module, *inputs):
  """Variables of a module in which no bias is zero."""
  shapes = jax.eval_shape(lambda key: module.init(key, *inputs, train=False), jax.random.key(0))
  draw = np.random.default_rng(0)
  return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0, 0.4, leaf.shape), jnp.float32), shapes)


def context(batch=3, width=6):
  draw = np.random.default_rng(1)
  return Encoded(None, jnp.asarray(draw.normal(size=(batch, 4, width)), jnp.float32), np.arange(4) < [[4], [2], [3]])


def test_a_layer_of_two_blocks_is_one_of_self_and_one_of_cross_attention():
  """As open_clip has CoCa's: x + attn(norm1 x), + mlp(norm2 x), + cross(norm_cross x, norm_context c), + mlp(...)."""
  module = FusionTransformer(**SMALL, causal=True, pool="last", order="self_mlp_cross_mlp", context_norm=True)
  words, seen = Encoded(None, jax.random.normal(jax.random.key(0), (3, 5, 8)), REAL), context()
  params = random(module, words, seen)["params"]
  assert set(params["blocks_0"]) == {"norm1", "attn", "norm2", "mlp", "norm_cross", "norm_context", "cross_attn",
                                     "norm_cross_mlp", "cross_mlp"}  # fmt: skip
  made = module.apply({"params": params}, words, seen, train=False).tokens

  def dense(p, x):
    return x @ p["kernel"] + p["bias"]

  def norm(p, x):
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * p["scale"] + p["bias"]

  def attention(q, k, v, allowed):
    q, k, v = (x.reshape(*x.shape[:2], 2, 4) for x in (q, k, v))
    logits = jnp.einsum("blhd,bshd->bhls", q, k) / 2.0
    return jnp.einsum("bhls,bshd->blhd", jax.nn.softmax(jnp.where(allowed[:, None], logits, -1e9)), v).reshape(3, 5, 8)

  def mlp(p, x):
    return dense(p["fc2"], nn.gelu(dense(p["fc1"], x)))

  x, before = words.tokens, np.tril(np.ones((5, 5), bool)) & REAL[:, None]
  for i in range(2):
    p = params[f"blocks_{i}"]
    q, k, v = jnp.split(dense(p["attn"]["qkv"], norm(p["norm1"], x)), 3, -1)
    x = x + dense(p["attn"]["proj"], attention(q, k, v, before))
    x = x + mlp(p["mlp"], norm(p["norm2"], x))
    k, v = jnp.split(dense(p["cross_attn"]["kv"], norm(p["norm_context"], seen.tokens)), 2, -1)
    q = dense(p["cross_attn"]["q"], norm(p["norm_cross"], x))
    x = x + dense(p["cross_attn"]["proj"], attention(q, k, v, jnp.broadcast_to(seen.mask[:, None], (3, 5, 4))))
    x = x + mlp(p["cross_mlp"], norm(p["norm_cross_mlp"], x))
  np.testing.assert_allclose(made[REAL], norm(params["norm"], x)[REAL], atol=2e-5)


def test_blocks_in_a_loop_or_one_by_one():
  words, seen = Encoded(None, jax.random.normal(jax.random.key(0), (3, 5, 8)), REAL), context()
  single = FusionTransformer(**SMALL, order="self_mlp_cross_mlp")
  params = random(single, words, seen)["params"]
  looped = {
    "blocks": jax.tree.map(lambda *x: jnp.stack(x), params["blocks_0"], params["blocks_1"]),
    "norm": params["norm"],
  }
  module = FusionTransformer(**SMALL, order="self_mlp_cross_mlp", scan=True, remat="keep_products")
  found = module.apply({"params": looped}, words, seen, train=False).tokens
  np.testing.assert_allclose(found, single.apply({"params": params}, words, seen, train=False).tokens, atol=1e-5)


def test_texts_hidden_from_a_decoder_are_seen_whole_and_say_nothing():
  """CapPa: where all words are hidden, logits depend on neither them nor their number; elsewhere on those before."""
  text = TextTransformer(20, 8, 0, 2, 5, causal=True, pool="last", norm_after_pool=True, parallel=0.5)
  decoder = FusionTransformer(**SMALL, causal=True, pool="last")
  of_text = random(text, IDS)
  of_decoder = random(decoder, Encoded(None, jnp.zeros((3, 5, 8)), REAL), context())

  @jax.jit
  def run(ids, real, seeds):
    with per_example(seeds):
      read = text.apply(of_text, ids, real, train=True, rngs={"dropout": jax.random.key(3)})
    return decoder.apply(of_decoder, read, context(), train=True).tokens, read.parallel

  seeds = np.arange(3, dtype=np.uint32)
  while len(set(np.asarray(run(IDS, REAL, seeds)[1]))) == 1:
    seeds = seeds + np.uint32(3)
  made, hidden = jax.device_get(run(IDS, REAL, seeds))
  other = np.where(np.arange(5) >= 2, 7, IDS)
  moved, _ = jax.device_get(run(other, np.ones_like(REAL), seeds))
  np.testing.assert_allclose(moved[hidden], made[hidden], atol=1e-6)
  np.testing.assert_allclose(moved[~hidden, :2], made[~hidden, :2], atol=1e-6)
  assert np.abs(moved[~hidden] - made[~hidden]).max() > 1e-3
  assert np.abs(made[hidden][:, 0] - made[hidden][:, 4]).max() > 1e-3  # positions are told apart
  again = run(IDS[::-1], REAL[::-1], seeds[::-1])[1]
  np.testing.assert_array_equal(again[::-1], hidden)
  assert text.apply(of_text, IDS, REAL, train=False).parallel is None


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(parallel=1.5, causal=True, pool="eos"), r"parallel: 1\.5 is not a share of the examples"),
    (dict(parallel=0.5), r"parallel: is for texts that a causal decoder reads"),
    (dict(norm_after_pool=True), r"norm_after_pool=True is of one position"),
  ],
)
def test_options_that_do_not_go_together(options, message):
  with pytest.raises(UserError, match=message):
    TextTransformer(20, **options)
