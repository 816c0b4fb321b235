"""config.matrix.precision reaches every product of a tile, forward and backward, and no wrong name passes."""

import re

import jax
import jax.numpy as jnp
import pytest
from token_arrays import encoded

from mmcontrast.errors import UserError
from mmcontrast.objectives import terms as objective

QUERY, KEY = "image[0]/image_joint", "text[0]/text_joint"


def program(impl, score="cosine", **options):
  """The traced value and gradient of a softmax."""
  terms = objective.parse_terms({"t": dict(query=QUERY, key=KEY, score=score, temperature=0.1)})
  shape = (8, 4) if score == "cosine" else (8, 3, 4)

  def loss(x):
    given = {QUERY: x, KEY: x + 1}
    given = given if score == "cosine" else encoded(given)
    return objective.evaluate(terms, given, {}, {"t": {}}, {}, {}, impl=impl, **options)[0]

  return str(jax.make_jaxpr(jax.grad(loss))(jnp.ones(shape)))


@pytest.mark.parametrize("impl", ["dense", "rows", "ring"])
@pytest.mark.parametrize("score", ["cosine", "token_max"])
def test_every_product_of_the_tiles_is_of_that_precision(impl, score):
  traced = {name: program(impl, score, precision=name) for name in ("highest", "high", "default")}
  count = {name: text.count("Precision.HIGHEST") for name, text in traced.items()}
  assert traced["highest"] == program(impl, score) and count["highest"] > count["high"] == count["default"]
  assert re.search(r"Precision\.HIGH\b", traced["high"]) and not re.search(r"Precision\.HIGH\b", traced["default"])


def test_what_the_process_says_does_not_change_the_loss():
  with jax.default_matmul_precision("bfloat16"):
    assert program("ring") == program("ring", precision="highest")


def test_a_precision_that_is_none():
  with pytest.raises(UserError, match=r"precision.*'hihg'.*did you mean 'high'"):
    program("dense", precision="hihg")
