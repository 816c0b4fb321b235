"""CLIP's ResNets at open_clip: what `vision_cfg` says of them, and the names of their arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.interop.naming import Rule, linear, under
from mmcontrast.interop.resnet import BLOCKS, batch_norm, convolution

_TOWER = [
  *convolution("conv{k}", "conv{k}"),
  *batch_norm("bn{k}", "bn{k}"),
  *BLOCKS,
  Rule("attnpool.positional_embedding", "attnpool/positional_embedding"),
  *(rule for x in "qkv" for rule in linear(f"attnpool.{x}_proj", f"attnpool/{x}_proj")),
]
# Of the names after "visual.": the tower's, and the head's, which ends their attention pool.
RULES = [*under(_TOWER, "", "towers/image"), *linear("attnpool.c_proj", "heads/image_joint/fc1")]


def tower(fields: Mapping[str, Any]) -> dict[str, Any]:
  """The tower of a `vision_cfg` whose `layers` are a list, every field given. QuickGELU does not change it."""
  return {
    "name": "clip_resnet50",
    "stages": tuple(fields["layers"]),
    "width": fields["width"],
    "head_width": fields["head_width"],
  }


def head(dim: int) -> dict[str, Any]:
  """The head of the joint space of `dim` numbers."""
  return {"name": "linear", "dim": dim, "bias": True}


def vision_cfg(options: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `tower`, for complete options."""
  return {
    "layers": list(options["stages"]),
    "width": options["width"],
    "head_width": options["head_width"],
    "patch_size": None,
  }
