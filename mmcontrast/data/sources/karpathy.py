"""Karpathy's splits of COCO, Flickr30k and Flickr8k: dataset_coco.json, dataset_flickr30k.json, dataset_flickr8k.json.

`data.dataset` is "karpathy:PATH", PATH the file or the folder that has it; images are beside the file, or where
`data.source.images` says. Splits are train, val (or validation), test and, of COCO, restval: what is usually trained on
is train and restval together (`data.split="train+restval"`). An id is COCO's of the image, else the file's; captions
come in the order of the file.

Source: Karpathy and Fei-Fei, arXiv:1412.2306; the files as published with it.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources import files
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.errors import MissingData, UserError, choose
from mmcontrast.registry import check_options

DEFAULTS = {
  "images": "",  # folder of the images, relative to the file; "" is that of the file
  "captions": 0,  # at most so many of an image, the first ones: 5 is usual for tests; 0: all
}
_NAMES = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json", "dataset.json")
_SPLITS = {"validation": "val"}


class KarpathySource:
  """Records of a split, in the order of the file.

  Attributes:
    file: the path of Karpathy's file; is_coco: whether it is COCO's.
    caption_ids: of each record, the ids of its captions ("sentids": COCO's own ids of annotations).

  Raises:
    UserError: no such file or split, not the format, an image without a file name.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    where = f"karpathy:{path}"
    check_options(options, DEFAULTS, f"{where}: data.source")
    options = {**DEFAULTS, **options}
    if not isinstance(options["captions"], int) or options["captions"] < 0:
      raise UserError(f"{where}: data.source.captions: {options['captions']!r}; give how many of an image, 0 for all")
    file = _file(path, where)
    rows = _read(file, where)
    splits = sorted({row["split"] for row in rows})
    wanted = splits if split == "all" else [_SPLITS.get(one, one) for one in split.split("+")]
    for one in wanted:
      choose(one, splits, f"{where}: data.split")
    self.file = file
    self.is_coco = any("cocoid" in row for row in rows)
    self._folder = posixpath.join(posixpath.dirname(file), options["images"])
    self._rows = [row for row in rows if row["split"] in wanted]
    most = options["captions"] or None
    self._texts = [[one["raw"] for one in row["sentences"][:most]] for row in self._rows]
    self.caption_ids = [[one.get("sentid", -1) for one in row["sentences"][:most]] for row in self._rows]
    self.info = Info(name=where, styles=("image",), tag_names=(), label_names={})

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    path = self._path(row)
    try:
      image = files.read(path)
    except FileNotFoundError:
      raise BadRecord(f"{row['filename']}: no such file, {path}") from None
    return Record(
      images={"image": image},
      captions={"caption": self.captions(index)},
      names={},
      tags=np.zeros(0, np.uint8),
      labels={},
      id=self.identity(index),
      name=row["filename"],
      mirror_safe=True,
      paths={"image": path},
    )

  def captions(self, index: int) -> list[str]:
    """Those of a record, of which no image is read."""
    return list(self._texts[index])

  def identity(self, index: int) -> int:
    """COCO's id of an image, else the file's own."""
    row = self._rows[index]
    return int(row.get("cocoid", row.get("imgid", index)))

  def key(self, index: int) -> str:
    """See keys.key_of."""
    return digest_of([self._rows[index], key_of_file(self._path(self._rows[index]))])

  def _path(self, row: Mapping[str, Any]) -> str:
    return posixpath.join(self._folder, row.get("filepath", ""), row["filename"])


def _file(path: str, where: str) -> str:
  if path.endswith(".json"):
    return path
  names = files.names_in(path)
  found = [name for name in _NAMES if name in names]
  if not found:
    raise MissingData(f"{where}: no {_NAMES[0]} or {_NAMES[1]} there; give the folder that has Karpathy's file")
  if len(found) > 1:
    raise UserError(f"{where}: has {' and '.join(found)}; name one: karpathy:{posixpath.join(path, found[0])}")
  return posixpath.join(path, found[0])


def _read(file: str, where: str) -> list[dict[str, Any]]:
  try:
    table = json.loads(files.read(file))
  except FileNotFoundError:
    raise MissingData(f"{where}: no file {file}") from None
  except ValueError as error:
    raise UserError(f"{where}: {file} is not JSON ({error})") from None
  rows = table.get("images") if isinstance(table, dict) else None
  if not isinstance(rows, list) or not rows:
    raise UserError(f"{where}: {file} has no list 'images'; expected Karpathy's format")
  for number, row in enumerate(rows):
    if not isinstance(row, dict) or not {"split", "filename", "sentences"} <= row.keys():
      raise UserError(f"{where}: {file}: image {number} lacks 'split', 'filename' or 'sentences'")
    if not all(isinstance(one, dict) and isinstance(one.get("raw"), str) for one in row["sentences"]):
      raise UserError(f"{where}: {file}: image {number}: a sentence without a text 'raw'")
  return rows
