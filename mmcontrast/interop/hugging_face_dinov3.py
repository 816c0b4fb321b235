"""Hugging Face's DINOv3ViTModel, read only: a ViT with rope, registers, layer scale and no bias of keys."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.interop.hugging_face_config import activation, missing_fields, require
from mmcontrast.interop.hugging_face_image import read_image_input
from mmcontrast.interop.naming import CONV, STACKED, STACKED_LINEAR, Arrays, Rule, linear, norm, to_ours, under
from mmcontrast.interop.pretrained import Pretrained, complete, shapes

_ATTENTION, _MLP = "layer.{i}.attention", "layer.{i}.mlp"
_IGNORED = (r"embeddings\.mask_token",)
_RULES = [
  Rule("embeddings.cls_token", "cls_token"), Rule("embeddings.register_tokens", "reg_token"),
  Rule("embeddings.patch_embeddings.weight", "patch_embed/kernel", CONV),
  Rule("embeddings.patch_embeddings.bias", "patch_embed/bias"),
  Rule(tuple(f"{_ATTENTION}.{x}_proj.weight" for x in "qkv"), "blocks_{i}/attn/qkv/kernel", STACKED_LINEAR),
  Rule(tuple(f"{_ATTENTION}.{x}_proj.bias" for x in "qkv"), "blocks_{i}/attn/qkv/bias", STACKED),
  *linear(f"{_ATTENTION}.o_proj", "blocks_{i}/attn/proj"), *norm("norm", "norm"),
  *(rule for i in (1, 2) for rule in norm(f"layer.{{i}}.norm{i}", f"blocks_{{i}}/norm{i}")),
  *(Rule(f"layer.{{i}}.layer_scale{i}.lambda1", f"blocks_{{i}}/ls{i}/gamma") for i in (1, 2)),
  *linear(f"{_MLP}.down_proj", "blocks_{i}/mlp/fc2"),
]  # fmt: skip
_PLAIN = linear(f"{_MLP}.up_proj", "blocks_{i}/mlp/fc1")
_GATED = [
  Rule(tuple(f"{_MLP}.{x}_proj.{leaf}" for x in ("gate", "up")), f"blocks_{{i}}/mlp/fc1/{ours}", layout)
  for leaf, ours, layout in (("weight", "kernel", STACKED_LINEAR), ("bias", "bias", STACKED))
]


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The image tower of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoder does not compute, and as `naming.to_ours`.
  """
  file = folder / "config.json"
  require(
    config, file, num_channels=3, query_bias=True, value_bias=True, proj_bias=True, mlp_bias=True, rope_theta=100.0
  )
  with missing_fields(file):
    width, gated = config["hidden_size"], config["use_gated_mlp"]
    if gated:
      require(config, file, hidden_act="silu")
    tower = complete({
      "name": "vit", "width": width, "depth": config["num_hidden_layers"], "heads": config["num_attention_heads"],
      "patch": config["patch_size"], "mlp_ratio": config["intermediate_size"] / width, "pool": "cls",
      "positions": "rope", "norm_epsilon": config["layer_norm_eps"], "registers": config["num_register_tokens"],
      "layer_scale": config["layerscale_value"],
      **({"mlp": "swiglu"} if gated else {"activation": activation(config, "hidden_act", file)}),
    })  # fmt: skip
  if not config.get("key_bias", False):
    arrays = arrays | {f"layer.{i}.attention.k_proj.bias": np.zeros(width, np.float32) for i in range(tower["depth"])}
  image = read_image_input(folder)
  wanted = shapes({"image": tower}, {}, image)
  rules = under(_RULES + (_GATED if gated else _PLAIN), "", "towers/image")
  found = to_ours(rules, arrays, wanted, str(folder), (*_IGNORED, *allow_unused))
  return Pretrained({"image": tower}, {}, found, image, source=str(folder))
