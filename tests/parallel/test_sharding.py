"""Where the state lives: presets as committed text, what follows what, equal training, mistakes."""

import functools
import pathlib
import re

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from tiny import five_terms, tiny_batch, tiny_config, tiny_spec

from mmcontrast.cost.dry_run import _QUICK
from mmcontrast.encoders.lowering import lowered_for
from mmcontrast.errors import UserError
from mmcontrast.parallel import sharding
from mmcontrast.parameter_paths import path_name
from mmcontrast.runs.train_state import TrainState
from mmcontrast.training.program import build_program, make_method, shapes_of
from mmcontrast.training.step import init_state, train_step

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "sharding"
MESH = AbstractMesh((2, 4, 2), sharding.AXES)


@functools.cache
def large_state():
  """Shapes of the state of MCT with ViT-B/16 and a text tower of twelve layers."""
  towers = dict(
    image=dict(name="vit", width=768, depth=12, heads=12, patch=16, pool="map"),
    text=dict(name="text_transformer", width=512, depth=12, heads=8, vocab_size=32000),
  )
  method = make_method(tiny_config(towers=towers), tiny_spec())
  return jax.eval_shape(functools.partial(init_state, method), shapes_of(tiny_spec()))


def snapshot(preset: str) -> str:
  state = large_state()
  found = sharding.shard_state(preset, MESH, state)
  return "".join(
    f"[{name}]\n{sharding.overview(getattr(state, name), getattr(found, name))}\n"
    for name in ("params", "batch_stats", "queues")
  )


@pytest.mark.parametrize("preset", sharding.PRESETS)
def test_presets_are_the_committed_ones(preset):
  """Commit the new text if the difference was meant. To renew: python tests/parallel/test_sharding.py"""
  assert snapshot(preset) == (GOLDEN / f"{preset}.txt").read_text()


@pytest.mark.parametrize("preset", sharding.PRESETS)
def test_optimizer_and_momentum_follow_the_parameter(preset):
  found = sharding.shard_state(preset, MESH, large_state())
  params = {path_name(path): where.spec for path, where in jax.tree_util.tree_flatten_with_path(found.params)[0]}
  followers = {
    f"momentum/{path_name(path)}": where.spec
    for path, where in jax.tree_util.tree_flatten_with_path(found.momentum["params"])[0]
  }
  followers |= {path_name(path): where.spec for path, where in jax.tree_util.tree_flatten_with_path(found.opt_state)[0]}
  pairs = [
    (spec, params[name]) for follower, spec in followers.items() for name in params if follower.endswith(f"/{name}")
  ]
  assert len(pairs) >= 3 * len(params) - 1  # no momentum of the temperature
  assert all(a == b for a, b in pairs)


def test_a_preset_cuts_the_large_arrays():
  state = large_state()
  found = sharding.shard_state("fsdp", MESH, state)
  whole = sum(
    leaf.size
    for leaf, where in zip(jax.tree.leaves(state.params), jax.tree.leaves(found.params))
    if not any(where.spec)
  )
  assert whole < 0.01 * sum(leaf.size for leaf in jax.tree.leaves(state.params))


def test_blocks_in_a_loop_are_cut_as_those_one_by_one():
  """The first axis, of the layers, stays whole."""
  tower, cuts = dict(name="vit", width=64, depth=4, heads=4, patch=4), []
  for scan in (False, True):
    towers = tiny_config()["towers"] | dict(image={**tower, "scan": scan})
    method = make_method(tiny_config(towers=towers), tiny_spec())
    state = jax.eval_shape(functools.partial(init_state, method), shapes_of(tiny_spec()))
    found = sharding.shard_state("fsdp_tp", MESH, state).params["towers"]["image"]
    block = found["blocks" if scan else "blocks_0"]
    cuts.append(
      [
        tuple(block[a][b][name].spec)
        for a, b, name in (
          ("attn", "qkv", "kernel"),
          ("attn", "proj", "kernel"),
          ("mlp", "fc1", "bias"),
          ("mlp", "fc2", "kernel"),
        )
      ]
    )
  assert cuts[1] == [(None, *cut) for cut in cuts[0]] and cuts[0][0] == ("fsdp", "tensor")


@pytest.mark.parametrize("preset", sharding.PRESETS)
def test_an_axis_of_size_one_cuts_nothing(preset):
  found = sharding.shard_state(preset, AbstractMesh((8, 1, 1), sharding.AXES), large_state())
  assert not any(any(where.spec) for where in jax.tree.leaves(found))


