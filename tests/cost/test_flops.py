"""Operations counted in a jaxpr, against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.cost.flops import PEAK_BFLOAT16, forward_flops, utilisation
from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.conv import conv


def flops(config, inputs):
  encoder = build_encoder(config)
  params = jax.eval_shape(lambda x: encoder.init(jax.random.key(0), x, train=False), inputs)
  return forward_flops(lambda params, x: encoder.apply(params, x, train=False).pooled, params, inputs)


@pytest.mark.parametrize("options", [{}, dict(scan=True), dict(remat="full")])
def test_a_vision_transformer(options):
  length, width, hidden, depth, patch = 16 + 1, 32, 128, 3, 8
  found = flops(
    dict(name="vit", width=width, depth=depth, heads=4, patch=patch, pool="cls", **options), jnp.zeros((1, 32, 32, 3))
  )
  layer = 2 * length * (4 * width**2 + 2 * width * hidden) + 2 * 2 * length**2 * width
  assert found == depth * layer + 2 * 16 * patch**2 * 3 * width


def test_vit_b_16_is_the_usual_number():
  found = flops(dict(name="vit_base", patch=16, pool="cls"), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32))
  assert found == pytest.approx(35.1e9, rel=0.01)  # 17.6 GFLOPs of multiply-adds


@pytest.mark.parametrize("lowering", ["conv", "matmul", "split"])
def test_a_convolution(lowering):
  found = forward_flops(
    lambda x, k: conv(x, k, 2, ((1, 1), (1, 1)), lowering), jnp.zeros((2, 16, 16, 5)), jnp.zeros((3, 3, 5, 7))
  )
  assert found == 2 * 2 * 8 * 8 * 3 * 3 * 5 * 7


def test_utilisation():
  assert utilisation(1e9, 1000.0, 6e12) == 0.5
  assert next(peak for name, peak in PEAK_BFLOAT16.items() if name in "NVIDIA H100 80GB HBM3") == 989e12
