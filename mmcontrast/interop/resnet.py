"""Names of the ResNet's arrays at torchvision, timm and detectron2, and what their architectures are here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError, choose
from mmcontrast.interop.naming import CONV, Rule
from mmcontrast.interop.pretrained import ImageInput, complete
from mmcontrast.interop.timm import Encoder, expect, take

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# torchvision's IMAGENET1K_V1 and timm's: the shorter side to 256 px, the middle 224.
INPUT = ImageInput(224, IMAGENET_MEAN, IMAGENET_STD, "shortest", "bilinear", 0.875)
CLASSIFIER = (r"fc\.(weight|bias)", r".*\.num_batches_tracked")  # the latter counts steps, and nothing reads it
NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")  # the same in all packages
STEM, CHANNELS = 64, (64, 128, 256, 512)  # after the first convolution, and of the stages


def convolution(theirs: str, ours: str) -> list[Rule]:
  """The rule of a convolution without bias."""
  return [Rule(f"{theirs}.weight", f"{ours}/kernel", CONV)]


def batch_norm(theirs: str, ours: str) -> list[Rule]:
  """The rules of a batch norm."""
  return [
    Rule(f"{theirs}.weight", f"{ours}/scale"),
    Rule(f"{theirs}.bias", f"{ours}/bias"),
    Rule(f"{theirs}.running_mean", f"batch_stats/{ours}/mean"),
    Rule(f"{theirs}.running_var", f"batch_stats/{ours}/var"),
  ]


BLOCKS = [
  *convolution("layer{i}.{j}.conv{k}", "layer{i}_{j}/conv{k}"),
  *batch_norm("layer{i}.{j}.bn{k}", "layer{i}_{j}/bn{k}"),
  *convolution("layer{i}.{j}.downsample.0", "layer{i}_{j}/downsample_0"),
  *batch_norm("layer{i}.{j}.downsample.1", "layer{i}_{j}/downsample_1"),
]
TORCHVISION = [*convolution("conv1", "conv1"), *batch_norm("bn1", "bn1"), *BLOCKS]  # timm's too
DETECTRON2 = [*convolution("stem.conv1", "conv1"), *batch_norm("stem.conv1.norm", "bn1")]
for _i in range(1, 5):  # its stages are counted from the stem
  _theirs, _ours = f"res{_i + 1}.{{j}}", f"layer{_i}_{{j}}"
  DETECTRON2 += [
    *convolution(f"{_theirs}.conv{{k}}", f"{_ours}/conv{{k}}"),
    *batch_norm(f"{_theirs}.conv{{k}}.norm", f"{_ours}/bn{{k}}"),
    *convolution(f"{_theirs}.shortcut", f"{_ours}/downsample_0"),
    *batch_norm(f"{_theirs}.shortcut.norm", f"{_ours}/downsample_1"),
  ]


def from_timm(architecture: str, args: Mapping[str, Any], where: str) -> Encoder:
  """timm's resnet18 to resnet152; see `timm.FAMILIES`."""
  choose(architecture, NAMES, f"{where}: architecture")
  fixed = {"global_pool": "avg", "in_chans": 3, "output_stride": 32, "act_layer": "relu", "norm_layer": "batchnorm2d"}
  known = {"layers": complete({"name": architecture})["stages"], "channels": CHANNELS, "num_classes": 1000, **fixed}
  args = take(dict(args), known, where)
  expect(args, fixed, where)
  channels = list(args["channels"])
  if len(args["layers"]) != 4 or channels != [channels[0] * 2**i for i in range(4)]:
    raise UserError(
      f"{where}: layers={list(args['layers'])}, channels={channels} are not four stages, each of twice the channels"
    )
  width = channels[0]
  options = {
    "name": architecture,
    "stages": tuple(args["layers"]),
    "width": width,
    "stem_width": None if width == STEM else STEM,
  }
  return Encoder(complete(options), TORCHVISION, CLASSIFIER, INPUT)


def to_timm(tower: Mapping[str, Any], size: int, where: str) -> tuple[str, dict[str, Any], list[Rule]]:
  """See `timm.FAMILIES`."""
  del size, where  # timm takes any size; what else it does not have, `timm.architecture` finds
  name, args = tower["name"], {}
  if tuple(tower["stages"]) != complete({"name": name})["stages"]:
    args["layers"] = list(tower["stages"])
  if tower["width"] != CHANNELS[0]:
    args["channels"] = [tower["width"] * 2**i for i in range(4)]
  return name, args, TORCHVISION
