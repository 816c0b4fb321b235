"""Hugging Face's VideoMAEModel, alone or within VideoMAEForPreTraining and VideoMAEForVideoClassification.

Its last norm is of the tokens (as it is pretrained), of their mean (of a model with classes, whose classifier is left
out), or missing. Their attention has no bias of keys, which no output depends on: ours is zero in what is read, and
left out of what is written.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.errors import UserError
from mmcontrast.interop.hugging_face_config import activation, require, their_activation
from mmcontrast.interop.hugging_face_image import NAME, image_config, read_image_input
from mmcontrast.interop.naming import (
  STACKED_LINEAR,
  WITHOUT_KEYS,
  Arrays,
  Rule,
  check_named,
  linear,
  norm,
  to_ours,
  to_theirs,
  under,
  unstacked,
)
from mmcontrast.interop.pretrained import OTHERWISE, Pretrained, check_expressible, complete, only_tower, shapes
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights

_DEFAULTS = {
  "image_size": 224, "patch_size": 16, "num_channels": 3, "num_frames": 16, "tubelet_size": 2, "hidden_size": 768,
  "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "hidden_act": "gelu",
  "layer_norm_eps": 1e-12, "use_mean_pooling": True,
}  # fmt: skip
_IGNORED = (r"decoder\..*", r"encoder_to_decoder\..*", r"mask_token", r"classifier\..*")  # of pretraining, of classes
_LAYER = "encoder.layer.{i}"
_ATTENTION = f"{_LAYER}.attention.attention"
_POOL_EPSILON = 1e-5  # of the norm of the mean, whatever the config says of the others


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The video tower of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoder does not compute, and as `naming.to_ours`.
  """
  file, prefix = folder / "config.json", "videomae."
  config = {**_DEFAULTS, **config}
  arrays = {
    re.sub(r"\.attention\.(query|value)\.bias$", lambda match: f".attention.{match[1][0]}_bias", name): array
    for name, array in ((name.removeprefix(prefix), array) for name, array in arrays.items())
  }
  tower = _tower(config, file, any(name.startswith("fc_norm.") for name in arrays))
  image = read_image_input(folder, videos=True)
  if image.size != (side := square(config["image_size"], f"{file}: image_size")):
    raise UserError(f"{file}: image_size is {side}, and {NAME} makes frames of {image.size} px")
  wanted = shapes({"video": tower}, {}, image, frames=config["num_frames"])
  found = to_ours(_rules(tower, prefix=""), arrays, wanted, str(folder), (*_IGNORED, *allow_unused))
  return Pretrained({"video": tower}, {}, found, image, frames=config["num_frames"], source=str(folder))


def plan(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json of the video tower; no array is looked at. Raises UserError for an option that it does not have."""
  tower, inside = only_tower(pretrained, "video")
  if tower["name"] != "tubelet_vit":
    raise UserError(
      f"{where}: {pretrained.key('towers/video')}.name is {tower['name']!r}, and of transformers' video encoders only "
      f"'tubelet_vit' (VideoMAE) is written without a text tower; {OTHERWISE}"
    )
  config = _config(tower, pretrained.image.size, pretrained.frames)
  needed = _tower(config, where, tower["norm_after_pool"])
  check_expressible(pretrained, "towers/video", needed, f"{where}: not transformers' videomae")
  check_named(_rules(tower, ""), inside, where)
  return config


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the video tower for `from_pretrained` of the class that its config names; heads stay behind.

  Raises UserError for an option that VideoMAE does not have.
  """
  config = plan(pretrained, str(out))
  tower, inside = only_tower(pretrained, "video")
  prefix = "videomae." if config["architectures"] != ["VideoMAEModel"] else ""
  arrays = to_theirs(_rules(tower, prefix), inside, str(out))
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  image = image_config(pretrained.image) | {"image_processor_type": "VideoMAEImageProcessor"}
  for name, content in {"config.json": config, NAME: image}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")


def _tower(config: Mapping[str, Any], file: object, of_mean: bool) -> dict[str, Any]:
  """Our encoder of a config. Raises UserError for a value that it does not compute."""
  require(config, file, num_channels=3, qv_bias=True)
  width = config["hidden_size"]
  return complete({
    "name": "tubelet_vit", "width": width, "depth": config["num_hidden_layers"],
    "heads": config["num_attention_heads"], "mlp_ratio": config["intermediate_size"] / width,
    "tubelet": (int(config["tubelet_size"]), square(config["patch_size"], f"{file}: patch_size")),
    "activation": activation(config, "hidden_act", file), "norm_epsilon": config["layer_norm_eps"],
    "last_norm": of_mean or not config["use_mean_pooling"], "norm_after_pool": of_mean,
    "pool_epsilon": _POOL_EPSILON if of_mean else None,
  })  # fmt: skip


def _config(tower: Mapping[str, Any], size: int, frames: int) -> dict[str, Any]:
  """The inverse, as near as they come."""
  mean = tower["norm_after_pool"] or not tower["last_norm"]
  config = {
    "model_type": "videomae", "architectures": ["VideoMAEModel"], "image_size": size, "num_channels": 3,
    "patch_size": tower["tubelet"][1], "tubelet_size": tower["tubelet"][0], "num_frames": frames,
    "hidden_size": tower["width"], "num_hidden_layers": tower["depth"], "num_attention_heads": tower["heads"],
    "intermediate_size": round(tower["width"] * tower["mlp_ratio"]), "qv_bias": True,
    "hidden_act": their_activation(tower["activation"]), "layer_norm_eps": tower["norm_epsilon"],
    "use_mean_pooling": mean,
  }  # fmt: skip
  if tower["norm_after_pool"] and tower["last_norm"]:  # its logits are our vector: no classes, no classifier
    config |= {"architectures": ["VideoMAEForVideoClassification"], "id2label": {}, "label2id": {}}
  return config


def _rules(tower: Mapping[str, Any], prefix: str) -> list[Rule]:
  frames, side = tower["tubelet"]
  boxes = unstacked(
    lambda a: a.transpose(2, 3, 4, 1, 0).reshape(-1, a.shape[0]),
    lambda a: a.reshape(frames, side, side, -1, a.shape[-1]).transpose(4, 3, 0, 1, 2),
  )  # [O, C, t, h, w] <-> [t h w C, O]
  inside = [
    Rule("embeddings.patch_embeddings.projection.weight", "patch_embed/kernel", boxes),
    Rule("embeddings.patch_embeddings.projection.bias", "patch_embed/bias"),
    Rule(tuple(f"{_ATTENTION}.{x}.weight" for x in ("query", "key", "value")), "blocks_{i}/attn/qkv/kernel",
         STACKED_LINEAR),
    Rule((f"{_ATTENTION}.q_bias", f"{_ATTENTION}.v_bias"), "blocks_{i}/attn/qkv/bias", WITHOUT_KEYS),
    *linear(f"{_LAYER}.attention.output.dense", "blocks_{i}/attn/proj"),
    *norm(f"{_LAYER}.layernorm_before", "blocks_{i}/norm1"), *norm(f"{_LAYER}.layernorm_after", "blocks_{i}/norm2"),
    *linear(f"{_LAYER}.intermediate.dense", "blocks_{i}/mlp/fc1"),
    *linear(f"{_LAYER}.output.dense", "blocks_{i}/mlp/fc2"), *norm("layernorm", "norm"),
  ]  # fmt: skip
  return [*under(inside, prefix, "towers/video"), *under(norm("fc_norm", "fc_norm"), "", "towers/video")]
