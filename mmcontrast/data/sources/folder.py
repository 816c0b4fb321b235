"""A folder of images, in subfolders by class or not. `data.dataset` is "folder:PATH".

The first folder below PATH is the class, label "class". Captions of a/b.jpg are the lines of a/b.txt, if there is one,
or what `data.source.caption` makes of the class.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.data.sources import files, splits, torn_samples
from mmcontrast.data.sources.fields import columns_in, fill, template_of
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.data.sources.record import BadRecord, Info, Record
from mmcontrast.data.sources.values import name_of
from mmcontrast.errors import UserError, nearest, note

DEFAULTS = {
  "splits": {},
  "caption": None,  # such as "a photo of a {class}", instead of the lines of text files
}
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
IMAGES = tuple(f".{suffix}" for suffix in torn_samples.IMAGES)


class FolderSource:
  """The images of a folder, sorted by path; an image's id is its place. Linked folders and files are as any other.

  Raises:
    UserError: unknown option, no such folder or split, no image, images with a class and without, a link to nowhere.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    del data_dir
    name = f"folder:{path}"
    for key in options:
      if key not in DEFAULTS:
        raise UserError(f"{name}: data.source.{key}: unknown key; {nearest(key, DEFAULTS)}")
    shares = options.get("splits", DEFAULTS["splits"])
    if "{split}" in path and split == "all":
      raise UserError(f"{name}: data.split: 'all' is not a folder; give the one that {{split}} stands for")
    folder = splits.fill_path(path, split, shares, name).rstrip("/")
    found = files.find_below(folder)
    inner = [one for one in found if one.lower().endswith(IMAGES)]
    _refuse_dangling(found, name)
    if not inner:
      raise UserError(f"{name}: no image in it; known are {', '.join(IMAGES)}")
    self._texts = {path for one, path in found.items() if one.endswith(".txt")}
    folders = sorted({one.partition("/")[0] for one in inner if "/" in one})
    class_of = {folder: name_of(folder, "class") for folder in folders}  # as tables do: white space is none of it
    classes = tuple(sorted(set(class_of.values())))
    if classes and (loose := [one for one in inner if "/" not in one]):
      raise UserError(f"{name}: {loose[0]} is next to the class folders {classes[0]}, ...; move it into one")
    if len(classes) > 1 and _SPLITS.issuperset(map(str.lower, classes)):
      note(f"{name}: its folders {', '.join(classes)} are treated as classes; if they are splits, give "
           f"folder:{folder}/{{split}}")  # fmt: skip
    self._template = _template(options.get("caption"), classes, name)
    rows = splits.chosen(np.arange(len(inner)), split, shares, name)
    self._rows = [(int(row), found[inner[row]], inner[row]) for row in rows]
    self._class_of, self._label = class_of, {one: at for at, one in enumerate(classes)}
    has_captions = self._template or any(_text_of(found[one]) in self._texts for one in inner)
    self.info = Info(
      name=name, styles=("image",), tag_names=(), label_names={"class": classes} if classes else {},
      caption_fields=("caption",) if has_captions else (), row_ids=True,
    )  # fmt: skip

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row, path, inner = self._rows[index]
    of_class = fill(self._template, {"class": [self._class(inner)]}) if self._template else []
    captions = {field: of_class or self._captions(path) for field in self.info.caption_fields}
    return Record(
      images={"image": files.read(path)},
      captions=captions,
      names={},
      tags=np.zeros(0, np.uint8),
      labels={"class": self._label[self._class(inner)]} if self._label else {},
      id=row,
      name=inner,
      mirror_safe=True,
      paths={"image": path},
    )

  def key(self, index: int) -> str:
    """Name, size and time of the image and of its captions; see keys.key_of."""
    _, path, inner = self._rows[index]
    text = _text_of(path)
    return digest_of([inner, key_of_file(path), key_of_file(text) if text in self._texts else ""])

  def _class(self, inner: str) -> str:
    return self._class_of[inner.partition("/")[0]]

  def _captions(self, path: str) -> list[str]:
    text = _text_of(path)
    if text not in self._texts:
      return []
    try:
      return files.read(text).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
      raise BadRecord(f"{text}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _template(option: object, classes: Sequence[str], where: str) -> str:
  """The option `caption`; "" for None."""
  if option is None:
    return ""
  template = template_of(option, f"{where}: data.source.caption")
  if columns_in(template) != ("class",):
    raise UserError(f"{where}: data.source.caption: {option!r} is not a text with the class in it, such as 'a photo of "
                    "a {class}'; None: the lines of a.txt are captions of a.jpg")  # fmt: skip
  if not classes:
    raise UserError(f"{where}: data.source.caption: {option!r} needs class folders, and there are none")
  return template


def _refuse_dangling(found: Mapping[str, str], where: str) -> None:
  """UserError for a link to nowhere that may have been a folder: without it classes would count differently."""
  for inner, path in found.items():
    if not inner.lower().endswith((*IMAGES, ".txt")) and os.path.islink(path) and not os.path.exists(path):
      raise UserError(f"{where}: {inner} is a link to {os.readlink(path)}, which does not exist; restore it, or "
                      "remove the link")  # fmt: skip


def _text_of(path: str) -> str:
  return posixpath.splitext(path)[0] + ".txt"
