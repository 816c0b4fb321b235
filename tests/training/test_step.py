"""The train step: devices, momentum, queues, frozen parts, resume; on all five MCT terms."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import five_terms, tiny_batch, tiny_config, tiny_spec

from mmcontrast.parallel import sharding
from mmcontrast.training.program import make_method
from mmcontrast.training.step import init_state, train_step


def program(devices: int = 1, **changes):
  """(method, initial state, jitted step) on `devices`, of the tiny config with `changes`.

  SGD, unless they say otherwise: the update is the gradient itself, not its sign as in Adam's first steps.
  """
  return _program(devices, json.dumps(dict(optimizer=dict(name="sgd", learning_rate=0.1)) | changes))


@functools.cache
def _program(devices, changes):
  changes = json.loads(changes)
  method = make_method(tiny_config(**changes), tiny_spec())
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:devices])
  everywhere = sharding.replicated(mesh)
  changes.pop("matrix", None)  # the state does not depend on how the loss is computed
  state = jax.device_put(_first_state(json.dumps(changes)), everywhere)
  step = jax.jit(functools.partial(train_step, method, mesh), out_shardings=everywhere)
  return method, state, lambda state, batch: step(state, sharding.put_batch(batch, mesh))


@functools.cache
def _first_state(changes):
  method = make_method(tiny_config(**json.loads(changes)), tiny_spec())
  return jax.device_get(jax.jit(functools.partial(init_state, method))(tiny_batch()))


def run(steps: int, devices: int = 1, **changes):
  _, state, step = program(devices, **changes)
  states, metrics = [state], []
  for number in range(steps):
    state, found = step(state, tiny_batch(seed=number))
    states.append(state)
    metrics.append(jax.device_get(found))
  return states, metrics


def leaves(tree):
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


@pytest.mark.parametrize("impl", ["dense", "ring"])  # of rows: objectives/test_implementations.py
def test_eight_devices_do_what_one_does(impl):
  one, metrics_one = run(2)
  eight, metrics_eight = run(2, 8, matrix=tiny_config()["matrix"] | dict(impl=impl, tile=4))
  for name, value in metrics_one[-1].items():
    np.testing.assert_allclose(metrics_eight[-1][name], value, rtol=1e-5, atol=1e-6, err_msg=name)
  moved = {name: leaf - leaves(one[0].params)[name] for name, leaf in leaves(one[-1].params).items()}
  for name, leaf in leaves(eight[-1].params).items():
    error = np.abs(leaf - leaves(eight[0].params)[name] - moved[name]).max()
    assert error <= 1e-5 * max(np.abs(moved[name]).max(), 1e-3), (name, error)
  assert "['terms']['image_to_text']['log_scale']" in moved
  for tree in ("momentum", "queues", "batch_stats"):
    for name, leaf in leaves(getattr(eight[-1], tree)).items():
      np.testing.assert_allclose(leaf, leaves(getattr(one[-1], tree))[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_every_parameter_moves():
  states, _ = run(2)
  before, after = leaves(states[0].params), leaves(states[-1].params)
  # The first row of token embeddings is padding; the array as a whole moves.
  assert [name for name in before if np.array_equal(before[name], after[name])] == []


def test_momentum_before_the_keys_follows_the_parameters_before_the_step():
  (first, second), _ = run(1)
  online, old, new = (leaves(t) for t in (first.params, first.momentum["params"], second.momentum["params"]))
  assert set(new) < set(online)
  for name, leaf in new.items():
    np.testing.assert_allclose(leaf, 0.999 * old[name] + 0.001 * online[name], rtol=1e-6, atol=1e-8)


def test_momentum_after_the_step_follows_the_new_parameters():
  (first, second), _ = run(1, momentum=dict(decay=0.9, update="after_step"))
  for name, leaf in leaves(second.momentum["params"]).items():
    old, new = leaves(first.momentum["params"])[name], leaves(second.params)[name]
    # Where the two nearly cancel, the error is a rounding of the larger, not of the sum.
    rounding = np.finfo(np.float32).eps * np.maximum(np.abs(old), np.abs(new))
    assert (np.abs(leaf - (0.9 * old + 0.1 * new)) <= 4 * rounding).all(), name


def test_momentum_branch_has_batch_statistics_of_its_own():
  states, _ = run(2)
  momentum, online = leaves(states[-1].momentum["batch_stats"]), leaves(states[-1].batch_stats)
  assert momentum and set(momentum) == set(online)
  assert all(not np.array_equal(leaf, online[name]) for name, leaf in momentum.items())


def test_queues_hold_the_newest_keys_and_their_tags():
  states, _ = run(2)
  name = "image[1]/image_ssl@momentum"
  first, second = states[1].queues[name], states[2].queues[name]
  assert (int(first["pointer"]), int(second["pointer"])) == (16, 0)
  np.testing.assert_array_equal(second["keys"][:16], first["keys"][:16])
  np.testing.assert_array_equal(second["tags"][16:], tiny_batch(seed=1)["tags"])
  np.testing.assert_allclose(np.linalg.norm(second["keys"], axis=1), 1.0, rtol=1e-5)
  assert set(states[0].queues) == {term["key"] for term in five_terms().values()}


def test_weights_may_be_schedules_and_zero_switches_a_term_off():
  objective = {name: five_terms()[name] for name in ("image_image", "image_tags")}
  objective["image_tags"]["weight"] = dict(name="linear", init=0.0, end=1.0, steps=2)
  _, metrics = run(3, objective=objective)
  assert [round(float(m["image_tags/weight"]), 6) for m in metrics] == [0.0, 0.5, 1.0]
  assert np.isclose(metrics[0]["loss"], metrics[0]["image_image/loss"], rtol=1e-6)
  assert np.isclose(metrics[2]["loss"], metrics[2]["image_image/loss"] + metrics[2]["image_tags/loss"], rtol=1e-6)


def test_prototypes_are_learned():
  objective = {"image_tags": dict(five_terms()["image_tags"], negatives="batch", prototypes=12)}
  states, _ = run(1, objective=objective)
  before, after = (state.params["terms"]["image_tags"]["prototypes"] for state in states)
  assert before.shape == (12, 8) and np.all(np.any(before != after, axis=1))
  np.testing.assert_allclose(np.linalg.norm(before, axis=1), 1, rtol=1e-5)


def test_the_step_is_pure():
  _, state, step = program()
  a, b = step(state, tiny_batch()), step(state, tiny_batch())
  assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))


def test_frozen_means_frozen():
  # The head has batch norm: its running statistics must stay too.
  frozen = ("towers/image/.*", "heads/image_ssl/.*")
  states, _ = run(3, optimizer=dict(name="adamw", learning_rate=1e-2, weight_decay=0.1, frozen=frozen))
  for tree in ("params", "batch_stats"):
    before, after = leaves(getattr(states[0], tree)), leaves(getattr(states[-1], tree))
    parts = [name for name in before if "['image']" in name or "image_ssl" in name]
    assert parts and all(np.array_equal(before[name], after[name]) for name in parts)
  moved = leaves(states[-1].params)["['heads']['text_ssl']['fc1']['kernel']"]
  assert not np.array_equal(moved, leaves(states[0].params)["['heads']['text_ssl']['fc1']['kernel']"])
  assert not any("['towers']['image']" in name for name in leaves(states[0].opt_state))


def test_the_loss_falls():
  _, state, step = program()
  losses = []
  for _ in range(30):
    state, metrics = step(state, tiny_batch())
    losses.append(float(metrics["image_to_text/loss"]))
  assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.3


def test_dtype_of_parameters_stays_float32():
  states, metrics = run(1)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(states[-1].params))
  assert metrics[0]["loss"].dtype == np.float32
