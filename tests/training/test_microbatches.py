"""A batch encoded in chunks: the step of the whole batch, in the memory of a chunk."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import five_terms, tiny_batch, tiny_config, tiny_spec

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.dropout import per_example
from mmcontrast.errors import UserError
from mmcontrast.parallel import sharding
from mmcontrast.train import train
from mmcontrast.training.microbatches import check_microbatches, encode_in_chunks
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step


def dropped_config(microbatches: int) -> dict:
  """A term of momentum keys and a queue, one between online branches, augmentation and dropout; SGD,
  so that a step shows the gradient."""
  objective = dict(
    momentum=five_terms()["image_to_text"],
    online=dict(query="image[0]/image_joint", key="text[0]/text_joint", temperature="momentum"),
  )
  config = tiny_config(
    optimizer=dict(name="sgd", learning_rate=1.0),
    objective=objective,
    augment=dict(image=dict(flip=0.5, brightness=0.4)),
    batch=dict(size=16, microbatches=microbatches),
  )
  config["towers"]["image"].update(dropout=0.2, patch_drop=0.5)
  config["towers"]["text"].update(dropout=0.2)
  del config["heads"]["image_ssl"], config["heads"]["text_ssl"]
  return config


@functools.cache
def first_state():
  method = make_method(dropped_config(1), tiny_spec())
  return jax.device_get(jax.jit(functools.partial(init_state, method))(tiny_batch()))


@functools.cache
def one_step(microbatches: int, devices: int = 1):
  """(parameters before, state after, metrics) of one step."""
  method = make_method(dropped_config(microbatches), tiny_spec())
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:devices])
  everywhere = sharding.replicated(mesh)
  step = jax.jit(functools.partial(train_step, method, mesh), out_shardings=everywhere)
  after, metrics = step(jax.device_put(first_state(), everywhere), sharding.put_batch(tiny_batch(), mesh))
  return jax.device_get((first_state().params, after, metrics))


@pytest.mark.slow
@pytest.mark.parametrize(("microbatches", "devices"), [(2, 1), (4, 2)])
def test_chunks_take_the_step_of_the_whole_batch(microbatches, devices):
  """Loss, gradients (temperature's too), metrics, momentum and queues, with dropout and augmentation."""
  before, whole, metrics = one_step(1)
  _, chunked, chunked_metrics = one_step(microbatches, devices)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), chunked_metrics, metrics)

  def same_gradient(path, old, new, expected):
    gradient = old - expected
    error = np.abs(new - expected).max()
    assert error <= 1e-5 * max(np.abs(gradient).max(), 1e-2), (jax.tree_util.keystr(path), error)

  jax.tree_util.tree_map_with_path(same_gradient, before, chunked.params, whole.params)
  scales = [tree["terms"]["momentum"]["log_scale"] for tree in (before, whole.params)]
  assert scales[0] != scales[1]
  for name in ("momentum", "queues"):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), getattr(chunked, name), getattr(whole, name)
    )


@pytest.mark.parametrize("mesh_devices", [0, 4])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_gradients_in_double_precision(count, mesh_devices):
  """A nonlinear encoder and a loss that mixes all examples."""
  with jax.enable_x64(True):
    mesh = sharding.make_mesh({"data": -1}, jax.devices()[:mesh_devices]) if mesh_devices else None
    draw = np.random.default_rng(0)
    w, x = draw.normal(size=(5, 3)), draw.normal(size=(16, 5))

    def encode(w, part):
      return {"z": jnp.tanh(part["x"] @ w)}

    def loss(embed, w):
      z = embed(w, {"x": jnp.asarray(x)})["z"]
      return jnp.sum(jax.nn.logsumexp(z @ z.T, 1) * jnp.arange(16)), z

    chunked = functools.partial(encode_in_chunks, encode, count=count, mesh=mesh)
    found, expected = (
      jax.jit(jax.value_and_grad(functools.partial(loss, embed), has_aux=True))(w) for embed in (chunked, encode)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), found, expected)


