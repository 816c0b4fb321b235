"""Pictures with a true caption and edits of it: the files of SugarCrepe, ARO and Winoground, as they were published.

    sugar_crepe   FOLDER/add_att.json, ..., swap_obj.json: {"0": {"filename", "caption", "negative_caption"}, ...};
                  COCO's val2017 images in FOLDER/val2017, FOLDER/images or FOLDER
    aro           FOLDER/visual_genome_relation.json, visual_genome_attribution.json: [{"image_path", "bbox_x", ...,
                  "true_caption", "false_caption"}, ...]; images in FOLDER/images, of which the box is cut out
    winoground    FOLDER/examples.jsonl: {"image_0", "image_1", "caption_0", "caption_1"}; FOLDER/images/ex_0_img_0.png

Of an example every picture is a record; `captions(record)` are all captions of its example. `group` says which records
are of one example.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources import files
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.errors import MissingData, UserError


class Example(NamedTuple):
  """An example: paths of its pictures, all captions, the part of the pictures that counts (x0, y0, x1, y1 in pixels;
  none: all), and the kind of edit, "" where nothing is said of it."""

  paths: tuple[str, ...]
  captions: tuple[str, ...]
  box: tuple[int, int, int, int] | None = None
  edit: str = ""


class EditedCaptions:
  """The pictures of examples, in their order; see above. Raises UserError for an empty list."""

  def __init__(self, name: str, examples: list[Example]):
    if not examples:
      raise UserError(f"{name}: holds no example")
    self.examples = examples
    self._rows = [(number, path) for number, one in enumerate(examples) for path in one.paths]
    self.info = Info(name=name, styles=("image",), tag_names=(), label_names={}, row_ids=True)

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    number, path = self._rows[index]
    try:
      image = files.read(path)
    except FileNotFoundError:
      raise BadRecord(f"{posixpath.basename(path)}: no such file, {path}") from None
    return Record(
      images={"image": image},
      captions={"caption": list(self.examples[number].captions)},
      names={},
      tags=np.zeros(0, np.uint8),
      labels={},
      id=index,
      name=posixpath.basename(path),
      mirror_safe=False,
      paths={"image": path},
    )

  def box(self, index: int) -> tuple[int, int, int, int] | None:
    """The part of a picture that counts."""
    return self.examples[self._rows[index][0]].box

  def key(self, index: int) -> str:
    """See keys.key_of."""
    number, path = self._rows[index]
    return digest_of([list(self.examples[number]), key_of_file(path)])


def sugar_crepe(folder: str) -> dict[str, EditedCaptions]:
  """The subsets that are there, by name. Raises UserError where there is none, or a file is not of that form."""
  names = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
  images = _images(folder, ("val2017", "images", ""))

  def example(row: Mapping[str, Any]) -> Example:
    return Example((posixpath.join(images, row["filename"]),), (row["caption"], row["negative_caption"]))

  return _read(folder, "sugar_crepe", {name: f"{name}.json" for name in names}, example)


def aro(folder: str) -> dict[str, EditedCaptions]:
  """Relations and attributes of Visual Genome, those that are there. Raises UserError as `sugar_crepe`."""
  images = _images(folder, ("images", ""))

  def example(row: Mapping[str, Any]) -> Example:
    x, y, wide, high = (row[f"bbox_{side}"] for side in "xywh")
    edit = row.get("relation_name") or "_".join(row.get("attributes", ()))
    path = posixpath.join(images, row["image_path"])
    return Example((path,), (row["true_caption"], row["false_caption"]), (x, y, x + wide, y + high), edit)

  found = {"vg_relation": "visual_genome_relation.json", "vg_attribution": "visual_genome_attribution.json"}
  return _read(folder, "aro", found, example)


def winoground(folder: str) -> dict[str, EditedCaptions]:
  """Winoground's examples. Raises UserError as `sugar_crepe`."""
  images = _images(folder, ("images", ""))

  def example(row: Mapping[str, Any]) -> Example:
    paths = [row[f"image_{one}"] for one in (0, 1)]
    paths = [path if "." in path else f"{path}.png" for path in paths]
    return Example(
      tuple(posixpath.join(images, path) for path in paths),
      (row["caption_0"], row["caption_1"]),
      None,
      row.get("collapsed_tag", ""),
    )

  return _read(folder, "winoground", {"winoground": "examples.jsonl"}, example)


def _images(folder: str, places: tuple[str, ...]) -> str:
  there = files.names_in(folder)
  return posixpath.join(folder, next((place for place in places if place in there), ""))


def _read(
  folder: str, kind: str, found: Mapping[str, str], example: Callable[[Mapping[str, Any]], Example]
) -> dict[str, EditedCaptions]:
  """Name -> the examples of its file, of the files that are in the folder or in `data` in it."""
  out = {}
  for place in (folder, posixpath.join(folder, "data")):
    names = files.names_in(place)
    for name, file in found.items():
      if file in names and name not in out:
        where = f"{kind}:{posixpath.join(place, file)}"
        out[name] = EditedCaptions(where, [_example(row, at, where, example) for at, row in _rows(where)])
  if not out:
    raise MissingData(f"{kind}:{folder}: none of {', '.join(found.values())} is there; give the folder that has them")
  return {name: out[name] for name in found if name in out}


def _rows(where: str) -> list[tuple[Any, Any]]:
  """(place, row) of each row of a file: a list, a table by number, or lines."""
  path = where.partition(":")[2]
  try:
    text = files.read(path).decode()
    table = [json.loads(line) for line in text.splitlines() if line.strip()] if path.endswith("l") else json.loads(text)
  except ValueError as error:
    raise UserError(f"{where}: is not JSON ({error})") from None
  return list(table.items()) if isinstance(table, dict) else list(enumerate(table))


def _example(row: Any, place: Any, where: str, example: Callable[[Mapping[str, Any]], Example]) -> Example:
  try:
    return example(row)
  except (KeyError, TypeError, AttributeError) as error:
    raise UserError(f"{where}: example {place} lacks {error}; expected the published form") from None
