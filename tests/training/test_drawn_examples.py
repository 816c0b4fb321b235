"""A step whose terms read drawn examples: the same on devices, refused in microbatches and between epochs."""

import functools

import jax
import numpy as np
import pytest
from tiny import tiny_batch, tiny_config, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.parallel import sharding
from mmcontrast.training.epoch_hooks import check_hooks
from mmcontrast.training.program import Plan, build_program, make_method
from mmcontrast.training.step import init_state, train_step

quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
PATH = "fusion(text[0]~pair, image[0])/match"


def config(**changes):
  c = tiny_config()
  pair = dict(query="image[0]/image_joint", key="text[0]/text_joint", temperature=dict(init=0.2, learned=True))
  pairs = ("fusion(text[0], image[0])/match", PATH, "fusion(text[0], image[0]~pair)/match")
  c["objective"] = dict(pair=pair, match=dict(module=dict(name="matching"), embeddings=pairs))
  c["towers"]["fusion"] = dict(name="fusion_transformer", reads=("text", "image"), width=16, depth=1, heads=2)
  c["heads"] = dict(
    image_joint=dict(tower="image", name="linear", dim=8),
    text_joint=dict(tower="text", name="linear", dim=8),
    match=dict(tower="fusion", name="match"),
  )
  c["optimizer"] = dict(name="sgd", learning_rate=0.1)
  return c | changes


def test_a_step_is_the_same_on_devices_and_in_any_order():
  batch, order = tiny_batch() | {"id": np.array([*range(14), 0, 1], np.int32)}, np.random.default_rng(0).permutation(16)
  method = make_method(config(), tiny_spec())
  state, found = quick(functools.partial(init_state, method))(batch), []
  for devices, given in ((1, batch), (4, jax.tree.map(lambda x: x[order], batch))):
    mesh = sharding.make_mesh({"data": -1}, jax.devices()[:devices])
    step = quick(functools.partial(train_step, method, mesh))
    found.append(
      jax.device_get(step(jax.device_put(state, sharding.replicated(mesh)), sharding.put_batch(given, mesh)))
    )
  (once, metrics), (again, others) = found
  assert 0.3 < metrics["match/loss"] < 2 and metrics["match/anchors"] == 16
  for name in metrics:
    np.testing.assert_allclose(others[name], metrics[name], rtol=2e-5, atol=1e-6, err_msg=name)
  for a, b in zip(jax.tree.leaves(once.params), jax.tree.leaves(again.params), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6)


def test_chunks_of_a_batch_do_not_hold_what_is_drawn():
  with pytest.raises(UserError, match=r"config\.batch\.microbatches=2: objective\.match reads 'fusion\(text\[0\]~pair, "
                                      r".* use microbatches=1") as error:  # fmt: skip
    make_method(config(batch=dict(size=16, microbatches=2)), tiny_spec())
  assert "\n" not in str(error.value)


def test_a_hook_sees_no_drawn_example():
  c = config(epoch_hooks=dict(k=dict(name="kmeans", term="match", embedding=PATH)))
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:1])
  with pytest.raises(UserError, match=r"config\.epoch_hooks\.k\.embedding: 'fusion\(text.* drawn in a training step"):
    check_hooks(Plan(c, mesh, build_program(c, tiny_spec(), mesh), tiny_spec()))
