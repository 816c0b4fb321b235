"""Hugging Face's ViTModel, Dinov2Model and Dinov2WithRegistersModel: names as transformers 5 and earlier save them.

What our tower pools is the class token after the last norm: `pooler_output` of the DINOv2 models. ViTModel puts
another layer and tanh behind it (`pooler`), which is left out; what we write has the identity there.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.interop.hugging_face_config import activation, missing_fields, require, their_activation
from mmcontrast.interop.hugging_face_image import NAME, image_config, read_image_input
from mmcontrast.interop.naming import (
  CONV,
  STACKED,
  STACKED_LINEAR,
  Arrays,
  Rule,
  check_named,
  linear,
  norm,
  to_ours,
  to_theirs,
  under,
)
from mmcontrast.interop.pretrained import (
  OTHERWISE,
  ImageInput,
  Pretrained,
  check_expressible,
  complete,
  image_tower,
  shapes,
)
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights

VIT, DINOV2, REGISTERS = "vit", "dinov2", "dinov2_with_registers"
_CLASSES = {VIT: "ViTModel", DINOV2: "Dinov2Model", REGISTERS: "Dinov2WithRegistersModel"}
_IGNORED = (r"pooler\..*", r"classifier\..*", r"embeddings\.mask_token")  # of heads, and of pretraining
_POSITIONS = "params/towers/image/pos_embed"

_LAYER, _QKV = "encoder.layer.{i}", ("query", "key", "value")
_SHARED = [
  Rule("embeddings.cls_token", "cls_token"), Rule("embeddings.position_embeddings", "pos_embed"),
  Rule("embeddings.patch_embeddings.projection.weight", "patch_embed/kernel", CONV),
  Rule("embeddings.patch_embeddings.projection.bias", "patch_embed/bias"),
  Rule(tuple(f"{_LAYER}.attention.attention.{x}.weight" for x in _QKV), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR),
  Rule(tuple(f"{_LAYER}.attention.attention.{x}.bias" for x in _QKV), "blocks_{i}/attn/qkv/bias", STACKED),
  *linear(f"{_LAYER}.attention.output.dense", "blocks_{i}/attn/proj"), *norm("layernorm", "norm"),
]  # fmt: skip
_VIT = [
  *norm(f"{_LAYER}.layernorm_before", "blocks_{i}/norm1"), *norm(f"{_LAYER}.layernorm_after", "blocks_{i}/norm2"),
  *linear(f"{_LAYER}.intermediate.dense", "blocks_{i}/mlp/fc1"),
  *linear(f"{_LAYER}.output.dense", "blocks_{i}/mlp/fc2"),
]  # fmt: skip
_DINOV2 = [
  Rule("embeddings.register_tokens", "reg_token"),
  *(rule for i in (1, 2) for rule in norm(f"{_LAYER}.norm{i}", f"blocks_{{i}}/norm{i}")),
  *(Rule(f"{_LAYER}.layer_scale{i}.lambda1", f"blocks_{{i}}/ls{i}/gamma") for i in (1, 2)),
]
_PLAIN = [rule for i in (1, 2) for rule in linear(f"{_LAYER}.mlp.fc{i}", f"blocks_{{i}}/mlp/fc{i}")]
_SWIGLU = [
  *linear(f"{_LAYER}.mlp.weights_in", "blocks_{i}/mlp/fc1"),  # the gate first
  *linear(f"{_LAYER}.mlp.weights_out", "blocks_{i}/mlp/fc2"),
]


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The image tower of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoder does not compute, and as `naming.to_ours`.
  """
  file = folder / "config.json"
  with missing_fields(file):
    tower, rules = _tower(config, file), _rules(config)
    made_for = ImageInput(
      square(config["image_size"], f"{file}: image_size"), (0.0,) * 3, (1.0,) * 3
    )  # DINOv2 sees smaller images
  prefix = f"{config['model_type']}."  # of a model with a classifier
  arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
  wanted = shapes({"image": tower}, {}, made_for)
  found = to_ours(under(rules, "", "towers/image"), arrays, wanted, str(folder), (*_IGNORED, *allow_unused))
  return Pretrained({"image": tower}, {}, found, read_image_input(folder), source=str(folder))


