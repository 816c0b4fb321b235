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
from mmcontrast.errors import MissingData, UserError, note


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

  def example(row: _Row) -> Example:
    return Example((posixpath.join(images, row.text("filename")),), (row.text("caption"), row.text("negative_caption")))

  return _read(folder, "sugar_crepe", {name: f"{name}.json" for name in names}, example)


def aro(folder: str) -> dict[str, EditedCaptions]:
  """Relations and attributes of Visual Genome, those that are there. Raises UserError as `sugar_crepe`."""
  images = _images(folder, ("images", ""))

  def example(row: _Row) -> Example:
    x, y, wide, high = (row.number(f"bbox_{side}") for side in "xywh")
    if min(wide, high) <= 0:
      raise row.error(f"its box is {wide} x {high} pixels; give both 1 or more")
    edit = row.fields.get("relation_name") or "_".join(map(str, row.fields.get("attributes") or ()))
    path = posixpath.join(images, row.text("image_path"))
    return Example((path,), (row.text("true_caption"), row.text("false_caption")), (x, y, x + wide, y + high), edit)

  found = {"vg_relation": "visual_genome_relation.json", "vg_attribution": "visual_genome_attribution.json"}
  return _read(folder, "aro", found, example)


def winoground(folder: str) -> dict[str, EditedCaptions]:
  """Winoground's examples. Raises UserError as `sugar_crepe`."""
  images = _images(folder, ("images", ""))

  def example(row: _Row) -> Example:
    paths = [row.text(f"image_{one}") for one in (0, 1)]
    paths = [path if "." in path else f"{path}.png" for path in paths]
    return Example(
      tuple(posixpath.join(images, path) for path in paths),
      (row.text("caption_0"), row.text("caption_1")),
      None,
      str(row.fields.get("collapsed_tag", "")),
    )

  return _read(folder, "winoground", {"winoground": "examples.jsonl"}, example)


def _images(folder: str, places: tuple[str, ...]) -> str:
  there = files.names_in(folder)
  return posixpath.join(folder, next((place for place in places if place in there), ""))


class _Row(NamedTuple):
  """A row of a file, whose fields are of the kind that is asked for."""

  fields: Any
  place: Any
  where: str

  def error(self, what: str) -> UserError:
    return UserError(f"{self.where}: example {self.place}: {what}")

  def _field(self, name: str) -> Any:
    if not isinstance(self.fields, Mapping):
      raise self.error(f"{self.fields!r:.60} is no table; expected the published form, with {name!r}")
    if name not in self.fields:
      raise UserError(
        f"{self.where}: example {self.place} lacks {name!r}; expected the published form; it has "
        f"{', '.join(map(str, self.fields)) or 'nothing':.80}"
      )
    return self.fields[name]

  def text(self, name: str) -> str:
    found = self._field(name)
    if not isinstance(found, str) or not found.strip():
      raise self.error(f"{name!r} is {found!r:.60}, and should be a text")
    return found

  def number(self, name: str) -> float:
    found = self._field(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
      raise self.error(f"{name!r} is {found!r:.60}, and should be a number")
    return found


def _read(
  folder: str, kind: str, found: Mapping[str, str], example: Callable[[_Row], Example]
) -> dict[str, EditedCaptions]:
  """Name -> the examples of its file, of the files that are in the folder or in `data` in it."""
  out = {}
  for place in (folder, posixpath.join(folder, "data")):
    names = files.names_in(place)
    for name, file in found.items():
      if file in names and name not in out:
        where = f"{kind}:{posixpath.join(place, file)}"
        examples = [example(_Row(row, at, where)) for at, row in _rows(where)]
        if same := [at for at, one in enumerate(examples) if len(set(one.captions)) < len(one.captions)]:
          note(
            f"{where}: {len(same)} of {len(examples)} examples have one caption twice, such as the example {same[0]}, "
            "counted from 0; equal scores are lost"
          )
        out[name] = EditedCaptions(where, examples)
  if not out:
    raise MissingData(f"{kind}:{folder}: none of {', '.join(found.values())} is there; give the folder that has them")
  return {name: out[name] for name in found if name in out}


def _rows(where: str) -> list[tuple[Any, Any]]:
  """(place, row) of each row of a file: a list, a table by number, or lines."""
  path = where.partition(":")[2]
  try:
    text = files.read(path).decode()
  except UnicodeDecodeError:
    raise UserError(f"{where}: is not UTF-8 text; fetch the file again") from None
  if path.endswith("l"):
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    return list(enumerate(_json(line, f"{where}: line {number}") for number, line in lines))
  table = _json(text, where)
  if not isinstance(table, dict | list):
    raise UserError(f"{where}: holds {table!r:.60}, no list or table of examples; expected the published form")
  return list(table.items()) if isinstance(table, dict) else list(enumerate(table))


def _json(text: str, where: str) -> Any:
  try:
    return json.loads(text)
  except ValueError as error:
    raise UserError(f"{where}: is not JSON ({error}); fetch the file again, or mend it") from None
