"""The image tower of what a format's reader gave, run on images."""

import functools

import jax
import numpy as np

from mmcontrast.encoders import Encoded, build_encoder
from mmcontrast.interop.pretrained import Pretrained

_PREFIX = "params/towers/image/"


def encode(pretrained: Pretrained, images: np.ndarray) -> Encoded:
  """[B, H, W, 3] normalised -> pooled and tokens."""
  tree = {}
  for path, array in pretrained.arrays.items():
    *inner, last = path.removeprefix(_PREFIX).split("/")
    functools.reduce(lambda node, key: node.setdefault(key, {}), inner, tree)[last] = array
  tower = build_encoder(pretrained.towers["image"])
  return jax.jit(lambda v, x: tower.apply(v, x, train=False))({"params": tree}, images)


def check_same_arrays(found: Pretrained, expected: Pretrained) -> None:
  """Bit by bit."""
  assert found.arrays.keys() == expected.arrays.keys()
  for path, array in expected.arrays.items():
    assert found.arrays[path].tobytes() == array.tobytes() and found.arrays[path].shape == array.shape, path
