"""Optimizers against hand-written ones and golden values; frozen parameters; rules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from mmcontrast.errors import UserError
from mmcontrast.optimization.optim import OPTIMIZERS, frozen_mask, make_optimizer
from mmcontrast.parallel.sharding import make_mesh, shard_state
from mmcontrast.parameter_paths import parameter_paths
from mmcontrast.runs.train_state import TrainState


def params():
  rng = np.random.default_rng(0)

  def leaf(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  return {
    "towers": {
      "image": {"conv": {"kernel": leaf(3, 4), "bias": leaf(4)}, "norm": {"scale": leaf(4)}},
      "text": {"embed": {"embedding": leaf(5, 4)}},
    },
    "heads": {"image_ssl": {"kernel": leaf(4, 2)}},
    "terms": {"image_text": {"log_scale": leaf()}},
  }


def gradients(step):
  return jax.tree.map(lambda p: jnp.sin(3 * p + step), params())


def train(transformation, steps=5):
  state, weights = transformation.init(params()), params()
  for step in range(steps):
    updates, state = transformation.update(gradients(step), state, weights)
    weights = optax.apply_updates(weights, updates)
  return weights, state


def assert_trees_close(a, b, rtol=1e-6):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-8), a, b)


def test_paths():
  assert "towers/image/conv/kernel" in parameter_paths(params())
  assert "terms/image_text/log_scale" in parameter_paths(params())


def test_adamw_is_optax_with_its_mask():
  rate = dict(name="warmup_cosine", peak=0.1, warmup_steps=2)
  ours, schedules = make_optimizer(
    dict(name="adamw", learning_rate=rate, weight_decay=0.3, clip_norm=0.5, b2=0.95), params(), 10
  )
  schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 10)
  mask = {
    "towers": {
      "image": {"conv": {"kernel": True, "bias": False}, "norm": {"scale": False}},
      "text": {"embed": {"embedding": True}},
    },
    "heads": {"image_ssl": {"kernel": True}},
    "terms": {"image_text": {"log_scale": False}},
  }
  theirs = optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(schedule, b2=0.95, weight_decay=0.3, mask=mask))
  assert_trees_close(train(ours)[0], train(theirs)[0])
  np.testing.assert_allclose(schedules["learning_rate"](2), 0.1, rtol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_those_of_optax(name):
  """A name and a learning rate alone give what optax's function of that name gives, on the matrices all decay."""
  ours, _ = make_optimizer(dict(name=name, learning_rate=0.1), params(), 10)
  theirs = getattr(optax, name, None) or getattr(optax.contrib, name)
  found, wanted = (train(one)[0]["heads"]["image_ssl"]["kernel"] for one in (ours, theirs(0.1)))
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)


OTHERS = [
  (dict(name="lamb", b1=0.8, eps=1e-3), lambda: optax.lamb(0.1, b1=0.8, eps=1e-3)),
  (dict(name="lion", b2=0.9, weight_decay=[(".*", 0.3)]), lambda: optax.lion(0.1, b2=0.9, weight_decay=0.3)),
  (dict(name="adafactor", min_dim_size_to_factor=2, clipping_threshold=None, multiply_by_parameter_scale=False),
   lambda: optax.adafactor(0.1, 2, clipping_threshold=None, multiply_by_parameter_scale=False)),
  (dict(name="adafactor", momentum=0.9, decay_rate=0.7),
   lambda: optax.adafactor(0.1, momentum=0.9, decay_rate=0.7)),
  (dict(name="muon", beta=0.9, nesterov=False, consistent_rms=0.2, ns_steps=3, adam_on="heads/.*"),
   lambda: optax.contrib.muon(0.1, beta=0.9, nesterov=False, consistent_rms=0.2, ns_steps=3,
                              muon_weight_dimension_numbers=numbers)),
]  # fmt: skip


def numbers(tree):
  """Muon for the one kernel of a tower."""
  given = jax.tree.map(lambda _: None, tree)
  given["towers"]["image"]["conv"]["kernel"] = optax.contrib.MuonDimensionNumbers()
  return given


