"""Finite discrete tokens: sparsemax and the mixture of codes against reference code, and codes that are shared."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from mmcontrast.config import load_config
from mmcontrast.encoders import build_head
from mmcontrast.encoders.finite_tokens import mixture, sparsemax
from mmcontrast.errors import UserError
from mmcontrast.modalities import MODALITIES
from mmcontrast.models.model import build_model

CASES = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "image_text.json").read_text())


@pytest.fixture
def float64():
  with jax.enable_x64(True):
    yield


def test_sparsemax(float64):
  inputs, expected = (CASES["sparsemax"][part] for part in ("inputs", "expected"))
  z, w = jnp.asarray(inputs["z"]), jnp.asarray(inputs["w"])
  np.testing.assert_allclose(sparsemax(z), expected["out"], atol=1e-12)
  np.testing.assert_allclose(jax.grad(lambda z: jnp.sum(w * sparsemax(z)))(z), expected["grad_z"], atol=1e-12)


@pytest.mark.parametrize("name", ["fdt_max_sparsemax", "fdt_mean_softmax", "fdt_sum_sigmoid"])
def test_a_mixture_of_codes(name, float64):
  x, expected = (CASES[name][part] for part in ("inputs", "expected"))
  mask = jnp.asarray([[value is not None for value in row] for row in x["mask"]])
  q, codes, w = (jnp.asarray(x[key]) for key in ("q", "codes", "w"))

  def loss(q, codes):
    out = mixture(q, mask, codes, x["T_"], x["pool"], x["act"], padding_as_zero=True)
    return jnp.sum(w * out), out

  (value, out), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(q, codes)
  np.testing.assert_allclose(value, expected["loss"], rtol=1e-9)
  np.testing.assert_allclose(out, expected["out"], atol=1e-9)
  for gradient, side in zip(gradients, ("q", "codes")):
    np.testing.assert_allclose(gradient, expected[f"grad_{side}"], atol=1e-9)


@pytest.mark.parametrize("pool", ["max", "mean", "sum"])
def test_padding_takes_no_part(pool):
  head = build_head(dict(name="finite_tokens", dim=8, codes=12, pool=pool))
  tokens = jax.random.normal(jax.random.key(0), (3, 5, 6))
  mask = jnp.arange(5)[None] < jnp.array([5, 3, 1])[:, None]
  variables = head.init(jax.random.key(1), tokens, mask, train=False)
  broken = jnp.where(mask[..., None], tokens, 1e3)
  whole = head.apply(variables, tokens, mask, train=False).pooled
  np.testing.assert_array_equal(head.apply(variables, broken, mask, train=False).pooled, whole)
  alone = head.apply(variables, tokens[1:2, :3], mask[1:2, :3], train=False).pooled
  np.testing.assert_allclose(alone[0], whole[1], rtol=1e-5, atol=1e-6)


def test_both_towers_have_the_same_codes():
  config = load_config("fdt:smoke")
  config["towers"]["text"]["vocab_size"] = 50
  model = build_model(config)
  assert model.shared["text_joint"] == {"codes": "image_joint"}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      dict(codes=9),
      r"shared\.codes: .* has other parameters, kernel 12 x 8 where this head has 9 x 8; give both heads",
    ),
    (dict(dim=6), r"shared\.codes: .* has other parameters, kernel 12 x 8 where this head has 12 x 6; give both heads"),
  ],
)
def test_a_codebook_of_another_width_is_refused(changes, message):
  head = dict(name="finite_tokens", dim=8, codes=12)
  config = tiny_config(objective=dict(pair=dict(query="image[0]/image_joint", key="text[0]/text_joint")))
  config["heads"] = dict(
    image_joint=dict(head, tower="image"),
    text_joint=dict(head, tower="text", shared=dict(codes="image_joint")) | changes,
  )
  with pytest.raises(UserError, match=message) as error:
    zeros = {name: MODALITIES[name].zeros(2, config) for name in ("image", "text")}
    jax.eval_shape(build_model(config, 40).init, jax.random.key(0), zeros)
  assert "\n" not in str(error.value)


def test_a_temperature_of_zero_is_refused():
  with pytest.raises(UserError, match="temperature: 0 is not above 0"):
    build_head(dict(name="finite_tokens", dim=8, temperature=0))
