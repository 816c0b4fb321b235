"""COCO-format data: a folder of images, captions_*.json, instances_*.json.

Captions of an image are its texts; the set of its instances' categories are its tags
(an image without instances has none). `data.dataset` is "coco:ROOT" (default: `coco` in the
data folder); options are templates of `{split}`, in COCO's own names: train, val, test.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from mmcontrast.data import build
from mmcontrast.data.sources.record import Info, Record
from mmcontrast.errors import MissingData, UserError, nearest

DEFAULTS = {
  "images": "{split}2017",
  "captions": "annotations/captions_{split}2017.json",
  "instances": "annotations/instances_{split}2017.json",
}


class CocoSource:
  """Records of a COCO-format split, in the order of the image ids.

  Raises:
    UserError: unknown option, missing or malformed file, an annotation of an unknown image.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    if unknown := set(options) - set(DEFAULTS):
      key = min(unknown)
      raise UserError(f"data.source: unknown key {key!r}; {nearest(key, DEFAULTS)}")
    options = {**DEFAULTS, **options}
    data_dir = pathlib.Path(data_dir or build.default_data_dir())
    root = pathlib.Path(path or data_dir / "coco")
    split = {"validation": "val"}.get(split, split)
    paths = {key: root / options[key].format(split=split) for key in DEFAULTS}
    self._folder = paths["images"]
    if not self._folder.is_dir():
      raise MissingData(
        f"data.source.images: no folder {self._folder}; set data.dataset to coco:ROOT, ROOT being the "
        "folder that holds COCO's images and annotations"
      )
    captions = _read(paths["captions"], "captions")
    instances = _read(paths["instances"], "instances")
    images = sorted(captions["images"], key=lambda image: image["id"])
    self._files = [(image["id"], image["file_name"]) for image in images]
    self._captions = _by_image(captions, "caption", paths["captions"])
    self._categories = _by_image(instances, "category_id", paths["instances"])
    categories = sorted(instances["categories"], key=lambda category: category["id"])
    self._column = {category["id"]: column for column, category in enumerate(categories)}
    self.info = Info(
      name="coco", styles=("image",), tag_names=tuple(c["name"] for c in categories), label_names={}
    )

  def __len__(self) -> int:
    return len(self._files)

  def __getitem__(self, index: int) -> Record:
    identity, file = self._files[index]
    tags = np.zeros(len(self._column), np.uint8)
    tags[[self._column[category] for category in set(self._categories[identity])]] = 1
    return Record(
      images={"image": (self._folder / file).read_bytes()},
      captions={"caption": self._captions[identity]},
      names={},
      tags=tags,
      labels={},
      id=identity,
      name=file,
      mirror_safe=True,
    )


def _read(path: pathlib.Path, key: str) -> dict:
  if not path.is_file():
    raise MissingData(f"data.source.{key}: no file {path}; set data.dataset to coco:ROOT, or data.source.{key}")
  try:
    table = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as error:
    raise UserError(f"data.source.{key}: {path} is not JSON ({error})") from None
  needed = {"images", "annotations"} | ({"categories"} if key == "instances" else set())
  if not isinstance(table, dict) or (missing := needed - table.keys()):
    what = f"has no {min(missing)!r}" if isinstance(table, dict) else "is not a table"
    raise UserError(f"data.source.{key}: {path} {what}; expected COCO's format")
  return table


def _by_image(table: dict, field: str, path: pathlib.Path) -> dict[int, list]:
  known = {image["id"] for image in table["images"]}
  found = collections.defaultdict(list)
  for annotation in table["annotations"]:
    if annotation["image_id"] not in known:
      raise UserError(f"{path}: annotation {annotation.get('id')} is of image "
                      f"{annotation['image_id']}, which is not in 'images'")  # fmt: skip
    found[annotation["image_id"]].append(annotation[field])
  return {identity: found[identity] for identity in known}
