"""Texts in use: strings in, what evaluation shows, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmcontrast.data.captions import clean
from mmcontrast.data.cut_captions import line_of_set
from mmcontrast.data.record import Info
from mmcontrast.errors import UserError
from mmcontrast.modalities.real_tokens import real_tokens
from mmcontrast.modalities.use import InUse, Shown, as_list, shown

_LENGTHS = 8  # Texts are cut to a multiple of it: one program each.


class TextInUse(InUse):
  """Raw, value and a thing from outside: a string. The key of a caption is its field."""

  name, a, nouns, asked = "text", "a caption", "captions", "words"
  field, key, words, pictured = "captions", "field", True, False
  taken = "give a str or a list of them"

  def columns(self, info: Info) -> Sequence[str]:
    return info.caption_fields

  def values(self, record: Mapping, settings: Mapping | None = None) -> list[tuple[str, str]]:
    found = [(field, text) for field, texts in record["captions"].items() for text in texts]
    if settings is None:
      return found
    most = settings["limits"]["caption_characters"]
    return [(field, text) for field, raw in found if (text := clean(raw, most)).strip()]

  def of_view(self, record: Mapping, settings: Mapping, view: int, style: str | None = None) -> tuple[str, str] | None:
    """In its language or field, else one caption after the other."""
    languages, fields = settings["languages"], settings["captions"]
    if languages:
      found = [(languages[view], record["names"].get(languages[view], ""))]
    elif fields and not isinstance(fields, Mapping):
      found = [(fields[view], text) for text in record["captions"].get(fields[view], [])]
    else:
      every = [(f, text) for f, texts in record["captions"].items() if not fields or f in fields for text in texts]
      every = [pair for pair in every if pair[1].strip()]
      found = every[view % len(every) :] if every else []
    most = settings["limits"]["caption_characters"]
    return next(((field, clean(text, most)) for field, text in found if text.strip()), None)

  def lacks(self, info: Info, settings: Mapping, view: int) -> str:
    if languages := settings["languages"]:
      return "" if languages[view] in info.languages else f"names in {languages[view]!r}"
    return super().lacks(info, settings, view)

  def evaluation_view(self, raw: str, settings: Mapping) -> str:
    return raw

  def many(self, things: Any, where: str) -> list[str]:
    if isinstance(things, str):
      return [things]
    if isinstance(things, bytes | bytearray):
      raise UserError(f"{where}: {shown(things)} is bytes, not text; decode it: {self.taken}")
    if isinstance(things, np.ndarray) and things.ndim == 0:
      things = [things.item()]
    many = as_list(things, where, "not a text", self.taken)
    for number, text in enumerate(many):
      if not isinstance(text, str):
        raise UserError(f"{where}: {shown(text)} is not a text, number {number} of {len(many)}; {self.taken}")
    return many

  def takes(self, thing: Any) -> bool:
    return isinstance(thing, str)

  def opened(self, data: bytes) -> str:
    return data.decode(errors="replace")

  def checked(self, thing: Any, name: str) -> str:
    return self.many(thing, name)[0]

  def accepts(self, thing: str, settings: Mapping, name: str) -> str:
    return thing

  def batch(self, values: Sequence, settings: Mapping, tokenizer: Any) -> np.ndarray:
    """Token ids, int32 [N, L]."""
    if isinstance(values, np.ndarray):
      return values
    most = settings["limits"]["caption_characters"]
    return tokenizer.encode([clean(text, most) for text in values], settings["text_length"])

  def seen(self, values: Sequence, settings: Mapping, tokenizer: Any) -> np.ndarray:
    return self.batch(values, settings, tokenizer)

  def without_padding(self, batch: np.ndarray, settings: Mapping) -> np.ndarray:
    longest = int(real_tokens(batch, settings["token_ids"]["pad"], settings["token_ids"]["eos"]).sum(1).max())
    return batch[:, : max(1, -(-longest // _LENGTHS)) * _LENGTHS]

  def size(self, settings: Mapping) -> str:
    return f"texts of {settings['text_length']} tokens"

  def cut_line_of(self, name: str, values: Sequence, settings: Mapping, tokenizer: Any) -> str:
    return line_of_set(name, values, tokenizer, settings["text_length"])

  def show(self, thing: str) -> Shown:
    return Shown(words=thing)

  def described(self, records: Sequence[Sequence[str]]) -> str:
    records = [[text for text in texts if text.strip()] for texts in records]
    texts = [text for found in records for text in found]
    if not texts:
      return f"none in {len(records)} records"
    has, lengths = sum(map(bool, records)), sorted(map(len, texts))
    spread = f"{lengths[0]} / {lengths[len(lengths) // 2]} / {lengths[-1]} characters (least / median / most)"
    different = f"{len(set(texts))} of {len(texts)} different"
    return f"{has} of {len(records)} records; {len(texts) / has:.1f} each; {spread}; {different}"

  def describe(self, raw: str) -> str:
    return raw
