"""The pieces of furniture that `mmcontrast data build furniture` makes, and clips of them in both directions.

    dataset="furniture"                        # an example is an object: pictures, a turntable clip, points, names
    dataset="furniture", source=dict(image=("depth", "normals"))
    dataset="furniture_turns"                  # an example is a clip of an object, and a caption that needs its order
    dataset="furniture_turns", source=dict(orders="both")    # a clip and its reverse, and the caption of each
    dataset="furniture_scripts"                # a clip of four parts, and a caption of each, in their order

`furniture_turns` composes four clips of each object's turntable as it is read: a whole turn to the right and one to the
left, and half a turn from the front to the back and one from the back to the front. The two of each kind hold the same
frames in opposite orders, and their captions the same words but one or two: nothing but time tells them apart. With
`orders="both"` a record is a clip and its reverse: columns of video and fields of captions are "forward" and
"reversed", labels `motion` and `reversed_motion`, and each of the four is once the one and once the other.

`furniture_scripts` composes four clips of each object too, of four parts of four frames: a quarter to the right, a
quarter to the left, a stand, a whole turn, each once, in an order that the object and the clip's number say. The
captions of the parts are fields, `data.captions=("first", "second", "third", "fourth")`.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mmcontrast.data.record import BadRecord, Record
from mmcontrast.data.sources.emoji import EmojiSource, open_built
from mmcontrast.errors import UserError, choose
from mmcontrast.registry import check_options

SHOWN = ("icon", "render")  # of an object's images, where the options name none
MOTIONS = {
  "right": "turning to the right",
  "left": "turning to the left",
  "front_first": "seen from the front, then from behind",
  "back_first": "seen from behind, then from the front",
}
OPPOSITE = {"right": "left", "left": "right", "front_first": "back_first", "back_first": "front_first"}
PAIRS = tuple(OPPOSITE.items())
ORDERS = ("forward", "reversed")
SCRIPT = {
  "right": ("turns to the right", (1, 2, 3, 4)),
  "left": ("turns to the left", (-1, -2, -3, -4)),
  "still": ("stands still", (0, 0, 0, 0)),
  "spin": ("spins", (4, 8, 12, 16)),
}
"""The parts of a script: what is said of them, and how far each frame is from where the part begins."""
PARTS = ("first", "second", "third", "fourth")
SCRIPTS = 4  # of an object


def open_furniture(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens furniture.

  Args:
    options: image: which of an object's images there are, of "icon", "render", "depth", "normals", "parts".
  """
  if path:
    raise UserError(f"data.dataset: furniture takes no path, not {path!r}")
  check_options(options, ("image",), "furniture: data.source")
  source = open_built("furniture", split, data_dir)
  named = options.get("image", SHOWN) or ()
  chosen = (named,) if isinstance(named, str) else tuple(named)
  for style in chosen:
    choose(style, source.info.styles, "data.source.image")
  source.info = dataclasses.replace(source.info, styles=chosen)
  return source


