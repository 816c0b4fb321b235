"""Layer-wise learning rates: the further a layer is from the output, the slower it learns.

    optimizer = dict(layer_decay=0.75)                     # of every tower
    optimizer = dict(layer_decay=dict(image=0.75))         # of one

The rate of a parameter is multiplied by decay^(n + 1 - layer), as BEiT fine-tunes (Bao et al.,
arXiv:2106.08254). Layer 0 is what comes before the blocks (patches, tokens, positions, stem), layers
1 to n are the blocks of a transformer or the stages of a ResNet or ConvNeXt; what comes after them,
the last norm and pooling, has the full rate, as have heads and terms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.errors import UserError, choose

_BLOCK = re.compile(r"blocks_(\d+)|stages_(\d+)(?:_.*)?|layer(\d+)_\d+")
"""The first part of a path within a tower: timm's and torchvision's names; those of a ResNet count from 1."""
_SCANNED = "blocks"
"""One array for all blocks, the leading axis being theirs."""
_AFTER = re.compile("norm|fc_norm|attn_pool|attnpool|pooler|head|mit")


def layer_multipliers(
  decay: float | Mapping[str, float], shapes: Mapping[str, Sequence[int]]
) -> dict[str, float | np.ndarray]:
  """What to multiply the learning rate of each parameter of a tower by.

  Args:
    decay: `optimizer.layer_decay`: above 0, at most 1; or that of some towers by name.
    shapes: of all parameters, by path: "towers/image/blocks_0/attn/qkv/kernel"; matrices of LoRA
      ("lora/towers/image/...", lora.py) have the layer of what they adapt.
  Returns:
    Path -> multiplier; for blocks that are scanned, one a block along the leading axis.
  Raises UserError for an unknown tower or a decay out of range.
  """
  towers = sorted({_parts(path)[1] for path in shapes if _parts(path)[0] == "towers"})
  rates = dict(decay.items()) if hasattr(decay, "items") else dict.fromkeys(towers, decay)
  for name, rate in rates.items():
    choose(name, towers, "optimizer.layer_decay")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
      raise UserError(
        f"optimizer.layer_decay: above 0 and at most 1, or a number for each of some towers such as "
        f"dict({name}=0.75), not {rate!r}"
      )
  found: dict[str, float | np.ndarray] = {}
  for name, rate in rates.items():
    own = {path: shape for path, shape in shapes.items() if _parts(path)[:2] == ["towers", name]}
    count = max((_blocks(path, shape) for path, shape in own.items()), default=0)
    for path, shape in own.items():
      if _AFTER.fullmatch(_first(path)):
        continue
      layer = np.arange(1, count + 1) if _first(path) == _SCANNED else _layer(path)
      multiplier = float(rate) ** (count + 1 - layer)
      found[path] = multiplier if isinstance(layer, int) else multiplier.reshape(-1, *[1] * (len(shape) - 1))
  return found


def stack_of(path: str) -> str | None:
  """The tower whose blocks are scanned, where an array is of all of them, its leading axis theirs; else None."""
  tower, name = (*_parts(path), "")[:2]
  return name if tower == "towers" and _first(path) == _SCANNED else None


def _parts(path: str) -> list[str]:
  return path.removeprefix("lora/").split("/")


def _first(path: str) -> str:
  """The first part of a path within a tower, or within the image tower of one of frames."""
  parts = [part for place, part in enumerate(_parts(path)) if place != 2 or part != "of"]
  return (*parts, "", "", "")[2]


def _layer(path: str) -> int:
  """0: before the blocks, 1: the first of them."""
  block = _BLOCK.fullmatch(_first(path))
  if block is None:
    return 0
  return int(block[3]) if block[3] else int(block[1] or block[2]) + 1


def _blocks(path: str, shape: Sequence[int]) -> int:
  """How many blocks there must be, for this parameter to exist."""
  return shape[0] if _first(path) == _SCANNED else _layer(path)
