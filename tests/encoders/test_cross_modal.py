"""Layers in which two towers read each other, against LXMERT's; what of padding is seen."""

import json
import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from mmcontrast.encoders import Encoded
from mmcontrast.encoders.cross_modal import CrossModalLayer, CrossModalTransformer
from mmcontrast.encoders.transformer import Context
from mmcontrast.errors import UserError

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())


def made_up(shape, shift):
  return np.sin(0.7 * (np.arange(np.prod(shape)) + 1) + shift).reshape(shape)


def parameters(listed):
  """torch's arrays, by name, as the module has them: queries, keys and values of self-attention in one matrix."""
  given = {}
  for number, (name, shape) in enumerate(listed):
    x = made_up(shape, 0.3 + number)
    given[name] = x / np.sqrt(shape[1]) if len(shape) > 1 else 0.1 * x
  flat = {}

  def linear(ours, *theirs):
    flat[f"{ours}/kernel"] = np.concatenate([given[f"{name}.weight"] for name in theirs]).T
    flat[f"{ours}/bias"] = np.concatenate([given[f"{name}.bias"] for name in theirs])

  def norm(ours, theirs):
    flat[f"{ours}/scale"], flat[f"{ours}/bias"] = given[f"{theirs}.weight"], given[f"{theirs}.bias"]

  both = "visual_attention"
  linear("cross_attn/q", f"{both}.att.query")
  linear("cross_attn/kv", f"{both}.att.key", f"{both}.att.value")
  linear("cross_attn/proj", f"{both}.output.dense")
  norm("norm_cross", f"{both}.output.LayerNorm")
  for ours, theirs in (("first", "lang"), ("second", "visn")):
    linear(f"{ours}/attn/qkv", *(f"{theirs}_self_att.self.{part}" for part in ("query", "key", "value")))
    linear(f"{ours}/attn/proj", f"{theirs}_self_att.output.dense")
    norm(f"{ours}/norm1", f"{theirs}_self_att.output.LayerNorm")
    linear(f"{ours}/mlp/fc1", f"{theirs}_inter.dense")
    linear(f"{ours}/mlp/fc2", f"{theirs}_output.dense")
    norm(f"{ours}/norm2", f"{theirs}_output.LayerNorm")
  return unflatten_dict({tuple(name.split("/")): x for name, x in flat.items()})


def test_a_layer_is_lxmerts():
  case = GOLDEN["lxmert_cross_layer"]
  with jax.enable_x64(True):
    language = Context(made_up((2, 4, 8), 0.2), np.array(case["inputs"]["language_mask"]) > 0)
    vision = Context(made_up((2, 3, 8), 1.4))
    layer, weights = CrossModalLayer(heads=2, hidden=16), parameters(case["inputs"]["parameters"])
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), language, vision, train=False))["params"]
    assert jax.tree.map(np.shape, weights) == jax.tree.map(np.shape, shapes)
    found = layer.apply({"params": weights}, language, vision, train=False)
    for x, name in zip(found, ("language", "vision")):
      np.testing.assert_allclose(x, case["expected"][name], atol=1e-6)
    alone, none = CrossModalLayer(2, 16, first_alone=True).apply({"params": weights}, language, vision, train=False)
    assert none is None
    np.testing.assert_allclose(alone, found[0], atol=1e-12)


def test_the_first_comes_out_and_padding_is_not_seen():
  draw = np.random.default_rng(0)
  x, y = draw.normal(size=(2, 5, 8)).astype(np.float32), draw.normal(size=(2, 7, 12)).astype(np.float32)
  real, seen = np.arange(5) < np.array([[5], [3]]), np.arange(7) < np.array([[4], [7]])
  module = CrossModalTransformer(width=16, depth=2, heads=4)
  made, variables = module.init_with_output(
    jax.random.key(0), Encoded(None, x, real), Encoded(None, y, seen), train=False
  )
  assert (
    made.pooled.shape == (2, 16) and made.tokens.shape == (2, 5, 16) and "second" not in variables["params"]["blocks_1"]
  )
  other = Encoded(None, np.where(real[..., None], x, 9), real), Encoded(None, np.where(seen[..., None], y, 9), seen)
  np.testing.assert_allclose(module.apply(variables, *other, train=False).pooled, made.pooled, atol=1e-5)
  turned = module.apply(variables, Encoded(None, x, real), Encoded(None, y + 1, seen), train=False)
  assert np.abs(turned.pooled - made.pooled).max() > 1e-3


def test_what_cannot_read_each_other():
  with pytest.raises(UserError, match=r"depth: 0 leaves the two towers unread"):
    CrossModalTransformer(depth=0)
  one = Encoded(None, np.zeros((1, 2, 8), np.float32))
  with pytest.raises(UserError, match=r"a cross_modal_transformer reads two towers, not 3; name two"):
    CrossModalTransformer(width=8, heads=2).init(jax.random.key(0), one, one, one, train=False)
