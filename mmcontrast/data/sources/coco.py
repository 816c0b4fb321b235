"""COCO-format data: a folder of images, captions_*.json, instances_*.json.

Captions of an image are its texts; the set of its instances' categories are its tags (an image without instances has
none). `data.dataset` is "coco:ROOT" (default: `coco` in the data folder); options are templates of `{split}`, in COCO's
own names: train, val, test. The rows that they make go through `Fields`, as those of tables do.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from mmcontrast.data import build
from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources.fields import Fields, columns_in
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.data.sources.values import is_missing, name_of, number_first
from mmcontrast.errors import MissingData, UserError, note
from mmcontrast.registry import check_options

DEFAULTS = {
  "images": "{split}2017",
  "captions": "annotations/captions_{split}2017.json",  # None: no captions
  "instances": "annotations/instances_{split}2017.json",  # None: no tags; nor are there where the default is not there
  "caption": None,  # such as "a photo of a {category}": captions of the categories, one for each
  "regions": False,  # whether the boxes of instances are regions of their image, with the category as text
  "weight": None,  # key of the entries of 'images' that holds what an example counts, see Fields
}


_REGIONS = {"box": "bbox", "text": "category of bbox"}  # as columns of a row


class CocoSource:
  """Records of a COCO-format split, in the order of the image ids, which are numbers or texts.

  Raises:
    UserError: unknown option, missing or malformed file, an annotation of an unknown image, an image id of two images.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    check_options(options, DEFAULTS, "coco: data.source")
    root = pathlib.Path(path or build.data_folder(data_dir) / "coco").expanduser()
    weight, caption = options.get("weight"), options.get("caption")
    paths = _paths(root, options, {"validation": "val"}.get(split, split))
    self._folder = paths["images"]
    if self._folder is None or not self._folder.is_dir():
      raise MissingData(
        f"data.source.images: no folder {self._folder}; set data.dataset to coco:ROOT, ROOT being the "
        "folder that holds COCO's images and annotations"
      )
    captions, instances = _read(paths["captions"], "captions"), _read(paths["instances"], "instances")
    if captions is None and instances is None:
      raise UserError("data.source: captions and instances are both None; give one of them, or read folder:PATH")
    images = _images((captions or instances)["images"], paths["captions"] or paths["instances"])
    if weight and not any(weight in image for image in images.values()):
      raise UserError(f"data.source.weight: no image has a key {weight!r}; name another, or set it to None")
    if caption and columns_in(caption) != ("category",):
      raise UserError(f"data.source.caption: {caption!r} is not a text with the category in it, such as 'a photo of a "
                      "{category}'; did you mean 'captions', the file of them?")  # fmt: skip
    if options.get("regions") and not instances:
      raise UserError("data.source.regions: boxes are those of instances; give data.source.instances")
    if caption and not instances:
      raise UserError(f"data.source.caption: {caption!r} needs categories; give data.source.instances")
    texts = _by_image(captions, "caption", paths["captions"])
    categories = _by_image(instances, "category_id", paths["instances"])
    self._names = _categories(instances["categories"], paths["instances"]) if instances else {}
    self._rows = [{"image": image.get("file_name"), "id": key, "caption": texts[key], "category": categories[key],
                   "weight": image.get(weight)}
                  for key, image in sorted(images.items(), key=lambda item: number_first(item[0]))]  # fmt: skip
    if options.get("regions"):
      boxes = _by_image(instances, "bbox", paths["instances"])
      for row in self._rows:
        size = (images[row["id"]].get("width"), images[row["id"]].get("height"))
        row |= {"bbox": boxes[row["id"]], "size": size, "category of bbox": row["category"]}
    self._fields = Fields(
      {"caption": caption or ("caption" if captions else None), "tags": "category" if instances else None, "id": "id",
       "name": "image", "regions": dict(_REGIONS) if options.get("regions") else None,
       "weight": "weight" if weight else None,
       "tag_names": tuple(dict.fromkeys(self._names.values()))},
      f"coco:{path}")  # fmt: skip
    self.info: Info = self._fields.info("coco")

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row = self._rows[index]
    name = f"image {row['id']}" if is_missing(row["image"]) else row["image"]
    try:
      found = [name_of(one, "category_id") for one in row["category"] if not is_missing(one)]
      if unlisted := [one for one in found if one not in self._names]:
        raise BadRecord(f"an instance is of category {unlisted[0]}, which is not in 'categories'")
      row = {**row, "category": [self._names[one] for one in found], **self._regions(row)}
      return self._fields.record(row, index, name, str(self._folder))
    except BadRecord as error:
      raise BadRecord(f"{name}: {error}") from None

  def _regions(self, row: Mapping[str, Any]) -> dict[str, list]:
    """Boxes in shares of the image's sides, and their categories, of the instances that have both."""
    pairs = zip(row.get("bbox", ()), row.get("category of bbox", ()))
    pairs = [
      (box, self._names[name_of(one, "category_id")]) for box, one in pairs if not (is_missing(box) or is_missing(one))
    ]
    if pairs and not all(isinstance(side, int | float) and side > 0 for side in row["size"]):
      raise BadRecord("no 'width' and 'height' among 'images', of which boxes of regions are shares")
    return dict(zip(_REGIONS.values(), ([_shares(box, row["size"]) for box, _ in pairs], [name for _, name in pairs])))

  def key(self, index: int) -> str:
    """What the annotations say of the image, and size and time of its file; see keys.key_of."""
    row = self._rows[index]
    paths = self._fields.paths(row, str(self._folder))
    return digest_of(
      [row, [self._names.get(str(one), one) for one in row["category"]], [key_of_file(path) for path in paths.values()]]
    )


