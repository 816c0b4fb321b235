"""Detectron2's ResNet backbones, to fine-tune a detector such as Mask R-CNN from ours. Written only.

A folder of NAME.pkl, the table that `DetectionCheckpointer` matches with a model's parameters by the ends of their
names, and backbone.yaml, the keys of its config that go with them:

    cfg.merge_from_file(model_zoo.get_config_file("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"))
    cfg.merge_from_file("backbone.yaml")
    cfg.MODEL.WEIGHTS = "resnet50.pkl"

Its backbones take pixels of 0 to 255, and order the colours as INPUT.FORMAT says: ours are RGB. The stride is on the
3x3 convolution, as in torchvision. Its default norm, FrozenBN, has our epsilon, 1e-5, and keeps our running
statistics; for BN or SyncBN, torch's momentum 0.1 is our bn_momentum=0.9.
"""

from __future__ import annotations

import io
import pathlib
import pickle
from typing import Any

import numpy as np

from mmcontrast.errors import choose
from mmcontrast.interop.naming import check_named, to_theirs, under
from mmcontrast.interop.pretrained import Pretrained, check_expressible, image_tower
from mmcontrast.interop.resnet import DETECTRON2, NAMES


def plan(pretrained: Pretrained, where: str) -> str:
  """detectron2's name of the image tower; no array is looked at. Raises UserError for what it does not have."""
  tower, arrays = image_tower(pretrained, where)
  name = choose(tower["name"], NAMES, f"{where}: {pretrained.key('towers/image')}.name")
  check_expressible(pretrained, "towers/image", {"name": name}, f"{where}: not detectron2's {name}")
  check_named(under(DETECTRON2, "", "towers/image"), arrays, where)
  return name


def write(pretrained: Pretrained, out: pathlib.Path) -> None:
  """Writes the image tower; its heads and other towers stay behind. Raises UserError for what is no such ResNet."""
  name, (tower, arrays) = plan(pretrained, str(out)), image_tower(pretrained, str(out))
  theirs, image = to_theirs(under(DETECTRON2, "", "towers/image"), arrays, str(out)), pretrained.image
  config = f"""MODEL:
  PIXEL_MEAN: {[round(255 * value, 6) for value in image.mean]}
  PIXEL_STD: {[round(255 * value, 6) for value in image.std]}
  RESNETS:
    DEPTH: {name.removeprefix("resnet")}
    STRIDE_IN_1X1: False
    RES2_OUT_CHANNELS: {256 if tower["bottleneck"] else 64}
INPUT:
  FORMAT: "RGB"
"""
  table = {"model": theirs, "__author__": "mmcontrast", "matching_heuristics": True}
  out.mkdir(parents=True, exist_ok=True)
  (out / f"{name}.pkl").write_bytes(pickled(table))
  (out / "backbone.yaml").write_text(config)


def pickled(table: dict[str, Any]) -> bytes:
  """`table` as a pickle that every version of numpy reads: numpy's own names a module that older ones lack."""
  buffer = io.BytesIO()
  _Pickler(buffer, protocol=5).dump(table)
  return buffer.getvalue()


class _Pickler(pickle.Pickler):
  def reducer_override(self, value: Any) -> Any:
    if isinstance(value, np.ndarray):
      return np.ndarray, (value.shape, value.dtype.str, bytearray(value))
    return NotImplemented
