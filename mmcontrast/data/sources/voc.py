"""Pascal VOC: the images of a year and which classes they show: `voc:FOLDER`, the folder with ImageSets and JPEGImages.

    ImageSets/Main/cat_trainval.txt     a line an image: its name, and 1 (shows it), -1 (does not) or 0 (difficult)
    JPEGImages/000005.jpg

Splits are those that ImageSets/Main has: train, val, trainval, test. The classes are tags: those that an image shows;
`targets` tells the difficult ones from those that are not there.

Source: Everingham et al. 2010, the development kit of VOC 2007.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping

import numpy as np

from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources import files
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.errors import MissingData, UserError, choose
from mmcontrast.registry import check_options

_SPLITS = {"validation": "val"}
_MAIN = "ImageSets/Main"


class VocSource:
  """Records of a split, in the order of its images.

  Attributes:
    targets: int8 [N, K] of N images and K classes, in the order of `info.tag_names`: 1 shown, 0 not, -1 difficult.

  Raises UserError: no such folder or split, a line that is none, files of classes that do not name the same images.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    where = f"voc:{path}"
    check_options(options, (), f"{where}: data.source")
    self._folder = path.rstrip("/")
    names = files.names_in(posixpath.join(self._folder, _MAIN))
    of_classes = [name.removesuffix(".txt").rpartition("_") for name in names if name.endswith(".txt") and "_" in name]
    if not of_classes:
      raise MissingData(
        f"{where}: no {_MAIN} with files such as cat_trainval.txt; give the folder VOC2007 of VOCdevkit"
      )
    split = _SPLITS.get(split, split)
    splits = sorted({found for _, _, found in of_classes})
    choose(split, splits, f"{where}: data.split")
    classes = tuple(sorted(name for name, _, found in of_classes if found == split))
    columns = [_column(self._folder, name, split, where) for name in classes]
    self._names = list(columns[0])
    for name, column in zip(classes, columns):
      if list(column) != self._names:
        raise UserError(f"{where}: {_MAIN}/{name}_{split}.txt names other images than {classes[0]}_{split}.txt")
    self.targets = np.array([[_TARGET[column[image]] for column in columns] for image in self._names], np.int8)
    self.info = Info(name=where, styles=("image",), tag_names=classes, label_names={}, caption_fields=(), row_ids=True)

  def __len__(self) -> int:
    return len(self._names)

  def __getitem__(self, index: int) -> Record:
    path = self._path(index)
    try:
      image = files.read(path)
    except FileNotFoundError:
      raise BadRecord(f"{self._names[index]}: no such file, {path}") from None
    return Record(
      images={"image": image},
      captions={},
      names={},
      tags=(self.targets[index] == 1).astype(np.uint8),
      labels={},
      id=index,
      name=self._names[index],
      mirror_safe=True,
      paths={"image": path},
    )

  def key(self, index: int) -> str:
    """See keys.key_of."""
    return digest_of([self._names[index], self.targets[index].tolist(), key_of_file(self._path(index))])

  def _path(self, index: int) -> str:
    return posixpath.join(self._folder, "JPEGImages", f"{self._names[index]}.jpg")


_TARGET = {"1": 1, "-1": 0, "0": -1}  # as written -> 1 shown, 0 not, -1 difficult


def _column(folder: str, name: str, split: str, where: str) -> dict[str, str]:
  """Image -> what the file of a class says."""
  file = f"{_MAIN}/{name}_{split}.txt"
  out = {}
  for number, line in enumerate(files.read(posixpath.join(folder, file)).decode().splitlines(), 1):
    words = line.split()
    if len(words) != 2 or words[1] not in _TARGET:
      raise UserError(f"{where}: {file}:{number}: {line.strip()[:60]!r}; expected an image and 1, -1 or 0")
    out[words[0]] = words[1]
  if not out:
    raise UserError(f"{where}: {file} is empty")
  return out
