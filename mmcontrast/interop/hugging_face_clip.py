"""Hugging Face's CLIPModel, SiglipModel, which SigLIP 2 of a fixed resolution is too, and Siglip2Model, its NaFlex.

A config.json leaves out what is the default in transformers 5; those defaults are here.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.interop import tokenizer_files
from mmcontrast.interop.hugging_face_config import activation, require, their_activation
from mmcontrast.interop.hugging_face_image import NAME, image_config, read_image_input
from mmcontrast.interop.json_files import read_json
from mmcontrast.interop.naming import (
  CONV,
  LEADING,
  LEADING2,
  LINEAR,
  PATCHES,
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
  TextInput,
  check_expressible,
  complete,
  shapes,
  take_logits,
)
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights

_CLIP, _SIGLIP, _SIGLIP2 = "clip", "siglip", "siglip2"
_MISTAKEN_EOS = 2  # of older files, which transformers reads as the highest id
_LAYERS = {"num_hidden_layers": 12, "attention_dropout": 0.0}
_TEXT = {
  _CLIP: {**_LAYERS, "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
          "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "eos_token_id": 49407},
  _SIGLIP: {**_LAYERS, "vocab_size": 32000, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
            "max_position_embeddings": 64, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            "projection_size": None},
}  # fmt: skip
_TEXT[_SIGLIP2] = _TEXT[_SIGLIP]
_VISION = {
  _CLIP: {**_LAYERS, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_channels": 3,
          "image_size": 224, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5},
  _SIGLIP: {**_LAYERS, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_channels": 3,
            "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
            "vision_use_head": True},
}  # fmt: skip
_VISION[_SIGLIP2] = {key: value for key, value in _VISION[_SIGLIP].items() if key != "image_size"} | {
  "num_patches": 256
}
_IGNORED = (r".*\.position_ids",)  # 0, 1, 2, ..., which older files have


def attention(theirs: str, ours: str) -> list[Rule]:
  """Rules of attention whose queries, keys and values are matrices apart."""
  return [
    *linear(f"{theirs}.out_proj", f"{ours}/proj"),
    Rule(tuple(f"{theirs}.{x}_proj.weight" for x in "qkv"), f"{ours}/qkv/kernel", STACKED_LINEAR),
    Rule(tuple(f"{theirs}.{x}_proj.bias" for x in "qkv"), f"{ours}/qkv/bias", STACKED),
  ]


BLOCKS = under([
  *norm("layer_norm1", "norm1"), *norm("layer_norm2", "norm2"), *linear("mlp.fc1", "mlp/fc1"),
  *linear("mlp.fc2", "mlp/fc2"), *attention("self_attn", "attn"),
], "encoder.layers.{i}.", "blocks_{i}")  # fmt: skip
TEXT_TOWER = under([
  *BLOCKS, Rule("embeddings.token_embedding.weight", "token_embedding/embedding"),
  Rule("embeddings.position_embedding.weight", "pos_embed"), *norm("final_layer_norm", "norm"),
], "text_model.", "towers/text")  # fmt: skip
_IMAGE_TOWER = under([
  *BLOCKS, Rule("embeddings.patch_embedding.weight", "patch_embed/kernel", CONV),
  Rule("embeddings.patch_embedding.bias", "patch_embed/bias"),
  Rule("embeddings.class_embedding", "cls_token", LEADING2),
  Rule("embeddings.position_embedding.weight", "pos_embed", LEADING),
  *norm("pre_layrnorm", "norm_pre"),  # spelled so
  *norm("post_layernorm", "norm"),
  Rule("head.probe", "attn_pool/latent"), *norm("head.layernorm", "attn_pool/norm"),
  Rule("head.attention.in_proj_weight", ("attn_pool/q/kernel", "attn_pool/kv/kernel"), STACKED_LINEAR),
  Rule("head.attention.in_proj_bias", ("attn_pool/q/bias", "attn_pool/kv/bias"), STACKED),
  *linear("head.attention.out_proj", "attn_pool/proj"), *linear("head.mlp.fc1", "attn_pool/mlp/fc1"),
  *linear("head.mlp.fc2", "attn_pool/mlp/fc2"),
], "vision_model.", "towers/image")  # fmt: skip
_OF_PATCHES = Rule("vision_model.embeddings.patch_embedding.weight", "towers/image/patch_embed/kernel", PATCHES)
_HEADS = {
  _CLIP: [Rule("visual_projection.weight", "heads/image_joint/fc1/kernel", LINEAR),
          Rule("text_projection.weight", "heads/text_joint/fc1/kernel", LINEAR)],
  _SIGLIP: linear("text_model.head", "heads/text_joint/fc1"),
}  # fmt: skip
_HEADS[_SIGLIP2] = _HEADS[_SIGLIP]
_CLASSES = {_CLIP: "CLIPModel", _SIGLIP: "SiglipModel", _SIGLIP2: "Siglip2Model"}


def image_rules(kind: str) -> list[Rule]:
  """Names and layouts of the image tower of CLIPModel, SiglipModel or Siglip2Model."""
  return [*([_OF_PATCHES] if kind == _SIGLIP2 else []), *_IMAGE_TOWER]


def _rules(kind: str) -> list[Rule]:
  return TEXT_TOWER + image_rules(kind) + _HEADS[kind]


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """Both towers of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoders do not compute, and as `naming.to_ours`.
  """
  file = folder / "config.json"
  towers, heads = describe(config, file)
  image, text = read_image_input(folder), _text_input(folder, config, towers["text"])
  check_images(_section(config, "vision"), image, file)
  arrays, scale, bias = take_logits(arrays, ("logit_scale", "logit_bias"), str(folder))
  found = to_ours(
    _rules(config["model_type"]), arrays, shapes(towers, heads, image, text), str(folder), (*_IGNORED, *allow_unused)
  )
  return Pretrained(towers, heads, found, image, text, scale, bias, str(folder))


def plan(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], dict[str, bytes], dict[int, int]]:
  """The config, the tokenizer's files and the ids that change places (`_moved_ids`); no array is looked at.

  Raises UserError for an option of a tower or a head that neither CLIPModel nor SiglipModel has.
  """
  config = config_of(pretrained, where)
  kind = config["model_type"]
  towers, heads = describe(config, where)
  for part, said in (("towers", towers), ("heads", heads)):
    for name, understood in said.items():
      check_expressible(pretrained, f"{part}/{name}", understood, f"{where}: not transformers' {kind}")
  moved = _moved_ids(config, pretrained.text)
  tokenizer = tokenizer_files.contents(pretrained.text, with_clip=True, moved=moved)
  check_named(_rules(kind), pretrained.arrays, where)
  if pretrained.logit_scale is None:
    raise UserError(
      f"{where}: {kind} has a logit scale, and this model has none: train with "
      "temperature=dict(learned=True) in the term between the two heads"
    )
  return config, tokenizer, moved


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes what `AutoModel`, `AutoTokenizer` and `AutoImageProcessor` of transformers load from OUT.

  Raises UserError for an option of a tower or a head that neither CLIPModel nor SiglipModel has.
  """
  config, tokenizer, moved = plan(pretrained, str(out))
  kind = config["model_type"]
  arrays = to_theirs(_rules(kind), pretrained.arrays, str(out))
  if moved:
    name, (one, other) = "text_model.embeddings.token_embedding.weight", moved
    arrays[name] = np.array(arrays[name])
    arrays[name][[one, other]] = arrays[name][[other, one]]
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
      config["text_config"][key] = moved.get(config["text_config"][key], config["text_config"][key])
  scale = np.float32(math.log(pretrained.logit_scale))
  arrays["logit_scale"] = scale if kind == _CLIP else scale.reshape(1)
  if kind != _CLIP:
    arrays["logit_bias"] = np.float32([pretrained.logit_bias or 0.0])
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  image = {**image_config(pretrained.image), "image_processor_type": _CLASSES[kind].replace("Model", "ImageProcessor")}
  for name, content in {"config.json": config, NAME: image}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")
  for name, content in tokenizer.items():
    (out / name).write_bytes(content)


