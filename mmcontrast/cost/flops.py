"""Floating-point operations of a model, and the share of a device's peak that a training step reaches.

Model FLOPs utilisation (MFU) as in PaLM (Chowdhery et al., arXiv:2204.02311, appendix B):

    MFU = 3 F r / peak

with F the operations of one example's forward pass, r examples a second, and the device's peak for
the type that is computed in. F counts only matrix products and convolutions, 2 m n k for a product
of [m, k] and [k, n]; the backward pass takes twice the forward; what is computed again (remat) does
not count, nor do masks (a causal attention counts in full).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

PEAK_BFLOAT16 = {
  "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "V100": 125e12,
  "TPU v6": 918e12, "TPU v5 lite": 197e12, "TPU v5": 459e12, "TPU v4": 275e12,  # "TPU v5" is v5p
}  # fmt: skip
"""Dense bfloat16 (V100: float16) operations a second by what the device's name holds; the first match counts."""


def forward_flops(function: Callable[..., Any], *arguments: Any) -> float:
  """Operations in matrix products and convolutions of `function(*arguments)`; shapes will do."""
  return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def utilisation(flops: float, examples_per_second: float, peak: float) -> float:
  """MFU of a training step: see the module.

  Args:
    flops: `forward_flops` of one example.
    peak: operations a second that the device can do.
  """
  return 3 * flops * examples_per_second / peak


def _flops(jaxpr: Any) -> float:
  total = 0.0
  for equation in jaxpr.eqns:
    kind, parameters = equation.primitive.name, equation.params
    out = equation.outvars[0].aval.shape if equation.outvars else ()
    if kind == "dot_general":
      contracted = parameters["dimension_numbers"][0][0]
      total += 2 * math.prod(out) * math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
    elif kind == "conv_general_dilated":
      kernel, dimensions = equation.invars[1].aval.shape, parameters["dimension_numbers"]
      total += 2 * math.prod(out) * math.prod(kernel) / kernel[dimensions.rhs_spec[0]]
    else:
      times = parameters.get("length", 1) if kind == "scan" else 1
      inner = [value for value in parameters.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")]
      total += times * sum(_flops(getattr(value, "jaxpr", value)) for value in inner[:1])
  return total
