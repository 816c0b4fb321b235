"""Batch statistics: against Flax, and those of the global batch on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny import tiny_config, tiny_spec

from mmcontrast.encoders import build_encoder, build_head
from mmcontrast.encoders.norm import BatchNorm
from mmcontrast.errors import UserError
from mmcontrast.parallel import sharding
from mmcontrast.training.program import build_program


def test_agrees_with_flax():
  x = jax.random.normal(jax.random.key(0), (6, 3, 3, 5)) * 3 + 1
  theirs, ours = nn.BatchNorm(use_running_average=False, momentum=0.8), BatchNorm(momentum=0.8)
  variables = theirs.init(jax.random.key(1), x)
  want = theirs.apply(variables, x, mutable=["batch_stats"])
  got = ours.apply(variables, x, train=True, mutable=["batch_stats"])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), want, got)
  still = ours.apply(variables | got[1], x, train=False)
  frozen = nn.BatchNorm(use_running_average=True).apply(variables | got[1], x)
  np.testing.assert_allclose(still, frozen, rtol=1e-4, atol=1e-5)


def test_one_value_is_refused():
  """It is its own mean. One image has many values where it is a map, and one where it is a vector."""
  norm = BatchNorm()
  variables = norm.init(jax.random.key(0), jnp.zeros((2, 3)), train=False)
  for shape in ((1, 3), (1, 1, 1, 3)):
    with pytest.raises(UserError, match=r"batch norm over one value: .*config\.batch\.size to 2 or more"):
      norm.apply(variables, jnp.ones(shape), train=True, mutable=["batch_stats"])
    norm.apply(variables, jnp.ones(shape), train=False)
  norm.apply(variables, jnp.ones((1, 2, 2, 3)), train=True, mutable=["batch_stats"])


@pytest.mark.parametrize("part", ["heads.image_ssl", "towers.image"])
def test_a_batch_of_one_stops_before_it_compiles(part):
  """The whole step is only traced; a frozen part keeps its running statistics, so it may stay."""
  config = tiny_config(batch=dict(size=1, microbatches=1), momentum=dict(decay=0.9, update="before_keys"))
  config["objective"] = {
    "t": dict(query="image[0]/image_ssl", key="image[1]/image_ssl@momentum", negatives="batch+queue:4")
  }
  if part == "towers.image":
    config["towers"]["image"] = dict(name="resnet18", stem="small", width=8, stages=(1, 1, 1, 1, 1))
    config["heads"]["image_ssl"]["batch_norm"] = False
  mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
  with pytest.raises(UserError, match=rf"config\.{part}: batch norm over one value") as error:
    build_program(config, tiny_spec(1), mesh)
  assert "\n" not in str(error.value)
  section, name = part.split(".")
  config["optimizer"] |= dict(frozen=(f"{section}/{name}/.*",))
  build_program(config, tiny_spec(1), mesh)


@pytest.mark.parametrize("options", [dict(depth=0), dict(depth=1, batch_norm=True)])
def test_an_mlp_without_layers_for_what_is_asked(options):
  with pytest.raises(UserError, match=r"heads: .*depth"):
    build_head({"name": "mlp", "dim": 4, **options})


def test_one_and_eight_devices_agree():
  """Outputs, gradients and running statistics of a ResNet with a SimCLR head."""
  assert jax.device_count() == 8
  model = build_encoder({"name": "resnet18", "stem": "small", "width": 8, "stages": (1, 1)})
  head = build_head({"name": "mlp", "dim": 4, "batch_norm": True})
  x = jax.random.normal(jax.random.key(0), (16, 8, 8, 3))
  towers = jax.jit(lambda: model.init(jax.random.key(1), x, train=True))()
  heads = jax.jit(lambda: head.init(jax.random.key(2), jnp.zeros((1, 16)), train=True))()
  params, stats = ([v[kind] for v in (towers, heads)] for kind in ("params", "batch_stats"))

  def loss(params, x):
    variables = [{"params": p, "batch_stats": s} for p, s in zip(params, stats)]
    out, tower = model.apply(variables[0], x, train=True, mutable=["batch_stats"])
    z, top = head.apply(variables[1], out.pooled, train=True, mutable=["batch_stats"])
    z = z.pooled
    return jnp.square(z - jnp.roll(z, 1, 0)).mean() + jnp.sin(out.tokens).mean(), (z, tower, top)

  step = jax.jit(jax.value_and_grad(loss, has_aux=True))
  want = step(params, x)
  mesh = Mesh(np.array(jax.devices()), ("data",))
  got = step(
    jax.device_put(params, NamedSharding(mesh, PartitionSpec())),
    jax.device_put(x, NamedSharding(mesh, PartitionSpec("data"))),
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), want, got)