@pytest.mark.parametrize(("config", "theirs"), OTHERS)
def test_options_are_those_of_optax(config, theirs):
  """On all parameters."""
  ours, _ = make_optimizer({"learning_rate": 0.1, **config}, params(), 10)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), train(ours)[0], train(theirs())[0])


def as_stack(layers):
  """A tower of three layers in one array each, and a tower of one."""
  return {"towers": {"a": {"blocks": jax.tree.map(lambda *x: jnp.stack(x), *layers)}, "b": {"blocks_0": layers[0]}}}


def as_layers(layers):
  return {"towers": {"a": {f"blocks_{n}": one for n, one in enumerate(layers)}, "b": {"blocks_0": layers[0]}}}


@pytest.mark.parametrize("name", ["lars", "lamb", "adafactor", "muon"])
def test_a_scanned_stack_moves_as_its_layers(name):
  draw = np.random.default_rng(1)
  layers = [
    {"fc": {"kernel": jnp.asarray(draw.normal(size=(4, 3)) * 10**n, jnp.float32), "bias": jnp.full(3, 1.0 + n)}}
    for n in range(3)
  ]
  options = {"min_dim_size_to_factor": 2} if name == "adafactor" else {}
  moved = []
  for form in (as_stack, as_layers):
    weights = form(layers)
    transformation, _ = make_optimizer(
      dict(name=name, learning_rate=0.1, weight_decay=0.1, layer_decay=0.5, **options), weights, 10
    )
    state = transformation.init(weights)
    for step in range(3):
      gradient = jax.tree.map(lambda w: jnp.sin(3 * w + step), weights)  # noqa: B023
      updates, state = jax.jit(transformation.update)(gradient, state, weights)
      weights = optax.apply_updates(weights, updates)
    moved.append(weights["towers"])
  stack, alone = moved
  of_layers = jax.tree.map(lambda *x: jnp.stack(x), *(alone["a"][f"blocks_{n}"] for n in range(3)))
  assert_trees_close(stack["a"]["blocks"], of_layers, rtol=1e-5)
  assert_trees_close(stack["b"], alone["b"], rtol=1e-5)


@pytest.mark.parametrize("name", ["lamb", "lion", "adafactor", "muon"])
def test_on_four_devices_with_parameters_cut(name):
  """fsdp and tensor parallel: what one device does."""
  draw = np.random.default_rng(2)
  weights = {"towers": {"a": {"blocks": {"mlp": {"fc1": {
    "kernel": jnp.asarray(draw.normal(size=(2, 256, 256)), jnp.float32), "bias": jnp.ones((2, 256))}}}}}}  # fmt: skip
  options = {"min_dim_size_to_factor": 16} if name == "adafactor" else {}
  transformation, _ = make_optimizer(dict(name=name, learning_rate=0.1, weight_decay=0.1, **options), weights, 10)
  state = TrainState(jnp.int32(0), weights, {}, transformation.init(weights), None, {}, {})

  def update(state):
    gradients = jax.tree.map(lambda w: jnp.sin(3 * w), state.params)
    return optax.apply_updates(state.params, transformation.update(gradients, state.opt_state, state.params)[0])

  mesh = make_mesh({"data": 1, "fsdp": 2, "tensor": 2}, jax.devices()[:4])
  placed = shard_state("fsdp_tp", mesh, state)
  assert placed.params["towers"]["a"]["blocks"]["mlp"]["fc1"]["kernel"].spec == PartitionSpec(None, "fsdp", "tensor")
  cut = jax.jit(update, in_shardings=(placed,), out_shardings=placed.params)(jax.device_put(state, placed))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), cut, jax.jit(update)(state))


def test_sgd_is_pytorchs():
  ours, _ = make_optimizer(dict(name="sgd", learning_rate=0.1, momentum=0.8, weight_decay=[(".*", 0.01)]), params(), 10)
  weights, buffer = params(), jax.tree.map(jnp.zeros_like, params())
  for step in range(5):
    buffer = jax.tree.map(lambda b, g, w: 0.8 * b + g + 0.01 * w, buffer, gradients(step), weights)
    weights = jax.tree.map(lambda w, b: w - 0.1 * b, weights, buffer)
  assert_trees_close(train(ours)[0], weights, rtol=1e-5)