def _moved_ids(config: Mapping[str, Any], text: TextInput) -> dict[int, int]:
  """Ids that change places on the way out: CLIPModel takes an eos of 2 for a mistake, and pools the highest id then."""
  if config["model_type"] != _CLIP or config["text_config"]["eos_token_id"] != _MISTAKEN_EOS:
    return {}
  highest = tokenizer_files.highest_id(text)
  return {_MISTAKEN_EOS: highest, highest: _MISTAKEN_EOS}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  """The fields of "text" or "vision" over their defaults; older files say them twice, the second time whole."""
  defaults = {"text": _TEXT, "vision": _VISION}[name][config["model_type"]]
  return {**defaults, **(config.get(f"{name}_config") or {}), **(config.get(f"{name}_config_dict") or {})}


def describe(config: Mapping[str, Any], where: object) -> tuple[dict[str, dict], dict[str, dict]]:
  """(towers, heads) of a config. Raises UserError for a value that is not computed."""
  text, vision, clip = _section(config, "text"), _section(config, "vision"), config["model_type"] == _CLIP
  towers = {
    "image": image_tower(config["model_type"], vision, f"{where}: vision_config"),
    "text": {
      "name": "text_transformer", **_transformer(text, f"{where}: text_config"), "vocab_size": text["vocab_size"],
      "max_length": text["max_position_embeddings"], "causal": clip, "pool": "eos" if clip else "last",
      "attend_padding": not clip,  # CLIP's eos is before it
    },
  }  # fmt: skip
  if clip:
    linear_head = {"name": "linear", "dim": config.get("projection_dim", 512), "bias": False}
    image_head = text_head = linear_head
  else:
    image_head = {"name": "identity"}
    text_head = {"name": "linear", "dim": text["projection_size"] or text["hidden_size"], "bias": True}
  heads = {"image_joint": {"tower": "image", **image_head}, "text_joint": {"tower": "text", **text_head}}
  return {name: complete(tower) for name, tower in towers.items()}, heads