def _shares(box: Any, size: tuple[float, float]) -> Any:
  """x, y, width, height in pixels as x0, y0, x1, y1 in shares of the sides; what is no such box as it is."""
  if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
    return box
  (x, y, across, down), (wide, high) = box, size
  return [x / wide, y / high, (x + across) / wide, (y + down) / high]


def _paths(root: pathlib.Path, options: Mapping, split: str) -> dict[str, pathlib.Path | None]:
  """The path of each option; None where it is None, or where its default of `instances` is not there."""
  paths: dict[str, pathlib.Path | None] = {}
  for key in ("images", "captions", "instances"):
    template = options.get(key, DEFAULTS[key])
    if template is not None and not isinstance(template, str):
      raise UserError(f"data.source.{key}: {template!r} is not a path")
    paths[key] = None if template is None else root / template.replace("{split}", split)
  if "instances" not in options and not paths["instances"].is_file():
    note(f"coco: no file {paths['instances']}, so there are no tags (data.source.instances=None says the same)")
    paths["instances"] = None
  return paths


def _read(path: pathlib.Path | None, key: str) -> dict | None:
  if path is None:
    return None
  if not path.is_file():
    raise MissingData(f"data.source.{key}: no file {path}; set data.dataset to coco:ROOT, or data.source.{key}, to "
                      "None where there are none")  # fmt: skip
  try:
    table = json.loads(path.read_text(encoding="utf-8-sig"))
  except (ValueError, RecursionError) as error:
    raise UserError(f"data.source.{key}: {path} is not JSON ({error})") from None
  needed = {"images", "annotations"} | ({"categories"} if key == "instances" else set())
  if not isinstance(table, dict) or (missing := needed - table.keys()):
    what = f"has no {min(missing)!r}" if isinstance(table, dict) else "is not a table"
    raise UserError(f"data.source.{key}: {path} {what}; expected COCO's format")
  for name in sorted(needed):
    if not isinstance(table[name], list) or not all(isinstance(one, dict) for one in table[name]):
      raise UserError(f"data.source.{key}: {path}: {name!r} is not a list of tables; expected COCO's format")
  return table


def _images(images: Iterable[Mapping[str, Any]], path: pathlib.Path) -> dict[str, Mapping[str, Any]]:
  """The images of a file by id."""
  found: dict[str, Mapping[str, Any]] = {}
  for image in images:
    key = _key(image, "id", "an image", path)
    if key in found:
      raise UserError(f"{path}: two images have the id {key}, so captions cannot be assigned to images")
    found[key] = image
  return found


def _categories(categories: Iterable[Mapping[str, Any]], path: pathlib.Path) -> dict[str, str]:
  """Id -> name, in the order of the ids. Categories of one name are one."""
  found = {_key(one, "id", "a category", path): _key(one, "name", "a category", path) for one in categories}
  return dict(sorted(found.items(), key=lambda item: number_first(item[0])))


def _by_image(table: Mapping[str, Any] | None, field: str, path: pathlib.Path | None) -> Mapping[str, list]:
  """The values of `field` of each image's annotations, by id of the image."""
  found: dict[str, list] = collections.defaultdict(list)
  if table is None:
    return found
  known = _images(table["images"], path)
  for annotation in table["annotations"]:
    key = _key(annotation, "image_id", f"annotation {annotation.get('id')}", path)
    if key not in known:
      raise UserError(f"{path}: annotation {annotation.get('id')} is of image {key}, which is not in 'images'")
    found[key].append(annotation.get(field))
  return found


def _key(row: Mapping[str, Any], field: str, what: str, path: pathlib.Path) -> str:
  if is_missing(row.get(field)):
    raise UserError(f"{path}: {what} has no {field!r}; expected COCO's format")
  try:
    return name_of(row[field], field)
  except BadRecord as error:
    raise UserError(f"{path}: {what}: {error}") from None