def open_furniture_turns(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> FurnitureTurns:
  """Opens furniture_turns.

  Args:
    options: orders: "one" clip a record, or "both" of a pair.
  """
  if path:
    raise UserError(f"data.dataset: furniture_turns takes no path, not {path!r}")
  check_options(options, ("orders",), "furniture_turns: data.source")
  orders = choose(options.get("orders", "one"), ("one", "both"), "data.source.orders")
  return FurnitureTurns(open_built("furniture", split, data_dir), orders == "both")


def open_furniture_scripts(
  path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None
) -> FurnitureScripts:
  """Opens furniture_scripts, which has no options."""
  if path or options:
    raise UserError(f"data.dataset: furniture_scripts takes no path and no data.source, not {path or dict(options)!r}")
  return FurnitureScripts(open_built("furniture", split, data_dir))


def order_of(motion: str, count: int) -> list[int]:
  """The frames of a turntable to the right, from the front, that a motion shows; both whole turns begin there, so that
  frames taken at even distances are the same ones of both."""
  half, right = list(range(count // 2 + 1)), list(range(count))
  left = [0, *right[:0:-1]]
  return {"right": right, "left": left, "front_first": half, "back_first": half[::-1]}[motion]


class FurnitureTurns:
  """Four clips of each object, alone or beside the one in the opposite order; examples with one caption have one id."""

  def __init__(self, base: EmojiSource, both: bool = False):
    self._base, self._shown = base, PAIRS if both else tuple((motion,) for motion in MOTIONS)
    # What is read of the base is its clip and its name.
    base.info = dataclasses.replace(base.info, styles=(), keys={"video": base.info.keys["video"]})
    self._columns, self._fields = (ORDERS, ORDERS) if both else (("clip",), ("caption",))
    self.info = dataclasses.replace(
      base.info,
      name="furniture_turns",
      tag_names=(),
      label_names=dict.fromkeys(("motion", "reversed_motion") if both else ("motion",), tuple(MOTIONS)),
      concepts=(),
      languages=(),
      caption_fields=self._fields,
      keys={"video": self._columns},
    )

  def __len__(self) -> int:
    return len(self._shown) * len(self._base)

  def __getitem__(self, index: int) -> Record:
    if not 0 <= index < len(self):
      raise IndexError(index)
    place, number = divmod(index, len(self._shown))
    motions, of = self._shown[number], self._base[place]
    (clip,), name = of["video"].values(), of["captions"]["caption"][0]
    return Record(
      images={},
      captions={field: [f"{name} {MOTIONS[motion]}"] for field, motion in zip(self._fields, motions)},
      names={},
      tags=np.zeros(0, np.uint8),
      labels={label: list(MOTIONS).index(motion) for label, motion in zip(self.info.label_names, motions)},
      id=len(self._shown) * of["id"] + number,
      name=f"{of['name']}-{motions[0]}",
      mirror_safe=False,  # to the left is not to the right
      video={column: _reordered(clip, motion) for column, motion in zip(self._columns, motions)},
    )


class FurnitureScripts:
  """Four clips of each object, of four parts with a caption each; the id is that of the object's name."""

  def __init__(self, base: EmojiSource):
    self._base = base
    base.info = dataclasses.replace(base.info, styles=(), keys={"video": base.info.keys["video"]})
    self.info = dataclasses.replace(
      base.info,
      name="furniture_scripts",
      tag_names=(),
      label_names={},
      languages=(),
      caption_fields=PARTS,
      keys={"video": ("clip",)},
    )

  def __len__(self) -> int:
    return SCRIPTS * len(self._base)

  def __getitem__(self, index: int) -> Record:
    if not 0 <= index < len(self):
      raise IndexError(index)
    place, number = divmod(index, SCRIPTS)
    of = self._base[place]
    (clip,), name = of["video"].values(), of["captions"]["caption"][0]
    script = script_of(of["name"], number)
    return Record(
      images={},
      captions={part: [f"{name} {SCRIPT[motion][0]}"] for part, motion in zip(PARTS, script)},
      names={},
      tags=np.zeros(0, np.uint8),
      labels={},
      id=of["id"],
      name=f"{of['name']}-{'-'.join(script)}",
      mirror_safe=False,
      video={"clip": _of_frames(clip, lambda count: played(script, count))},
    )


def script_of(key: str, number: int) -> tuple[str, ...]:
  """The motions of a clip of the object `key`, each once; no two numbers below SCRIPTS give the same."""
  orders = list(itertools.permutations(SCRIPT))
  return orders[(zlib.crc32(key.encode()) + number * (len(orders) // SCRIPTS + 1)) % len(orders)]


def played(script: Sequence[str], count: int) -> list[int]:
  """The frames of a turntable of `count` frames that a script shows, from the front."""
  shown, at = [], 0
  for motion in script:
    steps = SCRIPT[motion][1]
    shown += [(at + step) % count for step in steps]
    at += steps[-1]
  return shown


def _reordered(clip: bytes, motion: str) -> bytes:
  """A clip's frames in the order of a motion, as they are encoded."""
  return _of_frames(clip, lambda count: order_of(motion, count))


def _of_frames(clip: bytes, order: Callable[[int], Sequence[int]]) -> bytes:
  """Frames of a clip, as they are encoded, in an order that their number says."""
  made = io.BytesIO()
  try:
    with zipfile.ZipFile(io.BytesIO(clip)) as frames, zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as out:
      names = sorted(frames.namelist())
      for place, frame in enumerate(order(len(names))):
        out.writestr(zipfile.ZipInfo(f"{place:06d}.png"), frames.read(names[frame]))
  except zipfile.BadZipFile as error:
    raise BadRecord(f"not a clip ({error})") from None
  return made.getvalue()
