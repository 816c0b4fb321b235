"""StableHLO by `jax.export`: programs that any JAX of the next months runs, and any compiler of StableHLO reads.

    image.stablehlo, text.stablehlo      (weights, inputs of any batch size) -> unit rows; for CPU, CUDA and TPU;
                                         of a run that compares tokens: {"vectors", "mask", "weights" if it has them}
    image.safetensors, text.safetensors  the weights, by name
    inputs.json, the tokenizer's file    how images and texts become inputs

docs/inference.md shows how they are loaded without this package.
"""

from __future__ import annotations

import pathlib

import jax
from jax import export

from mmcontrast.folders import whole
from mmcontrast.inference import Inference
from mmcontrast.interop.program import programs, write_inputs
from mmcontrast.interop.weights import write_weights

PLATFORMS = ("cpu", "cuda", "tpu")


def write(model: Inference, out: str | pathlib.Path) -> list[pathlib.Path]:
  """Writes the towers of `model` into the new folder `out`; returns the programs' paths.

  Raises UserError when `out` is not empty, or a tower is made for one kind of device.
  """
  found = programs(model)
  with whole(out, "--out") as folder:
    for kind, (function, weights, shape, dtype) in found.items():
      batch = export.symbolic_shape("batch")
      inputs = jax.ShapeDtypeStruct((*batch, *shape), dtype)
      given = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in weights.items()}
      exported = export.export(jax.jit(function), platforms=PLATFORMS)(given, inputs)
      (folder / f"{kind}.stablehlo").write_bytes(exported.serialize())
      write_weights(folder / f"{kind}.safetensors", weights)
    write_inputs(model, found, folder, jax=jax.__version__, platforms=list(PLATFORMS))
  return [pathlib.Path(out) / f"{kind}.stablehlo" for kind in found]
