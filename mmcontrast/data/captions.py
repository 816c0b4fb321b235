"""Captions as they are found in the wild: cleaned, told apart, and drawn for text views."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from mmcontrast.data import transforms
from mmcontrast.data.filters import Filtered
from mmcontrast.data.record import BadRecord, Record, Source, hashed_text
from mmcontrast.errors import UserError, choose

Captions = Mapping[str, Sequence[str]]
"""Texts by field."""
ABSENT = "no caption"
"""Under which records without one are counted, with data.missing="skip"."""


def clean(text: str, most: int) -> str:
  """What every tokenizer is given of a text, wherever it comes from: training, evaluation, search and `encode_text`.

  It is cut to `most` characters; a control character is a space, several spaces are one and none is at the ends, half a
  surrogate pair is a question mark.
  """
  text = text[:most]  # first: what is cut away costs nothing
  if not text.isprintable():
    text = text.encode("utf-8", "replace").decode("utf-8")
    text = "".join(" " if unicodedata.category(letter) == "Cc" else letter for letter in text)
  return " ".join(filter(None, text.split(" ")))


def identity(captions: Captions) -> int:
  """A number in [0, 2**31) of the first caption: equal where it differs in case, width or spaces only."""
  first = next(text for texts in captions.values() for text in texts)
  normal = " ".join(unicodedata.normalize("NFKC", first).casefold().split())
  return hashed_text(normal)


def check_fields(fields: Mapping[str, float] | Sequence[str] | None, views: int, source: Source) -> None:
  """UserError unless `fields` (config.data.captions) can be had of `source` for so many text views."""
  if not fields:
    return
  for field in fields:
    choose(field, source.info.caption_fields, "data.captions")
  if isinstance(fields, Mapping):
    for field, weight in fields.items():
      if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        raise UserError(f"data.captions.{field}: {weight!r}; give a number above 0, or leave the field out")
  elif isinstance(fields, str) or len(fields) != views:
    raise UserError(
      f"data.captions: {fields!r} is not a list of {views} fields, one for each text view "
      "(data.views.text); or give weights, such as dict(alt=0.7, generated=0.3)"
    )


def of_fields(captions: Captions, fields: Mapping[str, float] | Sequence[str] | None) -> dict[str, list[str]]:
  """The captions that text views may show: those of `fields`, or all. BadRecord where a view would have none."""
  found = {field: list(texts) for field, texts in captions.items() if not fields or field in fields}
  if fields and not isinstance(fields, Mapping):
    for field in fields:
      if field not in found:
        raise BadRecord(f"no caption in field {field!r}")
  if not found:
    raise BadRecord(f"no caption in fields {', '.join(fields or ())}")
  return found


def of_record(record: Record, settings: Mapping) -> dict[str, list[str]]:
  """What text views may show of a record, by field or language; none where it lacks that and may.

  Args:
    settings: resolved config.data.
  Raises:
    BadRecord: it has no usable caption, and must.
    Filtered: a filter takes out all of them, or there is none and data.missing="skip".
  """
  most = settings["limits"]["caption_characters"]
  try:
    if languages := settings["languages"]:
      return names({key: clean(name, most) for key, name in record["names"].items()}, languages)
    found = {field: [clean(text, most) for text in texts] for field, texts in record["captions"].items()}
    found = of_fields(transforms.usable_captions(found), settings["captions"])
  except BadRecord:
    if settings["missing"] == "mask":
      return {}
    if settings["missing"] == "skip" and not languages and not any(record["captions"].values()):
      raise Filtered(ABSENT) from None  # not there is not damaged
    raise
  return passing(found, settings["filter"])


def passing(texts: Captions, filters: Mapping) -> dict[str, list[str]]:
  """The captions that pass config.data.filter, by field. Raises Filtered when none of them does."""
  shortest, longest = filters["min_caption"], filters["max_caption"] or float("inf")
  lengths = {field: [len(text.strip()) for text in found] for field, found in texts.items()}
  found = {field: [text for text, length in zip(texts[field], of) if shortest <= length <= longest]
           for field, of in lengths.items()}  # fmt: skip
  if not any(found.values()):
    short = all(length < shortest for of in lengths.values() for length in of)
    raise Filtered("min_caption" if short else "max_caption")
  return {field: of for field, of in found.items() if of}


def names(found: Mapping[str, str], languages: Sequence[str]) -> dict[str, list[str]]:
  """The names in `languages`, as captions by field. BadRecord where one is missing."""
  for language in languages:
    if not found.get(language, "").strip():
      raise BadRecord(f"no name in language {language!r}")
  return {language: [found[language]] for language in languages}


def draw(captions: Captions, fields: Mapping[str, float] | Sequence[str] | None, which: np.ndarray,
         caption: np.ndarray) -> list[str]:  # fmt: skip
  """The texts of one example's views, distinct as far as they go.

  Args:
    captions: what `of_fields` gave.
    fields: field -> weight with which a view draws it, among those the record has; or the field of
      each view; or nothing: all captions are as one field.
    which: [V] uniform numbers that choose the fields.
    caption: [V] uniform numbers that choose among the captions of a field.
  """
  if not fields:
    return transforms.choose_distinct([text for texts in captions.values() for text in texts], caption)
  if isinstance(fields, Mapping):
    names = list(captions)
    ends = np.cumsum([fields[name] for name in names])
    chosen = [names[int(np.searchsorted(ends[:-1], draw * ends[-1], side="right"))] for draw in which]
  else:
    chosen = list(fields)
  texts: dict[str, list[str]] = {}
  for name in dict.fromkeys(chosen):
    own = [view for view, other in enumerate(chosen) if other == name]
    texts[name] = transforms.choose_distinct(captions[name], caption[own])
  return [texts[name].pop(0) for name in chosen]


def swapped(text: str, draws: np.ndarray) -> str:
  """A text of which two words change places, once for every two uniform numbers; one of a single word stays."""
  words = text.split()
  for first, second in draws.reshape(-1, 2) if len(words) > 1 else ():
    one = int(first * len(words))
    other = (one + 1 + int(second * (len(words) - 1))) % len(words)
    words[one], words[other] = words[other], words[one]
  return " ".join(words) if len(draws) else text
