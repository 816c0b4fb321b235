"""ONNX by jax2onnx: image.onnx and text.onnx, inputs of any batch size -> unit rows, the weights inside.

What is written is run by onnxruntime and compared with the model, since the converter does not cover everything,
and a wrong program is worse than none.
"""

from __future__ import annotations

import logging
import pathlib
import warnings
from typing import Any

import jax
import numpy as np
from jax import export

from mmcontrast.errors import UserError, one_line
from mmcontrast.folders import whole
from mmcontrast.inference import Inference
from mmcontrast.interop.program import Program, programs, write_inputs

MOST = 1e-4  # by which an embedding may differ


def write(model: Inference, out: str | pathlib.Path) -> list[pathlib.Path]:
  """Writes the towers of `model` into the new folder `out`; returns the programs' paths.

  Raises UserError when `out` is not empty, a package is missing, or a tower cannot be converted or comes out
  different; then nothing is written.
  """
  try:
    import jax2onnx
    import onnxruntime
  except ImportError as error:
    raise UserError(
      f"--to onnx needs the package {error.name}; pip install 'mmcontrast[onnx]', then pip install --no-deps jax2onnx"
    ) from None
  found = programs(model)
  for kind in found:
    model.check_one_vector(kind, "--to onnx", "; write --to stablehlo")
  logging.getLogger("onnx_ir").setLevel(logging.ERROR)  # it warns of every shape
  with whole(out, "--out") as folder:
    for kind, program in found.items():
      path = folder / f"{kind}.onnx"
      inputs = jax.ShapeDtypeStruct((*export.symbolic_shape("batch"), *program.shape), program.dtype)
      try:
        with warnings.catch_warnings():
          warnings.simplefilter("ignore")
          jax2onnx.to_onnx(
            lambda values, program=program: program.function(program.weights, values),
            [inputs],
            return_mode="file",
            output_path=str(path),
            input_names=[kind],
            output_names=["rows"],
          )
        difference = _difference(onnxruntime.InferenceSession(str(path)), program)
      except Exception as error:  # of many kinds: those of tracing, of the converter, of the runtime
        raise UserError(
          f"--to onnx: jax2onnx cannot convert the {kind} tower ({one_line(error)}); {_OTHERWISE}"
        ) from error
      if not difference <= MOST:
        raise UserError(f"--to onnx: the {kind} tower comes out different, by {difference:.1e}; {_OTHERWISE}")
    write_inputs(model, found, folder, opset=23)
  return [pathlib.Path(out) / f"{kind}.onnx" for kind in found]


_OTHERWISE = "write --to open_clip, hf or timm and convert that by torch.onnx"


def _difference(session: Any, program: Program) -> float:
  """The largest difference between rows of ours and of the session, for two batches of noise."""
  draw, worst = np.random.default_rng(0), 0.0
  for count in (1, 3):
    values = draw.integers(0, 256 if program.dtype == np.uint8 else 4, (count, *program.shape)).astype(program.dtype)
    theirs = session.run(None, {session.get_inputs()[0].name: values})[0]
    ours = np.asarray(jax.jit(program.function)(program.weights, values))
    worst = max(worst, float(np.abs(ours - theirs).max()))
  return worst
