"""Sets in the layout of CLIP_benchmark and DataComp, read as they stand.

    SET/classnames.txt                          a line a class, in the order of their numbers
    SET/zeroshot_classification_templates.txt   a line a prompt, "{c}" in place of the name
    SET/dataset_type.txt                        "retrieval" or "multilabel"; else, or without it, classification
    SET/test/nshards.txt                        how many shards: test/0.tar, test/1.tar, ...

A sample has an image (webp, png, jpg or jpeg) and cls, the number of its class; of a retrieval set txt, a caption a
line; of a multi-label set npy, 0 or 1 for each class. `data.dataset` is "clip_benchmark:SET", `data.split` one of its
folders. No index is needed: a shard without one is read through once.

Source: PyPI clip-benchmark 1.6.2, datasets/builder.py, build_wds_dataset.
"""

from __future__ import annotations

import collections
import difflib
import io
import os
import posixpath
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mmcontrast.data.record import BadRecord, Info, Record
from mmcontrast.data.sources import files, shard_index
from mmcontrast.errors import MissingData, UserError, choose, nearest
from mmcontrast.registry import check_options

CLASSES, TEMPLATES, TYPE, SHARDS = (
  "classnames.txt",
  "zeroshot_classification_templates.txt",
  "dataset_type.txt",
  "nshards.txt",
)
CLASSIFICATION, MULTILABEL, RETRIEVAL = "classification", "multilabel", "retrieval"
KINDS = (CLASSIFICATION, MULTILABEL, RETRIEVAL)
LABEL = "class"
BEYOND = "not the number of one of"  # of a record whose class has no name
_IMAGES = ("webp", "png", "jpg", "jpeg")
_FILES = (".tar", ".txt", ".json", ".index", ".md", ".parquet", ".csv")  # names that are no folder
_DEPTH = 5  # of folders in folders that sets are looked for


class Layout(NamedTuple):
  """What the files of a set say.

  Attributes:
    folder: of the set; split: whose samples are read; shards: how many there are of it.
    kind: "classification", "multilabel" or "retrieval".
    classes, templates: none of a retrieval set; a template has "{c}" where the name goes.
  """

  folder: str
  split: str
  shards: int
  kind: str
  classes: tuple[str, ...]
  templates: tuple[str, ...]

  @property
  def paths(self) -> list[str]:
    """Of the shards, in the order of their numbers."""
    return [posixpath.join(self.folder, self.split, f"{number}.tar") for number in range(self.shards)]

  def prompts(self, name: str) -> list[str]:
    """The prompts of a class."""
    return [template.replace("{c}", name) for template in self.templates]


def find_sets(folder: str, split: str = "test") -> dict[str, str]:
  """Name -> folder of every set in `folder` or below, by name; a set is a folder with SPLIT/nshards.txt.

  The name is the path below `folder`; of a folder that is a set itself its own. Raises UserError where there is none.
  """
  found: dict[str, str] = {}
  others: set[str] = set()
  waiting = collections.deque([(folder.rstrip("/") or "/", "", 0)])
  while waiting:
    path, name, depth = waiting.popleft()
    names = files.names_in(path)
    if split in names and SHARDS in files.names_in(posixpath.join(path, split)):
      found[name or posixpath.basename(path)] = path
    elif depth < _DEPTH:
      inner = [one for one in names if not one.endswith(_FILES)]
      others |= {posixpath.basename(path)} if SHARDS in names else set()
      waiting.extend((posixpath.join(path, one), f"{name}/{one}".lstrip("/"), depth + 1) for one in inner)
  if not found and others:
    choose(split, sorted(others), f"clip_benchmark:{folder}: --split")
  if not found:
    raise UserError(
      f"clip_benchmark:{folder}: no set there, no folder that has {split}/{SHARDS}; give the folder that holds the sets"
    )
  return dict(sorted(found.items()))


def read_layout(folder: str, split: str = "test") -> Layout:
  """What the files of a set say.

  Raises UserError: no such split, a number of shards that is none, a shard or the class names that are missing, an
  empty line among names or templates.
  """
  where = f"clip_benchmark:{folder}"
  splits = [one for one in files.names_in(folder) if SHARDS in files.names_in(posixpath.join(folder, one))]
  if not splits:
    raise MissingData(f"{where}: no set there: no folder in it has {SHARDS}, as in test/{SHARDS}")
  choose(split, splits, f"{where}: data.split")
  text = _read(folder, f"{split}/{SHARDS}", where) or ""
  if not text.strip().isdecimal() or not int(text):
    raise UserError(f"{where}: {split}/{SHARDS}: {text.strip()[:40]!r} is no number of shards; write one, such as 1")
  kind = (_read(folder, TYPE, where) or CLASSIFICATION).strip().lower()
  if kind not in KINDS and difflib.get_close_matches(kind, KINDS, 1):
    choose(kind, KINDS, f"{where}: {TYPE}")
  kind = kind if kind in KINDS else CLASSIFICATION
  classes, templates = ((), ()) if kind == RETRIEVAL else (read_names(folder, where), read_templates(folder, where))
  if kind != RETRIEVAL and not classes:
    raise MissingData(
      f"{where}: no {CLASSES}, which a set of classes needs: a line a class, in the order of their numbers; of a set "
      f"of captions write 'retrieval' into {TYPE}"
    )
  layout = Layout(folder, split, int(text), kind, classes, templates)
  there = set(files.names_in(posixpath.join(folder, split)))
  if missing := [path for path in layout.paths if posixpath.basename(path) not in there]:
    raise MissingData(f"{missing[0]}: no such file, of the {layout.shards} shards that {split}/{SHARDS} says")
  return layout


