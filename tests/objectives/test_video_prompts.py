"""The contrast of videos with texts that are told what is seen: by NumPy, on devices, with who is absent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.video_prompts import VideoPrompts
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.video_prompts import VideoPromptContrast

N, D = 8, 6
TERM = VideoPromptContrast(depth=1, heads=2, alpha=0.5)
VALID = np.arange(N) != 3


def arrays():
  draw = np.random.default_rng(0)
  return tuple(jnp.asarray(draw.normal(size=shape)) for shape in ((N, D), (N, 4, D), (N, D)))


@pytest.fixture(scope="module", autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


@pytest.fixture(scope="module")
def params(float64):
  views = (Encoded(jnp.zeros((2, D))), Encoded(None, jnp.zeros((2, 3, D))), Encoded(jnp.zeros((2, D))))
  return TERM.init(jax.random.key(1), views, facts(np.ones(2, bool)))["params"]


def facts(valid):
  return Facts(("v", "p", "t"), jnp.asarray(valid), 0, {"temperature": 0.2}, {})


@jax.jit
def of(given, params, valid):
  def loss(given):
    video, tokens, text = given
    views = (Encoded(video), Encoded(None, tokens), Encoded(text))
    return TERM.apply({"params": params}, views, facts(valid))[0]

  return jax.value_and_grad(loss)(given)


def test_the_value_is_that_of_every_pair_by_itself(params):
  video, tokens, text = arrays()
  there = np.flatnonzero(VALID)
  prompts = VideoPrompts(1, 2, 0.5)
  each = jnp.broadcast_to(text, (N, N, D))
  told = np.array(each + jax.jit(prompts.apply)({"params": params["prompts"]}, each, tokens))

  def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  scores = np.einsum("bd,bkd->bk", unit(np.array(video)), unit(told))[np.ix_(there, there)] / 0.2
  ways = [scores - np.log(np.exp(scores).sum(axis, keepdims=True)) for axis in (1, 0)]
  expected = -sum(np.diagonal(way).mean() for way in ways) / 2
  value, gradients = of(arrays(), params, VALID)
  np.testing.assert_allclose(value, expected, rtol=1e-6)
  assert all(not np.any(gradient[3]) and np.any(gradient) for gradient in gradients)
  absent = tuple(x.at[3].set(jnp.nan) for x in arrays())
  np.testing.assert_allclose(of(absent, params, VALID)[0], expected, rtol=1e-6)


def test_four_devices_and_another_order_change_nothing(params):
  wanted = of(arrays(), params, VALID)
  place = jax.sharding.NamedSharding(
    jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",)), jax.sharding.PartitionSpec("data")
  )
  value, gradients = of(jax.device_put(arrays(), place), params, jax.device_put(VALID, place))
  np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
  for one, other in zip(gradients, wanted[1]):
    np.testing.assert_allclose(one, other, atol=1e-7)
  order = np.random.default_rng(1).permutation(N)
  value, gradients = of(tuple(x[order] for x in arrays()), params, VALID[order])
  np.testing.assert_allclose(value, wanted[0], rtol=1e-6)
  np.testing.assert_allclose(gradients[1], wanted[1][1][order], atol=1e-7)


def test_wrong_embeddings():
  with pytest.raises(UserError, match="name the vector of a video, its tokens and the vector of a text"):
    TERM.check_views(("video[0]/joint", "text[0]/joint"), run=None)
