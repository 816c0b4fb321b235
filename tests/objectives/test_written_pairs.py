"""Pixel-Linguist's loss, of vectors as they are, by the numbers of the public code."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives import terms as objective

GOLDEN = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())["pixel_linguist"]


@pytest.mark.usefixtures("float64")
def test_the_loss_of_the_public_code():
  inputs, expected = GOLDEN["inputs"], GOLDEN["expected"]
  config = dict(query="written[0]/w", key="written[1]/w", score="dot", direction="both", temperature=inputs["tau"])
  terms = objective.parse_terms({"t": config})

  def loss(a, b):
    nodes = {"written[0]/w": Encoded(a), "written[1]/w": Encoded(b)}
    return objective.evaluate(terms, nodes, {}, {}, {}, {"t": 1.0})[0]

  found, gradients = jax.value_and_grad(loss, (0, 1))(*(jnp.asarray(inputs[name]) for name in "ab"))
  np.testing.assert_allclose(found, expected["loss"], rtol=1e-9)
  for name, gradient in zip("ab", gradients):
    np.testing.assert_allclose(gradient, expected[f"grad_{name}"], atol=1e-9)
