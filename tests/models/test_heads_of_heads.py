"""Heads that read heads, and terms that learn and remember, in a train step: branches, devices, resume."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_same, tiny_batch, tiny_config, tiny_spec

from mmcontrast.errors import UserError
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.parallel import sharding
from mmcontrast.runs.checkpoint import Checkpoints
from mmcontrast.training.program import build_program, make_method
from mmcontrast.training.step import init_state, train_step

VIEWS = ("image[0]/image_ssl", "image[1]/image_ssl")


def config(**changes):
  """Every way to read or to remember that pairs alone do not have: a predictor, clusters with a queue, a centre."""
  c = tiny_config(optimizer=dict(name="sgd", learning_rate=0.1))
  c["heads"] = dict(
    image_ssl=dict(tower="image", name="mlp", dim=8, batch_norm=True),
    predictor=dict(of="image_ssl", name="mlp", dim=8, batch_norm=True),
    image_dino=dict(of="image_ssl", name="prototypes", dim=5),
  )
  c["objective"] = dict(
    byol=dict(regularizer="alignment", embeddings=("image[0]/predictor", f"{VIEWS[1]}@momentum")),
    clusters=dict(module=dict(name="swav", prototypes=4, queue=16, temperature=0.2), embeddings=VIEWS),
    views=dict(module="dino", embeddings=("image[0]/image_dino", "image[1]/image_dino",
                                          "image[0]/image_dino@momentum", "image[1]/image_dino@momentum")),
  )  # fmt: skip
  c["momentum"] = dict(decay=0.9, update="after_step")
  c["towers"] = dict(image=dict(name="vit", patch=8, width=8, depth=0, heads=2))
  c["data"]["views"], c["evaluation"]["text"] = dict(image=2, text=0), ""
  return c | changes


@functools.cache
def program(devices=1, frozen=()):
  c = config()
  c["optimizer"]["frozen"] = frozen
  method = make_method(c, tiny_spec())
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:devices])
  everywhere = sharding.replicated(mesh)
  first = jax.jit(functools.partial(init_state, method), out_shardings=everywhere)(tiny_batch())
  step = jax.jit(functools.partial(train_step, method, mesh), out_shardings=everywhere)
  return method, first, lambda state, seed: step(state, sharding.put_batch(tiny_batch(seed=seed), mesh))


def run(steps, devices=1, **options):
  _, state, step = program(devices, **options)
  found = []
  for seed in range(steps):
    state, metrics = step(state, seed)
    found.append(jax.device_get(metrics))
  return state, found


def paths(tree):
  return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
          for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}  # fmt: skip


def test_the_momentum_branch_has_what_its_embeddings_need_and_no_predictor():
  state, _ = run(1)
  assert set(state.params["heads"]) == {"image_ssl", "predictor", "image_dino"}
  assert set(state.momentum["params"]["heads"]) == {"image_ssl", "image_dino"}
  assert set(state.params["terms"]) == {"clusters"} and set(state.terms) == {"clusters", "views"}
  assert int(state.terms["clusters"]["filled_0"]) == 16 and np.any(state.terms["views"]["centre"])


def test_a_head_is_run_once_a_view_however_many_read_it():
  """Or its running statistics would move twice."""
  model = build_model(config(), None)
  views = {"image": Inputs(jnp.asarray(np.random.default_rng(0).normal(size=(6, 2, 16, 16, 3)), jnp.float32))}
  variables = model.init(jax.random.key(0), {"image": views["image"].view(0)})
  alone, stats = model.embed(variables, views, VIEWS[:1], train=True)
  every, both = model.embed(variables, views, (VIEWS[0], "image[0]/predictor", "image[0]/image_dino"), train=True)
  assert_same(stats["heads"]["image_ssl"], both["heads"]["image_ssl"])
  np.testing.assert_array_equal(alone[VIEWS[0]].pooled, every[VIEWS[0]].pooled)
  again = model.project(variables, "predictor", alone[VIEWS[0]], train=True)[0]
  np.testing.assert_allclose(again.pooled, every["image[0]/predictor"].pooled, rtol=1e-5, atol=1e-6)
  encoded = model.encode(variables, "image", views["image"].view(0))[0]
  assert encoded.grid == (2, 2)
  through = model.embed_through(variables, "predictor", encoded)  # as in evaluation
  still = model.embed(variables, views, ["image[0]/predictor"], train=False)[0]["image[0]/predictor"]
  np.testing.assert_allclose(through.pooled, still.pooled, rtol=1e-5, atol=1e-6)


def test_eight_devices_do_what_one_does():
  (one, metrics), (eight, others) = run(3), run(3, 8)
  for name, value in metrics[-1].items():
    np.testing.assert_allclose(others[-1][name], value, rtol=1e-4, atol=1e-5, err_msg=name)
  for tree in ("params", "terms", "momentum"):
    for name, leaf in paths(getattr(eight, tree)).items():
      np.testing.assert_allclose(leaf, paths(getattr(one, tree))[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_a_killed_run_goes_on_bit_by_bit(tmp_path):
  """What terms remember is in the checkpoint."""
  _, first, step = program()
  state = step(step(first, 0)[0], 1)[0]
  like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), first)
  with contextlib.closing(Checkpoints(tmp_path, config()["checkpoint"])) as checkpoints:
    checkpoints.save(state, config(), None)
  with contextlib.closing(Checkpoints(tmp_path, config()["checkpoint"])) as checkpoints:
    restored = checkpoints.restore(like)
  assert_same(restored, state)
  assert_same(step(restored, 2), step(state, 2))


def test_modules_are_decayed_frozen_and_adapted_as_towers_are():
  state, _ = run(1)
  table = state.params["terms"]["clusters"]["prototypes"]["kernel"]
  np.testing.assert_allclose(np.linalg.norm(table, axis=1), 1, rtol=1e-5)
  assert not np.array_equal(table, program()[1].params["terms"]["clusters"]["prototypes"]["kernel"])
  frozen = ("terms/clusters/.*", "heads/predictor/.*")
  before, (after, _) = program(frozen=frozen)[1], run(2, frozen=frozen)
  for part in (("terms", "clusters"), ("heads", "predictor")):
    assert_same(*(functools.reduce(lambda tree, key: tree[key], part, s.params) for s in (before, after)))
  assert_same(before.batch_stats["heads"]["predictor"], after.batch_stats["heads"]["predictor"])
  c = config(lora=dict(targets="terms/clusters/.*/kernel", rank=1, alpha=1.0))
  c["optimizer"] |= dict(weight_decay=0.5)
  method = make_method(c, tiny_spec())
  shapes = jax.eval_shape(functools.partial(init_state, method), tiny_batch())
  assert shapes.params["lora"]["terms"]["clusters"]["prototypes"]["kernel"]["a"].shape == (4, 1)
  zeros = jax.tree.map(jnp.zeros_like, state.params)
  optimizer = make_method(c | dict(lora=dict(targets="", rank=8, alpha=16.0)), tiny_spec()).optimizer
  updates, _ = optimizer.update(zeros, optimizer.init(state.params), state.params)
  np.testing.assert_allclose(updates["terms"]["clusters"]["prototypes"]["kernel"], -0.1 * 0.5 * table, rtol=1e-5)


def test_masks_pass_through_microbatches_and_update_rules():
  """Tokens with a mask are encoded in chunks, and their gradient is projected, as if in one batch."""
  c = tiny_config(optimizer=dict(name="sgd", learning_rate=0.1), update_rule=dict(name="project_conflicts"))
  c["heads"] = {f"{tower}_{kind}": dict(tower=tower, name=f"token_{kind}", dim=4)
                for tower in ("image", "text") for kind in ("linear", "weighted")}  # fmt: skip
  c["objective"] = {kind: dict(query=f"text[0]/text_{kind}", key=f"image[0]/image_{kind}", score=score)
                    for kind, score in (("linear", "token_max"), ("weighted", "token_weighted"))}  # fmt: skip
  batch, found = tiny_batch(), []
  for count, rule in ((1, "project_conflicts"), (4, "project_conflicts"), (1, "sum")):
    method = make_method(c | dict(batch=dict(size=16, microbatches=count), update_rule=dict(name=rule, **(
      dict(on="heads/.*") if rule != "sum" else {}))), tiny_spec())  # fmt: skip
    state = jax.jit(functools.partial(init_state, method))(batch)
    found.append(jax.jit(functools.partial(train_step, method, None))(state, batch))
  for name, leaf in paths(found[1][0].params).items():
    np.testing.assert_allclose(leaf, paths(found[0][0].params)[name], rtol=1e-4, atol=1e-6, err_msg=name)
  assert found[0][1]["loss"] == pytest.approx(float(found[2][1]["loss"]), rel=1e-5)


@pytest.mark.parametrize(
  ("heads", "message"),
  [
    (dict(a=dict(of="b", name="linear", dim=4), b=dict(of="a", name="linear", dim=4)),
     r"heads\.a\.of: a of b .*cycle"),
    (dict(a=dict(of="imag", name="linear", dim=4)), r"heads\.a\.of: no such choice 'imag'; did you mean 'image'"),
    (dict(a=dict(of="a", name="linear", dim=4)), r"heads\.a\.of: no such choice 'a'"),
    (dict(a=dict(of="image", tower="image", name="linear", dim=4)), r"heads\.a: tower='image' and of='image'"),
    (dict(image=dict(tower="image", name="linear", dim=4), b=dict(of="image", name="linear", dim=4)),
     r"heads\.b\.of: 'image' is a tower and a head; write tower='image'"),
    (dict(a=dict(tower="image", name="linear", dim=4), b=dict(of="a", name="token_linear", dim=4)),
     r"heads\.b\.of: a 'token_linear' reads mask and tokens, which the head 'a' does not give"),
  ],
)  # fmt: skip
def test_what_a_head_cannot_read(heads, message):
  with pytest.raises(UserError, match=rf"config\.{message}") as error:
    build_model(config(heads=heads), None)
  assert "\n" not in str(error.value)


def test_a_head_of_a_tower_may_say_so_either_way():
  heads = {key: dict(name="linear", dim=4, **{key: "image"}) for key in ("tower", "of")}
  model = build_model(config(heads=heads), None)
  assert model.tower_of_head == {"tower": "image", "of": "image"} and not model.head_of_head


def test_the_dry_run_and_shardings_know_terms_that_remember():
  mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
  built = build_program(config(sharding=[("terms/clusters/.*", ()), (".*", ())]), tiny_spec(), mesh)
  assert built.state.terms["clusters"]["queue_0"].shape == (16, 8)
