"""The schema of a batch: its arrays by name, their shapes without the batch axis and their dtypes.

"section/name" stands for batch["section"]["name"]. Beside the arrays of the views (`Modality.arrays`):

id           int32    examples with the same id show the same thing
index        int32    the place of the example in its source: what tables remember it by
seed         uint32   what its views and its dropout are drawn from
mirror_safe  bool     whether a mirrored view shows the same thing
valid        bool     whether it is an example, and no padding
weight       float32  what it counts as an anchor, of sources that say so
tags         uint8    [T], one for each tag that it has
labels/NAME  int32    its class; -1: none
present/NAME bool     whether it has that modality, with data.missing="mask"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from mmcontrast.data.settings import shown
from mmcontrast.modalities.views import Schema


def batch_schema(settings: Mapping, *, tags: int, labels: Iterable[str], weighted: bool) -> Schema:
  """The arrays of a batch of a dataset that has so many tags, those labels, and weights or not.

  Args:
    settings: resolved config.data.
  """
  modalities = shown(settings)
  arrays: Schema = {}
  for modality in modalities.values():
    arrays |= modality.arrays(settings)
  if tags:
    arrays["tags"] = ((tags,), np.uint8)
  of_examples = {"id": np.int32, "index": np.int32, "seed": np.uint32, "mirror_safe": np.bool_, "valid": np.bool_}
  of_examples |= {"weight": np.float32} if weighted else {}
  of_examples |= {f"labels/{name}": np.int32 for name in labels}
  of_examples |= {f"present/{name}": np.bool_ for name in modalities if settings["missing"] == "mask"}
  return arrays | {name: ((), dtype) for name, dtype in of_examples.items()}


def of_size(schema: Schema, size: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  """The same of a global batch of `size` examples: name -> (shape, dtype)."""
  return {name: ((size, *shape), np.dtype(dtype)) for name, (shape, dtype) in schema.items()}
