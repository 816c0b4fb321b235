"""Names of ConvNeXt's arrays at timm, and what its architectures are here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.naming import CONV, Rule, linear, norm
from mmcontrast.interop.pretrained import ImageInput, complete
from mmcontrast.interop.resnet import IMAGENET_MEAN, IMAGENET_STD
from mmcontrast.interop.timm import Encoder, expect, take

INPUT = ImageInput(224, IMAGENET_MEAN, IMAGENET_STD, "shortest", "bicubic", 0.875)
CLASSIFIER = (r"head\.fc\.(weight|bias)",)
NAMES = ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")  # the same at timm
# What timm's constructor takes besides depths and dims, and the one value that is computed here.
FIXED = {
  "global_pool": "avg",
  "in_chans": 3,
  "output_stride": 32,
  "kernel_sizes": 7,
  "stem_type": "patch",
  "patch_size": 4,
  "head_norm_first": False,
  "head_hidden_size": None,
  "conv_mlp": False,
  "conv_bias": True,
  "use_grn": False,
  "norm_layer": None,
}


def convolution(theirs: str, ours: str) -> list[Rule]:
  """The rules of a convolution with bias."""
  return [Rule(f"{theirs}.weight", f"{ours}/kernel", CONV), Rule(f"{theirs}.bias", f"{ours}/bias")]


_THEIRS, _OURS = "stages.{i}.blocks.{j}", "stages_{i}/blocks_{j}"
TIMM = [
  *convolution("stem.0", "stem_0"),
  *norm("stem.1", "stem_1"),
  *norm("stages.{i}.downsample.0", "stages_{i}/downsample_0"),
  *convolution("stages.{i}.downsample.1", "stages_{i}/downsample_1"),
  *convolution(f"{_THEIRS}.conv_dw", f"{_OURS}/conv_dw"),  # [C, 1, 7, 7] <-> [7, 7, 1, C]
  *norm(f"{_THEIRS}.norm", f"{_OURS}/norm"),
  *linear(f"{_THEIRS}.mlp.fc1", f"{_OURS}/mlp/fc1"),
  *linear(f"{_THEIRS}.mlp.fc2", f"{_OURS}/mlp/fc2"),
  Rule(f"{_THEIRS}.gamma", f"{_OURS}/gamma"),
  *norm("head.norm", "head/norm"),
]


def from_timm(architecture: str, args: Mapping[str, Any], where: str) -> Encoder:
  """timm's convnext_tiny to convnext_large; see `timm.FAMILIES`."""
  choose(architecture, NAMES, f"{where}: architecture")
  default = complete({"name": architecture})
  known = {
    "depths": default["stages"],
    "dims": [default["width"] * 2**i for i in range(4)],
    "num_classes": 1000,
    "act_layer": "gelu",
    "norm_eps": 1e-6,
    "ls_init_value": 1e-6,
    **FIXED,
  }
  args = take(dict(args), known, where)
  expect(args, FIXED, where)
  choose(args["act_layer"], ("gelu", "gelu_tanh"), f"{where}: act_layer")
  dims = list(args["dims"])
  if len(args["depths"]) != 4 or dims != [dims[0] * 2**i for i in range(4)]:
    raise UserError(
      f"{where}: depths={list(args['depths'])}, dims={dims} are not four stages, each of twice the channels"
    )
  options = {
    "name": architecture,
    "stages": tuple(args["depths"]),
    "width": dims[0],
    "activation": args["act_layer"],
    "norm_epsilon": args["norm_eps"],
    "layer_scale": args["ls_init_value"],
  }
  return Encoder(complete(options), TIMM, CLASSIFIER, INPUT)


def to_timm(tower: Mapping[str, Any], size: int, where: str) -> tuple[str, dict[str, Any], list[Rule]]:
  """See `timm.FAMILIES`."""
  del size, where  # timm takes any size; what else it does not have, `timm.architecture` finds
  default = complete({"name": tower["name"]})
  said = {
    "depths": (tuple(tower["stages"]), default["stages"]),
    "dims": tuple([one["width"] * 2**i for i in range(4)] for one in (tower, default)),
    "act_layer": (tower["activation"], "gelu"),
    "norm_eps": (tower["norm_epsilon"], 1e-6),
    "ls_init_value": (tower["layer_scale"], 1e-6),
  }
  return tower["name"], {key: value for key, (value, usual) in said.items() if value != usual}, TIMM
