"""What is written differently for each platform gives the same numbers, parameters and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from mmcontrast.encoders import short_attention as kernel
from mmcontrast.encoders.attention import attend
from mmcontrast.encoders.conv import resolve
from mmcontrast.encoders.dense import Dense, JointDense
from mmcontrast.encoders.lowering import LOWERINGS, lowered_for, lowering
from mmcontrast.encoders.text import TextTransformer
from mmcontrast.encoders.vit import ViT


def arrays(batch=2, queries=9, keys=9, heads=2, dim=4, seed=0):
  draw = np.random.default_rng(seed)
  return [jnp.asarray(draw.normal(size=(batch, n, heads * dim)), jnp.float32) for n in (queries, keys, keys)]


def plain(q, k, v, mask, heads, causal, window):
  """The formula, in float32."""
  q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
  logits = jnp.einsum("blhd,bshd->bhls", q, k) * q.shape[-1] ** -0.5
  row, column = jnp.arange(q.shape[1])[:, None], jnp.arange(k.shape[1])
  seen = jnp.ones(logits.shape, bool) if mask is None else jnp.broadcast_to(mask[:, None, None, :], logits.shape)
  seen &= (column <= row) if causal else True
  seen &= (abs(column - row) <= window) if window is not None else True
  weights = jax.nn.softmax(jnp.where(seen, logits, -1e30), -1)
  return jnp.einsum("bhls,bshd->blhd", weights, v).reshape(*q.shape[:2], -1)


CASES = {
  "whole": {},
  "masked": {"mask": np.arange(9) < np.array([[5], [9]])},
  "one mask for all": {"mask": np.arange(9)[None] < 7},
  "causal": {"causal": True},
  "window": {"window": 2},
  "masked, causal, window": {"mask": np.arange(9) < np.array([[4], [9]]), "causal": True, "window": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_the_kernel_equals_the_formula_with_gradients(case):
  options = {"mask": None, "causal": False, "window": None} | CASES[case]
  inputs = arrays()
  weight = jnp.asarray(np.random.default_rng(1).normal(size=inputs[0].shape), jnp.float32)

  def value(attention, **more):
    return lambda q, k, v: jnp.sum(weight * attention(q, k, v, heads=2, **options, **more))

  ours = jax.value_and_grad(value(kernel.short_attention, interpret=True), (0, 1, 2))(*inputs)
  theirs = jax.value_and_grad(value(plain), (0, 1, 2))(*inputs)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), ours, theirs)


def test_the_kernel_takes_other_lengths_of_queries_and_keys():
  q, k, v = arrays(queries=3, keys=7)
  out = kernel.short_attention(q, k, v, None, 2, causal=False, interpret=True)
  np.testing.assert_allclose(out, plain(q, k, v, None, 2, False, None), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1, 1), (2, 2, 1), (2, 1, 2)])
def test_the_kernel_on_several_devices_equals_one(shape):
  mesh = Mesh(np.array(jax.devices()[:4]).reshape(shape), ("data", "fsdp", "tensor"))
  inputs = arrays(batch=8)
  mask = jnp.arange(9) < jnp.arange(2, 10)[:, None]

  def loss(mesh, q, k, v):
    return jnp.sum(kernel.short_attention(q, k, v, mask, 2, False, mesh=mesh, interpret=True) ** 2)

  cut = jax.jit(jax.value_and_grad(functools.partial(loss, mesh), (0, 1, 2)))(*inputs)
  one = jax.value_and_grad(functools.partial(loss, None), (0, 1, 2))(*inputs)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), cut, one)


def test_heads_are_taken_in_groups_when_all_do_not_fit(monkeypatch):
  inputs = arrays(heads=4, dim=64)

  def gradients(q, k, v):
    return jax.grad(lambda q: jnp.sum(kernel.short_attention(q, k, v, None, 4, True, interpret=True) ** 2))(q)

  whole = gradients(*inputs)
  monkeypatch.setattr(kernel, "MEMORY", 70_000)
  assert kernel.heads_at_once(9, 9, 4, 64, 4) == 2
  np.testing.assert_allclose(gradients(*inputs), whole, rtol=1e-5, atol=1e-5)


def test_what_the_kernel_takes():
  assert kernel.heads_at_once(196, 196, 12, 64, 2) == 12  # ViT-B/16 at 224 px: all heads at once
  assert kernel.heads_at_once(576, 576, 16, 64, 2) == 4  # ViT-L/16 at 384 px
  assert kernel.heads_at_once(256, 256, 16, 72, 2) == 16  # So400m/14 at 224 px: no group of its heads fills lanes
  assert not kernel.fits(1, 196, 12, 64, 2)  # one query: nothing is gained
  assert not kernel.fits(2048, 2048, 12, 64, 2)


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("tower", ["image", "text"])
def test_towers_are_the_same_on_every_platform(platform, tower, monkeypatch):
  monkeypatch.setattr(
    "mmcontrast.encoders.attention.short_attention", functools.partial(kernel.short_attention, interpret=True)
  )
  if tower == "image":
    module = ViT(width=16, depth=1, heads=2, patch=4, pool="map", scan=True, remat="keep_products")
    inputs = jnp.asarray(np.random.default_rng(0).normal(size=(2, 12, 12, 3)), jnp.float32)
  else:
    module = TextTransformer(vocab_size=20, width=16, depth=1, heads=2, causal=True, pool="eos")
    inputs = jnp.asarray(np.random.default_rng(0).integers(1, 20, (2, 7)))
  variables = module.init(jax.random.key(0), inputs, train=False)

  weight = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16)), jnp.float32)

  def loss(variables):
    return jnp.sum(weight * module.apply(variables, inputs, train=False).pooled)

  here = jax.value_and_grad(loss)(variables)
  with lowered_for(platform):
    made = module.init(jax.random.key(0), inputs, train=False)
    there = jax.value_and_grad(loss)(variables)
  jax.tree.map(np.testing.assert_array_equal, variables, made)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), here, there)


def test_queries_keys_and_values_are_stored_as_one_and_multiplied_as_the_platform_likes():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
  layer = JointDense(6, 3)
  variables = layer.init(jax.random.key(0), x)
  assert variables["params"]["kernel"].shape == (8, 18)
  whole = Dense(18).apply(variables, x)  # what one layer of the same parameters makes

  def products(platform):
    with lowered_for(platform):
      parts = layer.apply(variables, x)
      np.testing.assert_allclose(jnp.concatenate(parts, -1), whole, rtol=1e-6, atol=1e-6)
      return str(jax.make_jaxpr(layer.apply)(variables, x)).count("dot_general")

  assert (products("cpu"), products("tpu")) == (1, 3)


def test_the_program_decides_not_the_process():
  assert lowering() == LOWERINGS["cpu"]  # of the tests' process
  with lowered_for("tpu"):
    assert lowering().attention == "kernel" and resolve("auto") == "conv"
    with lowered_for("cpu"):
      assert resolve("auto") == "split"
    q = jnp.ones((1, 4, 2, 4))
    assert "pallas_call" in str(jax.make_jaxpr(lambda q: attend(q, q, q, None, False))(q))
  assert lowering() == LOWERINGS["cpu"]
