"""A folder of images or sounds, in subfolders by class or not. `data.dataset` is "folder:PATH".

The first folder below PATH is the class, label "class". A sound a/b.wav belongs to the image a/b.jpg, where there is
one. Captions of a/b.jpg or a/b.wav are the lines of a/b.txt, if there is one, or what `data.source.caption` makes of
the class.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.data import torn_samples
from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources import files, splits
from mmcontrast.data.sources.fields import columns_in, fill, template_of
from mmcontrast.data.sources.keys import digest_of, key_of_file
from mmcontrast.data.sources.values import name_of
from mmcontrast.errors import UserError, note
from mmcontrast.modalities import MODALITIES
from mmcontrast.registry import check_options

DEFAULTS = {
  "splits": {},
  "caption": None,  # such as "a photo of a {class}", instead of the lines of text files
}
_SPLITS = {"train", "training", "val", "valid", "validation", "dev", "eval", "test", "testing"}
IMAGES = tuple(f".{suffix}" for suffix in torn_samples.IMAGES)


class FolderSource:
  """The images and sounds of a folder, sorted by path; ids are places. Linked folders and files are as any other.

  Raises:
    UserError: unknown option, no such folder or split, no image, images with a class and without, a link to nowhere.
  """

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    del data_dir
    name = f"folder:{path}"
    check_options(options, DEFAULTS, f"{name}: data.source")
    shares = options.get("splits", DEFAULTS["splits"])
    if "{split}" in path and split == "all":
      raise UserError(f"{name}: data.split: 'all' is not a folder; give the one that {{split}} stands for")
    folder = splits.fill_path(path, split, shares, name).rstrip("/")
    found = files.find_below(folder)
    inner = [one for one in found if one.lower().endswith(IMAGES)]
    _refuse_dangling(found, name)
    styles = ("image",) if inner else ()
    self._further = {one: modality for one, modality in MODALITIES.items() if modality.source_options}
    self._of_stem: dict[str, dict[str, str]] = {}  # modality -> path without ending -> path
    for one, modality in self._further.items():
      paths, stems = (
        [path for path in found if path.lower().endswith(modality.suffixes)],
        {_stem(path) for path in inner},
      )
      self._of_stem[one] = {_stem(path): path for path in reversed(paths)}
      inner += [path for path in paths if _stem(path) not in stems]
    if not inner:
      others = "".join(f"; no {one.nouns}: {', '.join(one.suffixes)}" for one in self._further.values())
      raise UserError(f"{name}: no image in it; known are {', '.join(IMAGES)}{others}")
    inner = [one for one in found if one in set(inner)]
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
    self._found, self._rows = found, [(int(row), found[inner[row]], inner[row]) for row in rows]
    self._class_of, self._label = class_of, {one: at for at, one in enumerate(classes)}
    has_captions = self._template or any(_text_of(found[one]) in self._texts for one in inner)
    self.info = Info(
      name=name, styles=styles, tag_names=(), label_names={"class": classes} if classes else {},
      caption_fields=("caption",) if has_captions else (), row_ids=True,
      keys={one: (one,) for one, stems in self._of_stem.items() if stems},
    )  # fmt: skip

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, index: int) -> Record:
    row, path, inner = self._rows[index]
    of_class = fill(self._template, {"class": [self._class(inner)]}) if self._template else []
    captions = {field: of_class or self._captions(path) for field in self.info.caption_fields}
    image = {"image": path} if inner.lower().endswith(IMAGES) else {}
    things = self._things(inner)
    return Record(
      images={style: files.read(file) for style, file in image.items()},
      captions=captions,
      names={},
      tags=np.zeros(0, np.uint8),
      labels={"class": self._label[self._class(inner)]} if self._label else {},
      id=row,
      name=inner,
      mirror_safe=True,
      paths=image,
      **{
        (its := self._further[one]).field: {one: its.of_file(files.read(file), files.beside(file))}
        for one, file in things.items()
      },
    )

  def label(self, index: int) -> int:
    """The class of a record, without reading its image. Only of a folder that has classes."""
    return self._label[self._class(self._rows[index][2])]

  def key(self, index: int) -> str:
    """Name, size and time of the image, of its captions and of what else there is of it; see keys.key_of."""
    _, path, inner = self._rows[index]
    text = _text_of(path)
    others = [key_of_file(file) for file in self._things(inner).values() if file != path]
    return digest_of([inner, key_of_file(path), key_of_file(text) if text in self._texts else "", *others])

  def _things(self, inner: str) -> dict[str, str]:
    """Modality -> the file, of those beyond images that a record has."""
    found = {}
    for one, modality in self._further.items():
      its = inner if inner.lower().endswith(modality.suffixes) else self._of_stem[one].get(_stem(inner))
      found |= {one: self._found[its]} if its else {}
    return found

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


def _stem(path: str) -> str:
  return posixpath.splitext(path)[0]


def _text_of(path: str) -> str:
  return _stem(path) + ".txt"