def image_tower(kind: str, vision: Mapping[str, Any], where: str) -> dict[str, Any]:
  """The image tower of a vision_config, over its defaults. Raises UserError for a value that is not computed."""
  clip, vision = kind == _CLIP, {**_VISION[kind], **vision}
  require(vision, where, num_channels=3, vision_use_head=True)
  vision |= {key: square(vision[key], f"{where}: {key}") for key in ("image_size", "patch_size") if key in vision}
  tower = {
    "name": "vit", **_transformer(vision, where), "patch": vision["patch_size"], "positions": "learned",
    "pool": "cls" if clip else "map", "cls_position": True, "pre_norm": clip, "patch_bias": not clip,
  }  # fmt: skip
  if kind != _SIGLIP2:
    return tower | {"cut_edges": vision["image_size"] % vision["patch_size"] > 0}
  side = math.isqrt(vision["num_patches"])
  if side * side != vision["num_patches"]:
    raise UserError(f"{where}: num_patches is {vision['num_patches']}, and positions are of a square; it has to be one")
  return tower | {"position_side": side}


def check_images(vision: Mapping[str, Any], image: ImageInput, file: object) -> None:
  """Raises UserError where preprocessor_config.json makes other images than the model reads."""
  vision = {key: square(vision[key], f"{file}: {key}") for key in ("image_size", "patch_size") if key in vision}
  if "image_size" in vision and image.size != vision["image_size"]:
    made = f"at most {image.patches} patches, at their ratio" if image.patches else f"{image.size} px"
    raise UserError(f"{file}: image_size is {vision['image_size']}, and {NAME} makes images of {made}")
  if "image_size" not in vision and not image.patches:
    raise UserError(
      f"{file}: a Siglip2Model reads images that keep their ratio, and {NAME} makes squares of {image.size} px; it has "
      "to say max_num_patches and patch_size"
    )
  if image.patches and image.patch != vision["patch_size"]:
    raise UserError(f"{file}: patch_size is {vision['patch_size']}, and {NAME} cuts patches of {image.patch} px")