def golden(n, d, s):
  i = np.arange(n * d, dtype=np.float64).reshape(n, d)
  return np.sin(0.7 * (i + 1) + s)


def test_lars_golden_first_step():
  with jax.enable_x64(True):
    weights = {"kernel": jnp.array(golden(3, 4, 0)), "bias": jnp.array(golden(4, 1, 1)[:, 0])}
    grads = {"kernel": jnp.array(golden(3, 4, 2)), "bias": jnp.array(golden(4, 1, 3)[:, 0])}
    lars, _ = make_optimizer(dict(name="lars", learning_rate=0.3, weight_decay=0.01), weights, 10)
    updates, _ = lars.update(grads, lars.init(weights), weights)
    new = optax.apply_updates(weights, updates)
    # The learning rate is float32: 0.3 to 4e-8.
    np.testing.assert_allclose(new["kernel"].sum(), 2.508569171357, rtol=1e-7)
    np.testing.assert_allclose(new["bias"].sum(), 1.958407285456, rtol=1e-7)


def test_lars_keeps_the_learning_rate_out_of_its_momentum():
  rate = dict(name="linear", init=0.5, end=0.1)
  ours, schedules = make_optimizer(
    dict(name="lars", learning_rate=rate, weight_decay=0.1, trust_coefficient=0.01), params(), 4
  )
  weight = params()["heads"]["image_ssl"]["kernel"]
  buffer = jnp.zeros_like(weight)
  for step in range(4):
    direction = gradients(step)["heads"]["image_ssl"]["kernel"] + 0.1 * weight
    trust = 0.01 * jnp.linalg.norm(weight) / jnp.linalg.norm(direction)
    buffer = 0.9 * buffer + trust * direction
    weight = weight - schedules["learning_rate"](step) * buffer
  np.testing.assert_allclose(train(ours, 4)[0]["heads"]["image_ssl"]["kernel"], weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_means_frozen(name):
  config = dict(name=name, learning_rate=0.1, weight_decay=0.1, clip_norm=1.0, frozen=["towers/image/.*"]) | (
    dict(momentum=0.9) if name == "sgd" else {}
  )  # a state to look at
  transformation, _ = make_optimizer(config, params(), 10)
  state, weights = transformation.init(params()), params()
  kernel = weights["towers"]["image"]["conv"]["kernel"].at[0, 0].set(-0.0)
  weights["towers"]["image"]["conv"]["kernel"] = kernel
  before = jax.tree.map(lambda w: np.asarray(w).tobytes(), weights["towers"]["image"])
  for step in range(3):
    updates, state = jax.jit(transformation.update)(gradients(step), state, weights)
    weights = jax.jit(optax.apply_updates)(weights, updates)
  after = jax.tree.map(lambda w: np.asarray(w).tobytes(), weights["towers"]["image"])
  assert before == after
  assert not np.array_equal(weights["heads"]["image_ssl"]["kernel"], params()["heads"]["image_ssl"]["kernel"])
  held = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(state)[0]]
  assert not [path for path in held if "'image'" in path]
  assert [path for path in held if "'text'" in path]


def test_frozen_gradients_do_not_count_in_the_clip():
  config = dict(name="sgd", learning_rate=1.0, momentum=0.0, clip_norm=1.0, frozen=["(towers|terms)/.*"])
  transformation, _ = make_optimizer(config, params(), 10)
  grads = gradients(0)
  updates, _ = transformation.update(grads, transformation.init(params()), params())
  grad = grads["heads"]["image_ssl"]["kernel"]
  np.testing.assert_allclose(
    updates["heads"]["image_ssl"]["kernel"], -grad / max(1.0, float(jnp.linalg.norm(grad))), rtol=1e-6
  )


