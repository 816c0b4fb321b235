"""Mixtures of experts: the public code's block and balance, what is routed where, and experts made of a dense run."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.experts import chosen_experts, routed, routing
from mmcontrast.encoders.transformer import Block
from mmcontrast.encoders.vit import ViT
from mmcontrast.errors import UserError
from mmcontrast.objectives.auxiliary import parse_auxiliary
from mmcontrast.objectives.expert_balance import ExpertBalance
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.training.initialization import initial_arrays

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def case(name, file):
  found = json.loads((GOLDEN / f"{file}.json").read_text())[name]
  return found["inputs"], found["expected"]


def wave(shape, shift):
  return np.sin(0.7 * (np.arange(np.prod(shape)) + 1) + shift).reshape(shape)


def parameters_of_the_public_code(listed):
  """name -> array, as the sheet makes them of their number."""
  made = {}
  for number, (name, shape) in enumerate(listed):
    values = wave(shape, 0.3 + number)
    made[name] = values / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * values
    made[name] = made[name] + ("ln" in name and name.endswith("weight"))
  return made


def make_mesh(devices):
  kinds = (jax.sharding.AxisType.Auto,)
  return jax.make_mesh((devices,), ("data",), devices=jax.devices()[:devices], axis_types=kinds)


def test_the_block_of_the_public_code():
  inputs, expected = case("clip_moe_block", "addition")
  p = parameters_of_the_public_code(inputs["parameters"])

  def dense(name):
    return {"kernel": p[f"{name}weight"].T, "bias": p[f"{name}bias"]}

  params = {
    "norm1": {"scale": p["ln_1.weight"], "bias": p["ln_1.bias"]},
    "norm2": {"scale": p["ln_2.weight"], "bias": p["ln_2.bias"]},
    "attn": {"qkv": dense("attn.in_proj_"), "proj": dense("attn.out_proj.")},
    "mlp": {"gate": {"kernel": p["gate.weight"].T}}
    | {f"experts_{e}": {"fc1": dense(f"experts.{e}.c_fc."), "fc2": dense(f"experts.{e}.c_proj.")} for e in range(3)},
  }
  block = Block(2, 32, "quick_gelu", norm_epsilon=1e-5, experts=3, top_experts=2)
  x = jnp.asarray(wave((5, 2, 8), 0.9)).swapaxes(0, 1)
  out, went = jax.jit(lambda x: block.apply({"params": params}, x, None, train=False))(x)
  np.testing.assert_allclose(out.swapaxes(0, 1), expected["out"], atol=1e-6)
  np.testing.assert_allclose(went[:, :3].sum(1), 10)  # five tokens, each to two
  np.testing.assert_allclose(went[:, 6], 5)


def loss_of(each, valid):
  facts = Facts(("image[0]/x",), valid, 0, {}, {})
  return ExpertBalance().apply({}, [Encoded(each, losses={"routing": each})], facts)[0]


def test_the_balance_of_the_public_code():
  """Its tokens and layers, here as the tokens of examples; padding and absent examples are in no sum."""
  inputs, expected = case("moe_balance", "image_text")
  logits = jnp.asarray(inputs["logits"], jnp.float64)
  tokens = logits.reshape(2, -1, logits.shape[-1]) if logits.size % 2 == 0 else logits.reshape(1, -1, logits.shape[-1])

  def loss(logits):
    each = routing(jax.nn.softmax(logits, -1), 2, None)
    return loss_of(each, jnp.ones(len(each), bool))

  value, gradient = jax.jit(jax.value_and_grad(loss))(tokens)
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-6)
  np.testing.assert_allclose(gradient.reshape(logits.shape), expected["grad_logits"], atol=1e-6)

  longer = jnp.concatenate([tokens, jnp.full_like(tokens[:, :2], 3.0)], 1)
  mask = jnp.arange(longer.shape[1])[None] < tokens.shape[1]
  each = routing(jax.nn.softmax(longer, -1), 2, jnp.broadcast_to(mask, longer.shape[:2]))
  absent = jnp.concatenate([each, each[:1] * 7])
  valid = jnp.arange(len(absent)) < len(each)
  np.testing.assert_allclose(loss_of(absent, valid), expected["loss"], rtol=1e-6)


def test_weights_are_of_the_most_probable_and_sum_to_one():
  logits = jnp.asarray([[0.0, 1.0, 1.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
  weights, probabilities = routed(logits, 2)
  np.testing.assert_allclose(weights[0], [0, 0.5, 0.5, 0])
  np.testing.assert_allclose(chosen_experts(probabilities, 2)[1], [1, 1, 0, 0])
  np.testing.assert_allclose(routed(logits, 4)[0], jax.nn.softmax(logits, -1), rtol=1e-6)


TINY = dict(width=8, depth=1, heads=2, patch=4, pool="gap")


def variables_of(**options):
  images = jnp.zeros((1, 8, 8, 3))
  shapes = jax.eval_shape(lambda: ViT(**TINY, **options).init(jax.random.key(0), images, train=False))
  drawn = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: drawn.normal(size=leaf.shape), shapes["params"])
  return {"params": {"towers": {"image": params}}, "batch_stats": {}}


def test_a_dense_run_becomes_experts():
  """Copies of one MLP give what it gives; of two runs each brings its own."""
  first, second, sparse = variables_of(), variables_of(), variables_of(experts=3)
  second["params"]["towers"]["image"]["blocks_0"]["mlp"]["fc1"]["bias"] += 1
  stages = {"first": lambda: first, "second": lambda: second}
  part = "towers/image"
  copies = initial_arrays({"init": {part: "first:towers/image"}}, sparse, stages)
  path = f"params/{part}/blocks_0/mlp"
  assert f"{path}/gate/kernel" not in copies and f"{path}/experts_2/fc1/kernel" in copies
  both = initial_arrays({"init": {part: dict(experts=("first:towers/image", "second:towers/image"))}}, sparse, stages)
  gap = [both[f"{path}/experts_{e}/fc1/bias"] - copies[f"{path}/experts_{e}/fc1/bias"] for e in range(3)]
  np.testing.assert_allclose([float(one.mean()) for one in gap], [0, 1, 0])

  made = jax.tree_util.tree_map_with_path(
    lambda keys, leaf: copies.get("params/towers/image/" + "/".join(key.key for key in keys), leaf),
    sparse["params"]["towers"]["image"],
  )
  images = jnp.asarray(np.random.default_rng(1).normal(size=(2, 8, 8, 3)))
  dense = jax.jit(lambda p: ViT(**TINY).apply({"params": p}, images, train=False).pooled)
  mixed = jax.jit(lambda p: ViT(**TINY, experts=3).apply({"params": p}, images, train=False).pooled)
  np.testing.assert_allclose(mixed(made), dense(first["params"]["towers"]["image"]), atol=1e-5)


@pytest.mark.parametrize(("options", "message"), [
  (dict(experts=1), "experts=1, top_experts=2: give 2"), (dict(experts=2, top_experts=3), "send a token to 1"),
  (dict(experts=2, scan=True), "set scan=False"), (dict(experts=2, remat="full"), "remat='none'"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_one_line(options, message):
  with pytest.raises(UserError, match=message):
    ViT(**TINY, **options)


@pytest.mark.parametrize(("entry", "message"), [
  (dict(experts="first:towers/image"), r"is not dict\(experts="), (dict(expert=()), r"is not dict\(experts="),
  (dict(experts=("frist:towers/image",)), "'frist' is neither an earlier stage.*'first'"),
])  # fmt: skip
def test_sources_of_experts_that_are_none_are_one_line(entry, message):
  with pytest.raises(UserError, match=message):
    initial_arrays({"init": {"towers/image": entry}}, variables_of(experts=2), {"first": variables_of})


def test_routing_is_no_loss():
  with pytest.raises(UserError, match="balance experts by module"):
    parse_auxiliary("a", dict(auxiliary="routing", embeddings="image[0]/image_joint"))


def test_the_balance_on_four_devices_with_padding_and_in_another_order():
  """Value and gradient are those of the batch without what does not take part, on one device."""
  draw = np.random.default_rng(3)
  values, valid = draw.uniform(size=(8, 7)), np.arange(8) != 5
  names = ("image[0]/a", "text[0]/b")

  def balance(values, valid):
    views = [Encoded(None, losses={"routing": scale * values}) for scale in (1.0, 2.0)]
    return ExpertBalance().apply({}, views, Facts(names, valid, 0, {}, {}))[0]

  both, mesh = jax.jit(jax.value_and_grad(balance)), make_mesh(4)
  loss, slope = both(values, valid)
  total = values[valid].sum(0)
  wanted = 3 * np.sum(total[:3] * total[3:6]) / total[6] ** 2
  np.testing.assert_allclose(loss, wanted, rtol=1e-12)
  assert np.any(slope[valid]) and not np.any(slope[5])
  broken = np.where(valid[:, None], values, np.nan)
  sharding = jax.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
  of_four = both(*jax.device_put((broken, valid), sharding))
  np.testing.assert_allclose(of_four[0], loss, rtol=1e-12)
  np.testing.assert_allclose(of_four[1], slope, atol=1e-12)
  order = draw.permutation(8)
  of_order = both(values[order], valid[order])
  np.testing.assert_allclose(of_order[0], loss, rtol=1e-12)
  np.testing.assert_allclose(of_order[1], slope[order], atol=1e-12)
