"""Two emoji one after the other, and the other way round: composed of a built dataset as it is read, for what tells
before from after.

    dataset="emoji_order", source=dict(of="emoji_views")       # two drawings side by side, as a film strip
    dataset="emoji_order", source=dict(of="emoji_spoken")      # two names spoken, one after the other

A record is a pair of concepts A, B of the split. It has three forms, which are styles of its image, or columns of its
sound, and fields of its captions: "forward" (A then B: "A before B", or "B after A"), "reversed" (B then A) and
"single" (A alone). Orders are told by nothing else: both forms hold the same drawings, sounds and names.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from grain.experimental import index_shuffle

from mmcontrast.data.datasets.spoken_columns import SPEAKERS
from mmcontrast.data.record import BadRecord, Record
from mmcontrast.data.sources.emoji import EmojiSource, open_built
from mmcontrast.errors import UserError, choose
from mmcontrast.modalities.audio_reading import decode, to_wav
from mmcontrast.registry import check_options

FORMS = ("forward", "reversed", "single")
SIDE = 64  # pixels of a composed image
RATE = 16_000  # samples a second of a composed sound
PAUSE = 0.1  # seconds between two names
_OPTIONS: dict[str, Any] = {"of": "emoji_views", "pairs": 4, "orders": "both"}
_ROUNDS = 4


class EmojiOrder:
  """Pairs of a built dataset's concepts.

  Args:
    base: emoji_views, or emoji_spoken for sounds.
    pairs: how many a concept begins.
    orders: "both": records with all FORMS; "one": each order is a record of its own, of one image or sound and one
      caption, for evaluation: what is nearest to it in all but the order is another record.
  """

  def __init__(self, base: EmojiSource, pairs: int, orders: str):
    self._base, self._pairs, self._both = base, pairs, orders == "both"
    self._spoken = "audio" in base.info.keys
    forms = FORMS if self._both else ("one",)
    self.info = dataclasses.replace(
      base.info,
      name="emoji_order",
      styles=() if self._spoken else forms,
      keys={"audio": forms} if self._spoken else {},
      caption_fields=forms,
      tag_names=(),
      label_names={},
      concepts=(),
      languages=(),
    )

  def __len__(self) -> int:
    return len(self._base) * self._pairs * (1 if self._both else 2)

  def __getitem__(self, index: int) -> Record:
    if not 0 <= index < len(self):
      raise IndexError(index)
    pair, backwards = (index, 0) if self._both else divmod(index, 2)
    first = self._base[pair % len(self._base)]
    second = self._base[self._partner(pair)]
    names = [_name(first), _name(second)]
    forms = FORMS if self._both else (FORMS[backwards],)
    captions = {"forward": _told(*names), "reversed": _told(*reversed(names)), "single": [names[0]]}
    make = self._sound if self._spoken else self._image
    made = {form: make(_shown(form, first, second), pair) for form in forms}
    keys = forms if self._both else ("one",)
    things = {key: made[form] for key, form in zip(keys, forms)}
    record = Record(
      images={} if self._spoken else things,
      captions={key: captions[form] for key, form in zip(keys, forms)},
      names={},
      tags=np.zeros(0, np.uint8),
      labels={},
      id=index,
      name=f"{first['name']}-{second['name']}" + ("-reversed" if backwards else ""),
      mirror_safe=False,
    )
    return {**record, "audio": things} if self._spoken else record

  def _partner(self, pair: int) -> int:
    """The second concept of a pair: another than the first, drawn without a state."""
    count = len(self._base)
    place = index_shuffle(index=pair % count, max_index=count - 1, seed=pair // count, rounds=_ROUNDS)
    return (place + 1) % count if place == pair % count else place

  def _image(self, shown: list[Record], pair: int) -> bytes:
    from PIL import Image

    strip = Image.new("RGB", (SIDE, SIDE), "white")
    width, style = SIDE // len(shown), self._base.info.styles[pair % len(self._base.info.styles)]
    for place, record in enumerate(shown):
      with Image.open(io.BytesIO(record["images"][style])) as drawing:
        frame = drawing.convert("RGBA").resize((width, width))
      strip.paste(frame, (place * width, (SIDE - width) // 2), frame)
    out = io.BytesIO()
    strip.save(out, "png")
    return out.getvalue()

  def _sound(self, shown: list[Record], pair: int) -> bytes:
    columns = self._base.info.keys["audio"]
    speaker = columns[pair % len(columns)]
    waves = []
    for record in shown:
      if speaker not in record["audio"]:
        raise BadRecord(f"{record['name']}: {speaker} says nothing")
      waves += [np.zeros(round(PAUSE * RATE), np.float32)] * bool(waves) + [decode(record["audio"][speaker], RATE)]
    return to_wav(np.concatenate(waves), RATE)


def _shown(form: str, first: Record, second: Record) -> list[Record]:
  return {"forward": [first, second], "reversed": [second, first], "single": [first]}[form]


def _name(record: Record) -> str:
  return record["captions"]["caption"][0]


def _told(first: str, second: str) -> list[str]:
  """What is said of one thing and then another."""
  return [f"{first} before {second}", f"{second} after {first}"]


def open_emoji_order(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiOrder:
  """Opens emoji_order.

  Args:
    options: of: "emoji_views" or "emoji_spoken"; pairs: how many a concept begins; orders: "both", or "one" a record.
  """
  where = "data.source"
  if path:
    raise UserError(f"data.dataset: emoji_order takes no path, not {path!r}")
  check_options(options, _OPTIONS, where)
  chosen = {**_OPTIONS, **options}
  choose(chosen["of"], ("emoji_views", "emoji_spoken"), f"{where}.of")
  choose(chosen["orders"], ("both", "one"), f"{where}.orders")
  if isinstance(chosen["pairs"], bool) or not isinstance(chosen["pairs"], int) or chosen["pairs"] < 1:
    raise UserError(f"{where}.pairs: {chosen['pairs']!r} is not a number of pairs; give 1 or more")
  sounds = SPEAKERS if chosen["of"] == "emoji_spoken" else None
  return EmojiOrder(open_built(chosen["of"], split, data_dir, sounds), chosen["pairs"], chosen["orders"])
