"""Options of XLA by platform."""

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.parallel.compilation import compiler_options


def test_products_on_a_cpu_are_the_same_by_another_library():
  draw = np.random.default_rng(0)
  x, w = (jnp.asarray(draw.standard_normal(shape, np.float32)) for shape in ((96, 80), (80, 64)))

  def loss(w):
    return jnp.sum(jnp.sin(x @ w))

  options = compiler_options("cpu")
  ours = jax.jit(jax.value_and_grad(loss), compiler_options=options)(w)
  plain = jax.jit(jax.value_and_grad(loss))(w)
  for found, expected in zip(ours, plain):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
  assert options or jax.__version_info__[:2] != (0, 10)  # which knows it


def test_few_examples_are_left_to_xla():
  assert compiler_options("cpu", 4) == {} and compiler_options("cpu", 5) == compiler_options("cpu")


def test_elsewhere_xla_is_left_alone():
  assert compiler_options("tpu") == {} and compiler_options("gpu") == {}