def _transformer(section: Mapping[str, Any], where: str) -> dict[str, Any]:
  width = section["hidden_size"]
  return {
    "width": width,
    "depth": section["num_hidden_layers"],
    "heads": section["num_attention_heads"],
    "mlp_ratio": section["intermediate_size"] / width,
    "norm_epsilon": section["layer_norm_eps"],
    "activation": activation(section, "hidden_act", where),
  }


def _text_input(folder: pathlib.Path, config: Mapping[str, Any], tower: Mapping[str, Any]) -> TextInput:
  settings = folder / "tokenizer_config.json"
  kind = read_json(settings).get("tokenizer_class", "") if settings.is_file() else ""
  # SigLIP's texts were canonical; SigLIP 2's small, which the Gemma tokenizer that it borrows does not do.
  lower = {"Siglip": "canonicalize", "Gemma": True, "Siglip2": True}.get(kind.partition("Tokenizer")[0], False)
  tokenizer, ids = tokenizer_files.find(folder, lower)
  eos = _section(config, "text").get("eos_token_id")
  if tokenizer and config["model_type"] == _CLIP:
    eos = tower["vocab_size"] - 1 if eos == _MISTAKEN_EOS else eos
    if eos != ids["eos"]:
      raise UserError(f"{folder}: text_config.eos_token_id is {eos}, and the tokenizer ends texts with {ids['eos']}")
  return TextInput(tower["max_length"], tokenizer, ids, lower)


def config_of(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json that comes nearest to a model; where it says something else, `describe` shows it."""
  for name in ("image", "text"):
    if f"{name}_joint" not in pretrained.heads:
      raise UserError(f"{where}: transformers' CLIP and SigLIP have a head of {name}s, and this model has none")
  image, text = (complete(pretrained.towers[name]) for name in ("image", "text"))
  kind = _SIGLIP if image.get("pool") == "map" else _CLIP
  if pretrained.image.patches:
    kind = _SIGLIP2
  for name, tower, theirs in (("image", image, "vit"), ("text", text, "text_transformer")):
    if not tower["name"].startswith(theirs):
      raise UserError(
        f"{where}: {pretrained.key(f'towers/{name}')}.name is {tower['name']!r}, and transformers' CLIP "
        f"and SigLIP have {theirs!r} only; {OTHERWISE}"
      )
  head, ids = pretrained.heads["text_joint"], pretrained.text.token_ids
  vision = vision_fields(pretrained, image)
  words = {
    **_fields(text),
    "vocab_size": text["vocab_size"],
    "max_position_embeddings": text["max_length"],
    "bos_token_id": ids["bos"],
    "eos_token_id": ids["eos"],
    "pad_token_id": ids["pad"],
  }
  config = {"model_type": kind, "text_config": words, "vision_config": vision}
  if kind == _CLIP:
    return config | {"architectures": [_CLASSES[kind]], "projection_dim": head.get("dim", text["width"])}
  words["projection_size"] = head.get("dim", text["width"])
  return config | {"architectures": [_CLASSES[kind]]}


def vision_fields(pretrained: Pretrained, tower: Mapping[str, Any]) -> dict[str, Any]:
  """The vision_config of an image tower, of complete options."""
  fields = {**_fields(tower), "patch_size": tower["patch"], "num_channels": 3}
  if not pretrained.image.patches:
    return fields | {"image_size": pretrained.image.size}
  return fields | {"num_patches": pretrained.arrays["params/towers/image/pos_embed"].shape[1]}


def _fields(tower: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `_transformer`."""
  return {
    "hidden_size": tower["width"],
    "num_hidden_layers": tower["depth"],
    "num_attention_heads": tower["heads"],
    "intermediate_size": round(tower["width"] * tower["mlp_ratio"]),
    "layer_norm_eps": tower["norm_epsilon"],
    "hidden_act": their_activation(tower["activation"]),
  }
