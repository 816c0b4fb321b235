"""Options of XLA that make a compiled program faster, by platform."""

from __future__ import annotations

import functools

import jax

_EIGEN = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
"""On a CPU matrix products by Eigen, sums by YNNPACK: XLA of jax 0.10 gives most products to YNNPACK too, which takes
up to 1.5 times as long for the large ones of a transformer in float32 (benchmarks/matrix_products.py)."""
FEW = 4  # With so many examples products are small, and YNNPACK is the faster one.


@functools.cache
def compiler_options(platform: str, examples: int | None = None) -> dict[str, str]:
  """For `jax.jit(compiler_options=...)` of what computes much on `platform`; nothing where XLA does not know them.

  examples: how many go through a model at once; None: many.
  """
  if platform != "cpu" or (examples is not None and examples <= FEW):
    return {}
  try:
    jax.jit(lambda: 0, compiler_options=_EIGEN).lower().compile()
  except Exception:  # of no documented type: "No such compile option"
    return {}
  return _EIGEN