def test_no_example_moves_to_another_device():
  mesh = sharding.make_mesh({"data": 2, "fsdp": 2}, jax.devices()[:4])
  x = jax.ShapeDtypeStruct((16, 3), jnp.float32, sharding=sharding.batch_sharding(mesh))
  encode = functools.partial(encode_in_chunks, lambda w, x: w * x, count=2, mesh=mesh)
  compiled = jax.jit(encode, out_shardings=sharding.batch_sharding(mesh)).lower(2.0, x).compile()
  text = compiled.as_text()
  assert not [name for name in ("all-gather", "all-to-all", "collective-permute", "all-reduce") if name in text]


def vit(**options):
  return build_encoder(dict(name="vit", patch=4, width=32, depth=2, heads=2, **options))


def test_memory_shrinks_with_the_chunks():
  """Temporaries of a ViT's gradient: residuals are those of one chunk."""
  tower = vit()
  images = jax.ShapeDtypeStruct((64, 16, 16, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: tower.init(jax.random.key(0), x, train=False), images)

  def temporaries(count):
    def loss(variables, images):
      pooled = encode_in_chunks(lambda v, x: tower.apply(v, x, train=True).pooled, variables, images, count)
      return jnp.mean(jax.nn.logsumexp(pooled @ pooled.T, 1))

    compiled = jax.jit(jax.grad(loss)).lower(variables, images).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  one, eight = temporaries(1), temporaries(8)
  assert eight < 0.2 * one, (one, eight)


def test_dropout_belongs_to_the_example():
  tower = vit(dropout=0.5, drop_path=0.5)
  images = np.random.default_rng(0).normal(size=(6, 16, 16, 3)).astype(np.float32)
  seeds = np.array([3, 1, 4, 1, 5, 9], np.uint32)
  variables = jax.jit(lambda key: tower.init(key, images, train=False))(jax.random.key(0))

  @jax.jit
  def encode(images, seeds, key):
    with per_example(seeds):
      return tower.apply(variables, images, train=True, rngs={"dropout": key}).pooled

  def pooled(order, key=0):
    return np.asarray(encode(images[order], seeds[order], jax.random.key(key)))

  every, order = np.arange(6), np.array([4, 0])
  np.testing.assert_allclose(pooled(order), pooled(every)[order], rtol=1e-5, atol=1e-6)
  assert np.abs(pooled(every) - pooled(every, key=1)).max(1).min() > 1e-3
  images[3] = images[1]  # the same example with the same seed is dropped alike
  np.testing.assert_allclose(pooled(every)[3], pooled(every)[1], rtol=1e-5, atol=1e-6)


def test_dropout_keeps_the_mean():
  from flax import linen as nn

  with per_example(np.arange(64, dtype=np.uint32)):
    y = nn.Dropout(0.25, deterministic=False).apply({}, jnp.ones((64, 256)), rngs={"dropout": jax.random.key(0)})
  np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
  np.testing.assert_allclose(y.mean(), 1, atol=0.02)
  assert len(np.unique(np.asarray(y), axis=0)) == 64


@pytest.mark.parametrize(
  ("count", "message"),
  [
    (3, r"batch\.microbatches=3 does not divide the 8 examples of a device .*nearest that does is [24]"),
    (16, r"batch\.microbatches=16 does not divide .*nearest that does is 8"),
    (0, r"batch\.microbatches=0 .*nearest that does is 1"),
    ("two", r"batch\.microbatches=two .*nearest that does is 1"),
    (2, r"batch\.microbatches=2: config\.heads\.image_ssl has batch norm.*microbatches=1"),
  ],
)
def test_what_is_refused(count, message):
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:2])
  with pytest.raises(UserError, match=message) as error:
    check_microbatches(count, 16, mesh, {"towers": {}, "heads": {"image_ssl": {"bn1": {"mean": np.zeros(2)}}}})
  assert "\n" not in str(error.value)


def test_a_run_with_batch_norm_stops_before_it_compiles(tmp_path, data_dir):
  config = tiny_config(batch=dict(size=16, microbatches=2))
  with pytest.raises(UserError, match=r"microbatches=2: config\.heads\.image_ssl has batch norm"):
    train(config, tmp_path / "run", data_dir)
  assert not (tmp_path / "run").exists()