@pytest.mark.slow
def test_training_is_that_of_one_device(monkeypatch):
  """Of the preset that has all kinds of cuts, on a mesh with all axes."""
  monkeypatch.setattr(sharding, "SMALL", 8)  # or nothing here would be cut
  one, metrics_one = trained("dp", dict(data=1), 1)
  many, metrics_many = trained("fsdp_tp", dict(data=2, fsdp=2, tensor=2), 8)
  assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(many.params))
  assert any(not leaf.is_fully_replicated for leaf in jax.tree.leaves(many.queues))
  for name, value in metrics_one.items():
    np.testing.assert_allclose(metrics_many[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
  for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(one)[0], jax.tree.leaves(many), strict=True):
    np.testing.assert_allclose(np.asarray(b), np.asarray(a), rtol=1e-4, atol=1e-5, err_msg=path_name(path))


def trained(preset, mesh, devices):
  """State and metrics after two steps of SGD, whose update is the gradient, unlike Adam's first."""
  objective = {name: five_terms()[name] for name in ("image_tags", "image_to_text")}
  config = tiny_config(optimizer=dict(name="sgd", learning_rate=0.1), objective=objective)
  method = make_method(config, tiny_spec())
  mesh = sharding.make_mesh(mesh, jax.devices()[:devices])
  where = sharding.shard_state(preset, mesh, jax.eval_shape(functools.partial(init_state, method), tiny_batch()))
  state = jax.jit(functools.partial(init_state, method), out_shardings=where)(tiny_batch())

  def step_on_mesh(state, batch):
    with lowered_for("cpu", mesh):
      return train_step(method, mesh, state, batch)

  step = jax.jit(step_on_mesh, donate_argnums=0, out_shardings=(where, sharding.replicated(mesh)))
  for number in range(2):
    state, metrics = step(state, sharding.put_batch(tiny_batch(seed=number), mesh))
  return state, jax.device_get(metrics)


def test_rules_decide_dimension_by_dimension():
  state = small_state()
  found = sharding.shard_state([(".*/kernel", (None, ("fsdp", "tensor"))), (".*", [])], MESH, state)
  assert found.params["towers"]["kernel"].spec == PartitionSpec(None, ("fsdp", "tensor"))
  assert found.params["towers"]["bias"].spec == PartitionSpec()


def small_state():
  shapes = dict(kernel=jax.ShapeDtypeStruct((6, 16), "float32"), bias=jax.ShapeDtypeStruct((16,), "float32"))
  return TrainState(None, {"towers": shapes}, {}, (), None, {}, {})


@pytest.mark.parametrize(
  "rules, message",
  [
    ("fsdpp", r"config\.sharding: no such choice 'fsdpp'; did you mean 'fsdp'"),
    ([(".*/kernel", ())], r"no rule covers 'towers/bias' \[16\]; end the list with"),
    ([(".*", "model")], r"rule '\.\*' names the axis 'model', which the mesh does not have; \(one of: data, fsdp"),
    ([(".*", ("fsd",))], r"names the axis 'fsd', .* did you mean 'fsdp'"),
    ([(".*", ("fsdp", "fsdp"))], r"cuts two dimensions along 'fsdp'"),
    ([(".*/kernel", ("fsdp",)), (".*", ())], r"'towers/kernel' \[6, 16\] does not divide into 4 along fsdp"),
    ([(".*", (None, "fsdp"))], r"has more dimensions than 'towers/bias' \[16\]"),
    ([(".*/kernal", ()), (".*", ())], r"rule '\.\*/kernal' is never used; did you mean 'towers/kernel'"),
    ([("(", ()), (".*", ())], r"'\(' is not a regex"),
    ([".*"], r"'\.\*' is not a rule; a rule is \(regex, cut\)"),
  ],
)
def test_mistakes_in_rules(rules, message):
  with pytest.raises(UserError, match=message) as error:
    sharding.shard_state(rules, MESH, small_state())
  assert "\n" not in str(error.value)


if __name__ == "__main__":
  GOLDEN.mkdir(parents=True, exist_ok=True)
  for name in sharding.PRESETS:
    (GOLDEN / f"{name}.txt").write_text(snapshot(name))


def test_a_device_holds_no_activations_of_the_whole_batch_where_parameters_are_cut(monkeypatch):
  """Else the compiler cuts activations as it finds the parameters, and gathers a batch that does not fit."""
  monkeypatch.setattr(sharding, "SMALL", 0)
  shape = dict(width=16, depth=2, heads=2, scan=True, remat="full")
  config = tiny_config(
    batch=dict(size=56, microbatches=1),
    towers=dict(
      image=dict(name="vit", patch=8, pool="cls", **shape), text=dict(name="text_transformer", pool="eos", **shape)
    ),
    heads={f"{kind}_joint": dict(tower=kind, name="linear", dim=8) for kind in ("image", "text")},
    objective=dict(clip=dict(query="image[0]/image_joint", key="text[0]/text_joint", temperature=0.1)),
    sharding="fsdp",
  )
  mesh = sharding.make_mesh(dict(data=1, fsdp=8, tensor=1), jax.devices()[:8])
  program = build_program(config, tiny_spec(56), mesh)
  batch = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding.batch_sharding(mesh)), program.batch
  )
  text = program.step.lower(program.state, batch).compile(_QUICK).as_text()
  assert not re.findall(r"= \w+\[56,\d+,[\d,]+\]", text)  # of tokens; the loss gathers vectors
  assert re.search(r"= f32\[56,8\]", text)