class ClipBenchmarkSource:
  """Records of a set, in the order of its shards. Raises UserError as `read_layout`, for a shard that is cut off, and
  for an option: it has none."""

  def __init__(self, path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None = None):
    check_options(options, (), f"clip_benchmark:{path}: data.source")
    self.layout = layout = read_layout(path.rstrip("/"), _split(path, split))
    self._shards = shard_index.Shards(layout.paths, scanned=True)
    if cut := self._shards.cut_off:
      raise UserError(
        f"{cut[0]}: is cut off or damaged, and what follows its last whole sample is lost; fetch the shard again (a "
        "number of fewer pictures is another number)"
      )
    names = _told_apart(layout.classes)
    self.info = Info(
      name=f"clip_benchmark:{path}",
      styles=("image",),
      tag_names=names if layout.kind == MULTILABEL else (),
      label_names={LABEL: names} if layout.kind == CLASSIFICATION else {},
      caption_fields=("caption",) if layout.kind == RETRIEVAL else (),
      row_ids=True,
    )

  def __len__(self) -> int:
    return len(self._shards)

  def __getitem__(self, index: int) -> Record:
    name, members = self._shards[index]
    layout = self.layout
    try:
      image = next((members[kind] for kind in _IMAGES if kind in members), None)
      if image is None:
        raise BadRecord(f"no image, only {', '.join(sorted(members))}")
      tags = np.zeros(len(self.info.tag_names), np.uint8)
      if layout.kind == MULTILABEL:
        tags[:] = _targets(_member(members, "npy"), len(tags))
      captions = _text(_member(members, "txt")).splitlines() if layout.kind == RETRIEVAL else []
      labels = {LABEL: _number(_member(members, "cls"), layout.classes)} if layout.kind == CLASSIFICATION else {}
    except BadRecord as error:
      raise BadRecord(f"{name}: {error}") from None
    return Record(
      images={"image": image},
      captions={"caption": captions} if layout.kind == RETRIEVAL else {},
      names={},
      tags=tags,
      labels=labels,
      id=index,
      name=name,
      mirror_safe=True,
      paths={},
    )

  def key(self, index: int) -> str:
    """See keys.key_of; no member is read."""
    return self._shards.key(index)


def _split(path: str, split: str) -> str:
  """`split`, of "all" the only one. UserError where there are several."""
  if split != "all":
    return split
  splits = [one for one in files.names_in(path) if SHARDS in files.names_in(posixpath.join(path, one))]
  if len(splits) > 1:
    raise UserError(f"clip_benchmark:{path}: has the splits {', '.join(splits)}; name one with --split or data.split")
  return splits[0] if splits else "test"


def _told_apart(classes: tuple[str, ...]) -> tuple[str, ...]:
  """Names of classes, of several of one name with their number: "crane (517)"."""
  counts = collections.Counter(classes)
  return tuple(f"{name} ({number})" if counts[name] > 1 else name for number, name in enumerate(classes))


def read_names(folder: str, where: str) -> tuple[str, ...]:
  """The lines of CLASSES; none without the file. Raises UserError, which begins with `where`, for an empty line."""
  return _lines(folder, CLASSES, where)


def read_templates(folder: str, where: str) -> tuple[str, ...]:
  """The lines of TEMPLATES; none without the file. Raises UserError as `read_names`, and for one without "{c}"."""
  templates = _lines(folder, TEMPLATES, where)
  for number, one in enumerate(templates, 1):
    if "{c}" not in one:
      raise UserError(f"{where}: {TEMPLATES}: line {number} is {one[:60]!r}; it must hold '{{c}}', for the class")
  return templates


def _read(folder: str, name: str, where: str) -> str | None:
  try:
    return files.read(posixpath.join(folder, name)).decode("utf-8-sig")
  except FileNotFoundError:
    return None
  except UnicodeDecodeError:
    raise UserError(f"{where}: {name} is not UTF-8 text; write it anew as UTF-8") from None


def _lines(folder: str, name: str, where: str) -> tuple[str, ...]:
  lines = tuple(line.strip() for line in (_read(folder, name, where) or "").splitlines())
  if "" in lines:
    raise UserError(f"{where}: {name}: line {lines.index('') + 1} is empty, and would be a name; remove it")
  return lines


def _member(members: Mapping[str, bytes], kind: str) -> bytes:
  if kind not in members:
    raise BadRecord(f"no member {kind}; {nearest(kind, members)}")
  return members[kind]


def _text(data: bytes) -> str:
  try:
    return data.decode()
  except UnicodeDecodeError:
    raise BadRecord("txt is not UTF-8") from None


def _number(data: bytes, classes: tuple[str, ...]) -> int:
  text = data.decode(errors="replace").strip()
  if not text.isdecimal() or int(text) >= len(classes):
    raise BadRecord(f"cls is {text[:40]!r}, {BEYOND} {len(classes)} classes, from 0 on")
  return int(text)


def _targets(data: bytes, count: int) -> np.ndarray:
  try:
    found = np.load(io.BytesIO(data), allow_pickle=False).reshape(-1)
  except (ValueError, EOFError, OSError) as error:
    raise BadRecord(f"npy cannot be read ({error})") from None
  if len(found) != count:
    raise BadRecord(f"npy has {len(found)} numbers for {count} classes")
  return found > 0
