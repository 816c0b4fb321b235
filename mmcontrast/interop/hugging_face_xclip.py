"""Hugging Face's XCLIPModel: a video tower and a text tower, and video-specific prompts, the module of a term.

A text is pooled at its highest id whatever the config calls its end, which is what the end of CLIP's texts is.
"""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.encoders.video_prompts import VideoPrompts
from mmcontrast.errors import UserError
from mmcontrast.interop import tokenizer_files
from mmcontrast.interop.hugging_face_clip import BLOCKS, TEXT_TOWER, attention
from mmcontrast.interop.hugging_face_config import activation, require, their_activation
from mmcontrast.interop.hugging_face_image import NAME, image_config, read_image_input
from mmcontrast.interop.naming import (
  CONV,
  LEADING,
  LEADING2,
  LINEAR,
  SAME,
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
  Pretrained,
  TextInput,
  check_expressible,
  complete,
  shapes,
  take_logits,
)
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights
from mmcontrast.parameter_paths import path_name

PROMPTED = "prompted"
_SAME = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "num_hidden_layers": 12}
_TEXT = {**_SAME, "vocab_size": 49408, "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8,
         "max_position_embeddings": 77}  # fmt: skip
_VISION = {**_SAME, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_channels": 3,
           "image_size": 224, "patch_size": 32, "num_frames": 8, "mit_hidden_size": 512, "mit_intermediate_size": 2048,
           "mit_num_hidden_layers": 1, "mit_num_attention_heads": 8}  # fmt: skip
_DEFAULTS = {"projection_dim": 512, "prompt_layers": 2, "prompt_alpha": 0.1, "prompt_num_attention_heads": 8,
             "prompt_hidden_act": "quick_gelu"}  # fmt: skip
_IGNORED = (r".*\.position_ids",)
_EPSILON = 1e-5  # of the norms of our prompts

_VIDEO_TOWER = [
  *under([
    *BLOCKS, *under([
      *linear("message_fc", "message_fc"), *norm("message_ln", "message_norm"),
      *attention("message_attn", "message_attn"),
    ], "encoder.layers.{i}.", "blocks_{i}"),
    Rule("embeddings.patch_embedding.weight", "patch_embed/kernel", CONV),
    Rule("embeddings.class_embedding", "cls_token", LEADING2),
    Rule("embeddings.position_embedding.weight", "pos_embed", LEADING),
    *norm("pre_layernorm", "norm_pre"), *norm("post_layernorm", "norm"),
  ], "vision_model.", "towers/video"),
  *under([
    *under([*BLOCKS, Rule("position_embedding", "pos_embed")], "mit.", "mit"),
    Rule("visual_projection.weight", "proj/kernel", LINEAR), *norm("prompts_visual_layernorm", "norm_patches"),
    Rule("prompts_visual_projection", "proj_patches/kernel", SAME),
  ], "", "towers/video"),
]  # fmt: skip
_LAYER = "decoder.{i}"
_PROMPTS = under([
  Rule("alpha", "alpha"), *norm("layernorm", "norm"), *norm(f"{_LAYER}.norm1", "layers_{i}/norm1"),
  *norm(f"{_LAYER}.norm3", "layers_{i}/norm2"), *linear(f"{_LAYER}.mlp.0", "layers_{i}/mlp/fc1"),
  *linear(f"{_LAYER}.mlp.3", "layers_{i}/mlp/fc2"),
  Rule(f"{_LAYER}.cross_attn.q_proj.weight", "layers_{i}/cross_attn/q/kernel", LINEAR),
  Rule(tuple(f"{_LAYER}.cross_attn.{x}_proj.weight" for x in "kv"), "layers_{i}/cross_attn/kv/kernel", STACKED_LINEAR),
  *linear(f"{_LAYER}.cross_attn.proj", "layers_{i}/cross_attn/proj"),
], "prompts_generator.", f"terms/{PROMPTED}/prompts")  # fmt: skip
_RULES = [
  *TEXT_TOWER, *_VIDEO_TOWER, *_PROMPTS,
  Rule("text_projection.weight", "heads/text_joint/fc1/kernel", LINEAR),
]  # fmt: skip


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """Both towers and the prompts of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoders do not compute, and as `naming.to_ours`.
  """
  file = folder / "config.json"
  towers, heads, modules = describe(config, file)
  vision = _section(config, "vision")
  image, text = read_image_input(folder, videos=True), _text_input(folder, towers["text"])
  if image.size != (side := square(vision["image_size"], f"{file}: image_size")):
    raise UserError(f"{file}: image_size is {side}, and {NAME} makes frames of {image.size} px")
  arrays, scale, _ = take_logits(arrays, ("logit_scale", "logit_bias"), str(folder))
  wanted = shapes(towers, heads, image, text, frames=vision["num_frames"])
  wanted |= _shapes_of_prompts(modules[PROMPTED], towers["video"]["project"])
  found = to_ours(_RULES, arrays, wanted, str(folder), (*_IGNORED, *allow_unused))
  return Pretrained(
    towers, heads, found, image, text, frames=vision["num_frames"], modules=modules, logit_scale=scale,
    source=str(folder),
  )  # fmt: skip