def plan(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json of the image tower; no array is looked at.

  Raises UserError for an option that none of the three models has.
  """
  tower, inside = image_tower(pretrained, where)
  key = pretrained.key("towers/image")
  if not tower["name"].startswith("vit"):
    raise UserError(
      f"{where}: {key}.name is {tower['name']!r}, and of transformers' image encoders only 'vit' is "
      f"written; {OTHERWISE}"
    )
  if tower["positions"] != "learned":
    raise UserError(
      f"{where}: {key}.positions: transformers' {VIT} and {DINOV2} have learned positions, not "
      f"{tower['positions']!r}; {OTHERWISE}"
    )
  grid = math.isqrt(inside[_POSITIONS].shape[1])  # the class token's is one more than a square
  config = _config(tower, grid * tower["patch"])
  said = f"{where}: not transformers' {config['model_type']}"
  check_expressible(pretrained, "towers/image", _tower(config, where), said)
  check_named(under(_rules(config), "", "towers/image"), inside, where)
  return config


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the image tower for `AutoModel.from_pretrained(OUT)`; heads stay behind.

  Raises UserError for an option that none of the three models has.
  """
  config = plan(pretrained, str(out))
  tower, inside = image_tower(pretrained, str(out))
  arrays = to_theirs(under(_rules(config), "", "towers/image"), inside, str(out))
  if config["model_type"] == VIT:
    width = tower["width"]
    arrays |= {"pooler.dense.weight": np.eye(width, dtype=np.float32), "pooler.dense.bias": np.zeros(width, np.float32)}
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": config, NAME: image_config(pretrained.image)}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")


def _tower(config: Mapping[str, Any], file: object) -> dict[str, Any]:
  """Our encoder of a config. Raises UserError for a value that it does not compute."""
  require(config, file, num_channels=3, head_dim=None)
  width, vit = config["hidden_size"], config["model_type"] == VIT
  swiglu = not vit and config.get("use_swiglu_ffn", False)
  hidden = config["intermediate_size"] if vit else int(width * config["mlp_ratio"])
  hidden = (int(hidden * 2 / 3) + 7) // 8 * 8 if swiglu else hidden
  return complete({
    "name": "vit", "width": width, "depth": config["num_hidden_layers"], "heads": config["num_attention_heads"],
    "patch": square(config["patch_size"], f"{file}: patch_size"), "mlp_ratio": hidden / width, "pool": "cls",
    "norm_epsilon": config["layer_norm_eps"], "qkv_bias": config.get("qkv_bias", True),
    "mlp": "swiglu" if swiglu else "plain", "layer_scale": None if vit else config["layerscale_value"],
    "registers": config["num_register_tokens"] if config["model_type"] == REGISTERS else 0,
    "position_antialias": config["model_type"] == REGISTERS,
    **({} if swiglu else {"activation": activation(config, "hidden_act", file)}),
  })  # fmt: skip


def _config(tower: Mapping[str, Any], size: int) -> dict[str, Any]:
  """The inverse, as near as they come; `size` of the images that the positions are for."""
  width, swiglu = tower["width"], tower["mlp"] == "swiglu"
  hidden = round(width * tower["mlp_ratio"])
  config = {
    "hidden_size": width, "num_hidden_layers": tower["depth"], "num_attention_heads": tower["heads"],
    "layer_norm_eps": tower["norm_epsilon"], "image_size": size, "patch_size": tower["patch"], "num_channels": 3,
    "qkv_bias": tower["qkv_bias"], "hidden_act": "silu" if swiglu else their_activation(tower["activation"]),
  }  # fmt: skip
  if tower["layer_scale"] is None:
    config |= {"model_type": VIT, "intermediate_size": hidden, "pooler_act": "linear"}
  else:
    ratio = (hidden * 1.5 if swiglu else hidden) / width + 1e-6  # theirs is a whole number
    config |= {
      "model_type": REGISTERS if tower["registers"] else DINOV2,
      "use_swiglu_ffn": swiglu,
      "mlp_ratio": int(ratio),
      "layerscale_value": tower["layer_scale"],
      **({"num_register_tokens": tower["registers"]} if tower["registers"] else {}),
    }
  return config | {"architectures": [_CLASSES[config["model_type"]]]}


def _rules(config: Mapping[str, Any]) -> list[Rule]:
  if config["model_type"] == VIT:
    return _SHARED + _VIT
  return _SHARED + _DINOV2 + (_SWIGLU if config.get("use_swiglu_ffn") else _PLAIN)