def test_multipliers_first_match_wins():
  config = dict(
    name="sgd", learning_rate=1.0, momentum=0.0, learning_rate_multipliers=[(".*/bias", 3.0), ("towers/image/.*", 0.5)]
  )
  transformation, _ = make_optimizer(config, params(), 10)
  updates, _ = transformation.update(gradients(0), transformation.init(params()), params())
  ratio = jax.tree.map(lambda u, g: float((u / g).mean()), updates, gradients(0))
  np.testing.assert_allclose(ratio["towers"]["image"]["conv"]["bias"], -3, rtol=1e-6)
  np.testing.assert_allclose(ratio["towers"]["image"]["conv"]["kernel"], -0.5, rtol=1e-6)
  np.testing.assert_allclose(ratio["heads"]["image_ssl"]["kernel"], -1, rtol=1e-6)


def test_configs_and_shapes_are_enough():
  config = ConfigDict(
    dict(name="adamw", learning_rate=dict(name="cosine", init=0.1), weight_decay=[(".*/kernel", 0.1), (".*", 0.0)])
  )
  shapes = jax.eval_shape(params)
  transformation, _ = make_optimizer(config, shapes, 10)
  assert_trees_close(train(transformation)[0], train(transformation)[0], rtol=0)


def test_frozen_mask():
  mask = frozen_mask(params(), ["towers/text/.*"])
  assert mask["towers"]["text"]["embed"]["embedding"] is True
  assert mask["heads"]["image_ssl"]["kernel"] is False


@pytest.mark.parametrize(
  "options, says",
  [
    (dict(name="adam"), "'adamw'"),
    (dict(wieght_decay=0.1), "'weight_decay'"),
    (dict(name="sgd", b1=0.1), "'b1'"),
    (dict(learning_rate=None), "learning_rate"),
    (dict(learning_rate=dict(name="cosin", init=1)), "optimizer.learning_rate.name"),
    (dict(clip_norm=0), "clip_norm"),
    (dict(weight_decay=[("towers/.*", 0.1)]), "'heads/image_ssl/kernel'"),
    (dict(weight_decay=[("tower/.*", 0.1), (".*", 0)]), "'tower/.*' matches no parameter"),
    (dict(weight_decay=[(".*", 0), ("towers/.*", 0.1)]), "is never used"),
    (dict(weight_decay=[("(", 0.1)]), "not a regex"),
    (dict(weight_decay=["towers/.*"]), "(regex, number)"),
    (dict(frozen=["towers/imag/.*"]), "optimizer.frozen"),
    (dict(learning_rate_multipliers=[("x", 1)]), "optimizer.learning_rate_multipliers"),
    (dict(name="lion", b1=1.0), "optimizer.b1: 1.0 is not below 1; the default is 0.9"),
    (dict(name="lamb", eps="small"), "optimizer.eps: 'small' is not a number of 0 or more"),
    (dict(name="muon", ns_steps=0), "optimizer.ns_steps: 0 is not a whole number of 1 or more; the default is 5"),
    (dict(name="muon", nesterov=1), "optimizer.nesterov: 1 is not True or False"),
    (dict(name="muon", mu_dtype="bflat16"), "optimizer.mu_dtype: 'bflat16' is no type of numbers"),
    (dict(name="muon", adam_on=["heads/imag"]), "optimizer.adam_on: 'heads/imag' matches no parameter; did you mean"),
    (dict(name="muon", adam_on="("), "optimizer.adam_on: '(' is not a regex"),
    (dict(name="muon", adam_on=(".*",)), "optimizer.adam_on: no matrix is left to muon"),
    (dict(name="adafactor", clipping_threshold=-1), "optimizer.clipping_threshold: -1 is not a number"),
    (dict(name="muonn"), "did you mean 'muon'"),
  ],
)
def test_errors_name_the_key_and_the_choice(options, says):
  with pytest.raises(UserError) as error:
    make_optimizer({"learning_rate": 0.1, **options}, params(), 10)
  assert says in str(error.value) and "\n" not in str(error.value)