def plan(pretrained: Pretrained, where: str) -> tuple[dict[str, Any], dict[str, bytes]]:
  """(config.json, the files of the tokenizer); no array is looked at.

  Raises UserError for what the model has and XCLIPModel has not.
  """
  config = _config(pretrained, where)
  towers, heads, _ = describe(config, where)
  for part, said in (("towers", towers), ("heads", heads)):
    for name, understood in said.items():
      if name in getattr(pretrained, part):
        check_expressible(pretrained, f"{part}/{name}", understood, f"{where}: not transformers' xclip")
  if pretrained.logit_scale is None:
    raise UserError(f"{where}: xclip has a logit scale, and this model has none")
  tokenizer = tokenizer_files.contents(pretrained.text, with_clip=True) if pretrained.text.tokenizer else {}
  highest = complete(pretrained.towers["text"])["vocab_size"] - 1
  if tokenizer and pretrained.text.token_ids["eos"] != highest:
    raise UserError(
      f"{where}: xclip pools a text at its highest id, {highest}, and this tokenizer ends texts with "
      f"{pretrained.text.token_ids['eos']}; use CLIP's tokenizer"
    )
  check_named(_RULES, pretrained.arrays, where)
  return config, tokenizer


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes what `AutoModel.from_pretrained(OUT)` loads. Raises UserError as `plan`."""
  config, tokenizer = plan(pretrained, str(out))
  arrays = to_theirs(_RULES, pretrained.arrays, str(out))
  arrays["logit_scale"] = np.float32(math.log(pretrained.logit_scale))
  image = image_config(pretrained.image) | {"image_processor_type": "VideoMAEImageProcessor"}
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": config, NAME: image}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")
  for name, content in tokenizer.items():
    (out / name).write_bytes(content)


def describe(config: Mapping[str, Any], where: object) -> tuple[dict[str, dict], dict[str, dict], dict[str, dict]]:
  """(towers, heads, modules) of a config. Raises UserError for a value that is not computed."""
  config, text, vision = {**_DEFAULTS, **config}, _section(config, "text"), _section(config, "vision")
  joint = config["projection_dim"]
  require(config, where, prompt_hidden_act="quick_gelu")
  require(vision, f"{where}: vision_config", num_channels=3, mit_hidden_size=joint, mit_intermediate_size=4 * joint)
  for name, section in (("text", text), ("vision", vision)):
    require(section, f"{where}: {name}_config", layer_norm_eps=_EPSILON)
  towers = {
    "video": {
      "name": "video_vit", **_transformer(vision, f"{where}: vision_config"), "temporal": "xclip", "tokens": "patches",
      "patch": square(vision["patch_size"], f"{where}: patch_size"), "temporal_depth": vision["mit_num_hidden_layers"],
      "temporal_heads": vision["mit_num_attention_heads"], "project": joint, "pre_norm": True, "patch_bias": False,
    },
    "text": {
      "name": "text_transformer", **_transformer(text, f"{where}: text_config"), "vocab_size": text["vocab_size"],
      "max_length": text["max_position_embeddings"], "causal": True, "pool": "eos",
    },
  }  # fmt: skip
  heads = {
    "video_joint": {"tower": "video", "name": "identity"},
    "video_patches": {"tower": "video", "name": "token_identity"},
    "text_joint": {"tower": "text", "name": "linear", "dim": joint, "bias": False},
  }
  prompts = {"name": "video_prompts", "depth": config["prompt_layers"], "heads": config["prompt_num_attention_heads"],
             "alpha": config["prompt_alpha"]}  # fmt: skip
  return {name: complete(tower) for name, tower in towers.items()}, heads, {PROMPTED: prompts}


def _section(config: Mapping[str, Any], name: str) -> dict[str, Any]:
  defaults = {"text": _TEXT, "vision": _VISION}[name]
  return {**defaults, **(config.get(f"{name}_config") or {}), **(config.get(f"{name}_config_dict") or {})}


def _transformer(section: Mapping[str, Any], where: str) -> dict[str, Any]:
  width = section["hidden_size"]
  return {
    "width": width, "depth": section["num_hidden_layers"], "heads": section["num_attention_heads"],
    "mlp_ratio": section["intermediate_size"] / width, "norm_epsilon": section["layer_norm_eps"],
    "activation": activation(section, "hidden_act", where),
  }  # fmt: skip


def _text_input(folder: pathlib.Path, tower: Mapping[str, Any]) -> TextInput:
  tokenizer, ids = tokenizer_files.find(folder, lower=False)
  if tokenizer and ids["eos"] != tower["vocab_size"] - 1:
    raise UserError(
      f"{folder}: xclip pools a text at its highest id, {tower['vocab_size'] - 1}, and the tokenizer ends texts with "
      f"{ids['eos']}"
    )
  return TextInput(tower["max_length"], tokenizer, ids, False)


def _shapes_of_prompts(options: Mapping[str, Any], width: int) -> dict[str, tuple[int, ...]]:
  one = jax.ShapeDtypeStruct((1, 1, width), jnp.float32)
  module = VideoPrompts(options["depth"], options["heads"], options["alpha"])
  made = jax.eval_shape(module.init, jax.random.key(0), one, one)["params"]
  prefix = f"params/terms/{PROMPTED}/prompts"
  return {f"{prefix}/{path_name(path)}": leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(made)[0]}


def _config(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json that comes nearest to a model; where it says something else, `describe` shows it."""
  if PROMPTED not in pretrained.modules:
    raise UserError(f"{where}: xclip has video-specific prompts, and this model has none; {OTHERWISE}")
  video, text = (complete(pretrained.towers[name]) for name in ("video", "text"))
  for name, tower, theirs in (("video", video, "video_vit"), ("text", text, "text_transformer")):
    if tower["name"] != theirs:
      raise UserError(
        f"{where}: {pretrained.key(f'towers/{name}')}.name is {tower['name']!r}, and transformers' xclip has "
        f"{theirs!r} only; {OTHERWISE}"
      )
  joint, ids, prompts = video["project"] or video["width"], pretrained.text.token_ids, pretrained.modules[PROMPTED]
  vision = {
    **_fields(video), "patch_size": video["patch"], "image_size": pretrained.image.size, "num_channels": 3,
    "num_frames": pretrained.frames, "mit_hidden_size": joint, "mit_intermediate_size": 4 * joint,
    "mit_num_hidden_layers": video["temporal_depth"],
    "mit_num_attention_heads": video["temporal_heads"] or max(1, joint // 64),
  }  # fmt: skip
  words = {
    **_fields(text), "vocab_size": text["vocab_size"], "max_position_embeddings": text["max_length"],
    "bos_token_id": ids["bos"], "eos_token_id": ids["eos"], "pad_token_id": ids["pad"],
  }  # fmt: skip
  return {
    "model_type": "xclip", "architectures": ["XCLIPModel"], "projection_dim": joint, "text_config": words,
    "vision_config": vision, "prompt_layers": prompts["depth"], "prompt_alpha": prompts["alpha"],
    "prompt_num_attention_heads": prompts["heads"], "prompt_hidden_act": "quick_gelu",
  }  # fmt: skip


def _fields(tower: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `_transformer`."""
  return {
    "hidden_size": tower["width"], "num_hidden_layers": tower["depth"], "num_attention_heads": tower["heads"],
    "intermediate_size": round(tower["width"] * tower["mlp_ratio"]), "layer_norm_eps": tower["norm_epsilon"],
    "hidden_act": their_activation(tower["activation"]),
  }  # fmt: skip
