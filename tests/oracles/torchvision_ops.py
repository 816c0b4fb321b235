"""Lets torchvision, and what imports it, be imported beside a CPU build of torch.

The wheel of torchvision on PyPI is built against CUDA's torch: its C extension does not load beside the CPU build,
and then its import fails at two operators that nobody here calls. Import this module before torchvision, timm,
open_clip or transformers.
"""

import sys

import torch

try:
  import torchvision  # noqa: F401
except RuntimeError:  # operator torchvision::nms does not exist
  for _name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
    del sys.modules[_name]
  _LIBRARY = torch.library.Library("torchvision", "DEF")  # the operators live as long as this does
  for _operator in ("nms", "qnms"):
    _LIBRARY.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
