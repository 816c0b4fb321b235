"""What a module term owns is decayed, cut over devices, adapted and frozen by the rules of towers; what none takes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from mmcontrast.errors import UserError
from mmcontrast.models.lora import Lora
from mmcontrast.objectives.module_term import MODULES
from mmcontrast.optimization.optim import frozen_mask, make_optimizer
from mmcontrast.parallel import sharding
from mmcontrast.parameter_paths import parameter_paths
from mmcontrast.registry import REQUIRED, build, options_of
from mmcontrast.runs.train_state import TrainState

MESH = AbstractMesh((2, 4, 2), sharding.AXES)


def block(scan: bool):
  """The parameters of transformer blocks, one by one or in a loop of two."""
  layers = (2,) if scan else ()

  def dense(rows, columns):
    return {"kernel": jnp.ones((*layers, rows, columns)), "bias": jnp.ones((*layers, columns))}

  parts = {
    "attn": {"qkv": dense(64, 192), "proj": dense(64, 64)},
    "mlp": {"fc1": dense(64, 256), "fc2": dense(256, 64)},
    "norm1": {"scale": jnp.ones((*layers, 64)), "bias": jnp.ones((*layers, 64))},
  }
  return {"blocks" if scan else "blocks_0": parts}


def params(scan=False):
  own = {"temperature": jnp.ones(()), "centres": jnp.ones((4096, 64))}  # of the module itself, not of a layer in it
  return {"towers": {"text": block(scan)}, "heads": {"joint": block(scan)}, "terms": {"match": {**block(scan), **own}}}


def changes(optimizer, weights):
  """What a step without gradient does to each parameter."""
  zeros = jax.tree.map(jnp.zeros_like, weights)
  updates, _ = optimizer.update(zeros, optimizer.init(weights), weights)
  return dict(zip(parameter_paths(weights), jax.tree.leaves(updates)))


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_weight_decay(name):
  """Of matrices, not of biases, scales, nor of a number or an array that the module itself owns."""
  weights = params()
  optimizer, _ = make_optimizer(dict(name=name, learning_rate=0.1, weight_decay=0.3), weights, 10)
  moved = {path for path, update in changes(optimizer, weights).items() if np.any(update != 0)}
  assert moved == {path for path in parameter_paths(weights) if path.endswith("/kernel")}
  assert any(path.startswith("terms/match/") for path in moved)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("preset", ["fsdp", "fsdp_tp"])
def test_cuts(preset, scan):
  weights = params(scan)
  state = TrainState(jnp.int32(0), weights, {}, {}, None, {}, {})
  found = sharding.shard_state(preset, MESH, state).params
  cut = {kind: jax.tree.map(lambda leaf: tuple(leaf.spec), found[kind]) for kind in ("towers", "heads", "terms")}
  tower, head, term = cut["towers"]["text"], cut["heads"]["joint"], cut["terms"]["match"]
  assert {name: term[name] for name in tower} == tower == head
  assert any(found["terms"]["match"]["centres"].spec)


@pytest.mark.parametrize("scan", [False, True])
def test_lora(scan):
  lora = Lora(targets=r".*/(qkv|fc1)/kernel", rank=2, alpha=4.0)
  weights = lora.init(params(scan), jax.random.key(0))
  adapters = weights["lora"]
  shapes = [jax.tree.map(jnp.shape, adapters[kind][name]) for kind, name in (("towers", "text"), ("terms", "match"))]
  assert shapes[0] == shapes[1]
  ones = {**weights, "lora": jax.tree.map(jnp.ones_like, adapters)}
  merged = lora.merge(ones)
  names = ("blocks" if scan else "blocks_0", "attn", "qkv", "kernel")
  tower, term = merged["towers"]["text"], merged["terms"]["match"]
  for name in names:
    tower, term = tower[name], term[name]
  np.testing.assert_allclose(term, tower)
  np.testing.assert_allclose(term, 1.0 + 4.0 / 2 * 2)  # alpha / rank of a product of ones


def test_freezing():
  weights = params()
  frozen = frozen_mask(weights, ("towers/.*/mlp/.*", "terms/match/.*/mlp/.*", "terms/match/centres"))
  assert frozen["terms"]["match"]["blocks_0"] == frozen["towers"]["text"]["blocks_0"]
  assert frozen["terms"]["match"]["centres"] and not frozen["terms"]["match"]["temperature"]
  optimizer, _ = make_optimizer(
    dict(name="adamw", learning_rate=0.1, weight_decay=0.3, frozen=("terms/.*",)), weights, 10
  )
  moved = {path.split("/")[0] for path, update in changes(optimizer, weights).items() if np.any(update != 0)}
  assert moved == {"towers", "heads"}


def test_no_module_takes_a_temperature_of_zero():
  """Of all that have one: it would be divided by, and the loss be no number in the first step."""
  tried = 0
  for (name, module), option in itertools.product(MODULES.items(), ("temperature", "teacher_temperature")):
    options = options_of(module)
    if not isinstance(options.get(option), int | float):
      continue
    required = {key: {"label": "kind"}.get(key, 3) for key, value in options.items() if value is REQUIRED}
    tried += 1
    with pytest.raises(UserError, match=rf"^objective\.t\.module[.:].*{option}"):
      build(MODULES, dict(required, name=name, **{option: 0}), "objective.t.module")
  assert tried > 10
