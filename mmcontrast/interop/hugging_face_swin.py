"""Hugging Face's SwinModel, alone or with its classifier, which is left out; and the arrays that it has in common with
the audio tower of ClapModel (hugging_face_clap.py).

What our tower pools is the mean of the cells of the last map, after the last norm: their `pooler_output`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from mmcontrast.interop.hugging_face_config import activation, require, their_activation
from mmcontrast.interop.hugging_face_image import NAME, image_config, read_image_input
from mmcontrast.interop.naming import (
  CONV,
  LINEAR,
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
from mmcontrast.interop.pretrained import Pretrained, check_expressible, complete, image_tower, shapes
from mmcontrast.interop.square import square
from mmcontrast.interop.weights import write_weights

EPSILON = 1e-5  # of all norms; theirs has it fixed in some of them
_DEFAULTS = {
  "image_size": 224, "patch_size": 4, "num_channels": 3, "embed_dim": 96, "depths": (2, 2, 6, 2),
  "num_heads": (3, 6, 12, 24), "window_size": 7, "mlp_ratio": 4.0, "qkv_bias": True, "hidden_act": "gelu",
}  # fmt: skip
# Of a classifier, of pretraining, and which distance each pair of cells has, in older files.
_IGNORED = (r"classifier\..*", r"decoder\..*", r"embeddings\.mask_token", r".*\.relative_position_index")
_BLOCK, _QKV = "layers.{i}.blocks.{j}", ("query", "key", "value")
_SELF, _OURS = f"{_BLOCK}.attention.self", "stages_{i}/blocks_{j}"
STAGES = [
  Rule(tuple(f"{_SELF}.{x}.weight" for x in _QKV), f"{_OURS}/attn/qkv/kernel", STACKED_LINEAR),
  Rule(tuple(f"{_SELF}.{x}.bias" for x in _QKV), f"{_OURS}/attn/qkv/bias", STACKED),
  Rule(f"{_SELF}.relative_position_bias_table", f"{_OURS}/position_bias"),
  *linear(f"{_BLOCK}.attention.output.dense", f"{_OURS}/attn/proj"),
  *norm(f"{_BLOCK}.layernorm_before", f"{_OURS}/norm1"), *norm(f"{_BLOCK}.layernorm_after", f"{_OURS}/norm2"),
  *linear(f"{_BLOCK}.intermediate.dense", f"{_OURS}/mlp/fc1"), *linear(f"{_BLOCK}.output.dense", f"{_OURS}/mlp/fc2"),
  Rule("layers.{i}.downsample.reduction.weight", "stages_{i}/merge/reduction/kernel", LINEAR),
  *norm("layers.{i}.downsample.norm", "stages_{i}/merge/norm"),
]  # fmt: skip
_RULES = under([
  Rule("embeddings.patch_embeddings.projection.weight", "patch_embed/kernel", CONV),
  Rule("embeddings.patch_embeddings.projection.bias", "patch_embed/bias"), *norm("embeddings.norm", "patch_norm"),
  *under(STAGES, "encoder.", ""), *norm("layernorm", "norm"),
], "", "towers/image")  # fmt: skip


def read(
  folder: pathlib.Path, config: Mapping[str, Any], arrays: Arrays, allow_unused: Sequence[str] = ()
) -> Pretrained:
  """The image tower of a folder whose `config` and `arrays` have been read.

  Raises UserError for a field of the config that our encoder does not compute, and as `naming.to_ours`.
  """
  tower, image = _tower({**_DEFAULTS, **config}, folder / "config.json"), read_image_input(folder)
  arrays = {name.removeprefix("swin."): array for name, array in arrays.items()}  # of a model with a classifier
  found = to_ours(_RULES, arrays, shapes({"image": tower}, {}, image), str(folder), (*_IGNORED, *allow_unused))
  return Pretrained({"image": tower}, {}, found, image, source=str(folder))


def plan(pretrained: Pretrained, where: str) -> dict[str, Any]:
  """The config.json of the image tower; no array is looked at.

  Raises UserError for an option that SwinModel has not.
  """
  tower, inside = image_tower(pretrained, where)
  config = {
    "model_type": "swin", "architectures": ["SwinModel"], **stage_fields(tower), "embed_dim": tower["width"],
    "num_heads": list(tower["heads"]), "image_size": pretrained.image.size, "num_channels": 3,
    "use_absolute_embeddings": False,
  }  # fmt: skip
  check_expressible(pretrained, "towers/image", _tower(config, where), f"{where}: not transformers' swin")
  check_named(_RULES, inside, where)
  return config


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the image tower for `AutoModel.from_pretrained(OUT)`; heads stay behind. Raises UserError as `plan`."""
  config = plan(pretrained, str(out))
  arrays = to_theirs(_RULES, image_tower(pretrained, str(out))[1], str(out))
  out.mkdir(parents=True, exist_ok=True)
  write_weights(out / "model.safetensors", arrays)
  for name, content in {"config.json": config, NAME: image_config(pretrained.image)}.items():
    (out / name).write_text(json.dumps(content, indent=2) + "\n")


def stages_of(config: Mapping[str, Any], where: object) -> dict[str, Any]:
  """The options of our encoder in which images and sounds are alike. Raises UserError for a value that is not
  computed."""
  require(config, where, layer_norm_eps=EPSILON)
  return {
    "name": "swin", "stages": tuple(config["depths"]), "patch": square(config["patch_size"], f"{where}: patch_size"),
    "window": config["window_size"], "mlp_ratio": config["mlp_ratio"], "qkv_bias": config["qkv_bias"],
    "activation": activation(config, "hidden_act", where), "norm_epsilon": EPSILON,
  }  # fmt: skip


def stage_fields(tower: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `stages_of`."""
  return {
    "depths": list(tower["stages"]), "patch_size": tower["patch"], "window_size": tower["window"],
    "mlp_ratio": tower["mlp_ratio"], "qkv_bias": tower["qkv_bias"],
    "hidden_act": their_activation(tower["activation"]), "layer_norm_eps": EPSILON,
  }  # fmt: skip


def _tower(config: Mapping[str, Any], where: object) -> dict[str, Any]:
  require(config, where, num_channels=3, use_absolute_embeddings=False)
  return complete({**stages_of(config, where), "width": config["embed_dim"], "heads": tuple(config["num_heads"])})
