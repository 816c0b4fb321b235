"""The towers of a run as functions of flat weights: what the formats of programs (StableHLO, ONNX) are made from."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util

from mmcontrast.encoders import nested
from mmcontrast.errors import UserError
from mmcontrast.inference import Inference
from mmcontrast.interop.pretrained import variables
from mmcontrast.models.finite import check_weights

Weights = dict[str, Any]  # "params/towers/image/patch_embed/kernel" -> array


class Program(NamedTuple):
  """One tower with its head.

  Attributes:
    function: (weights, inputs [B, ...]) -> rows [B, D]; of a run that compares tokens {"vectors": [B, L, D], "mask":
      [B, L], "weights": [B, L] of heads that weigh them}.
    weights: all that the function reads.
    shape, dtype: of one input: uint8 [S, S, 3] of an image, int32 [L] of a text's ids.
  """

  function: Callable[[Weights, jax.Array], Any]
  weights: Weights
  shape: tuple[int, ...]
  dtype: Any


def programs(model: Inference) -> dict[str, Program]:
  """ "image" and "text", as far as the run has them -> the tower, as `encode_image` and `encode_text` use it.

  Raises UserError for towers whose attention is of one kind of device, and for weights that are not finite.
  """
  size, found = model.data["image_size"], {}
  check_expressible(model.config)
  for kind, shape, dtype in (("image", (size, size, 3), np.uint8), ("text", (model.data["text_length"],), np.int32)):
    name = model.kind_of(kind)
    if name not in model.kinds:
      continue
    weights = traverse_util.flatten_dict(_part(model, name), sep="/")
    weights = {key: np.asarray(leaf) for key, leaf in weights.items()}
    check_weights(weights, f"the {kind} tower")
    found[kind] = Program(
      lambda weights, inputs, name=name: _outputs(model.function(name, variables(weights), inputs)),
      weights,
      shape,
      np.dtype(dtype),
    )
  return found


def _outputs(made: Any) -> Any:
  """What the model's function gives, as containers that any reader of a program has."""
  fields = dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()
  named = {field.name: getattr(made, field.name) for field in fields}
  return {name: value for name, value in named.items() if value is not None} or made


def check_expressible(config: Mapping[str, Any]) -> None:
  """Raises UserError for a run whose towers' attention is of one kind of device, or which keeps the ratio of images."""
  if config["data"].get("native", {}).get("patches"):
    raise UserError(
      "config.data.native.patches: programs take squares, and this run keeps the ratio of images; export --to hf, or a "
      "run that is trained on squares"
    )
  towers = dict(config["towers"])
  towers |= {f"{name}.{key}": of for name, options in towers.items() for key, of in nested(options).items()}
  for name, options in towers.items():
    if options.get("attention", "xla") != "xla":
      raise UserError(
        f"config.towers.{name}.attention is {options['attention']!r}, which computes on NVIDIA GPUs; "
        "export a run with attention='xla'"
      )


def write_inputs(model: Inference, found: dict[str, Program], folder: pathlib.Path, **more: Any) -> None:
  """Writes inputs.json, how images and texts become the programs' inputs, and the tokenizer's file next to it."""
  data, notes = model.data, dict(more)
  if "image" in found:
    notes["image"] = {
      "shape": ["batch", *found["image"].shape],
      "dtype": "uint8",
      "size": data["image_size"],
      "resize": data["resize"]["mode"],
      "interpolation": data["resize"]["interpolation"],
      "centre_crop": data["centre_crop"],
      "trim": data["trim"],
      "normalised_inside": {key: list(model.config["normalize"][key]) for key in ("mean", "std")},
    }
  if "text" in found:
    file = getattr(model.tokenizer, "file", None)
    notes["text"] = {
      "shape": ["batch", *found["text"].shape],
      "dtype": "int32",
      "length": data["text_length"],
      "tokenizer": data["tokenizer"].partition(":")[0],
      "file": file.name if file else None,
      "lower": data["lower"],
      "token_ids": dict(data["token_ids"]),
    }
    if file:
      (folder / file.name).write_bytes(file.read_bytes())
  (folder / "inputs.json").write_text(json.dumps(notes, indent=1) + "\n")


def _part(model: Inference, kind: str) -> dict:
  """The variables that a kind of embedding needs."""
  evaluation = model.config["evaluation"]
  if kind in model.heads:
    return model.model.branch(model.variables, [f"{kind}[0]/{evaluation[kind]}"])
  tower = evaluation["features"]
  return {
    collection: {"towers": {tower: tree["towers"][tower]} if tower in tree["towers"] else {}}
    for collection, tree in model.variables.items()
  }
