"""What one value of a row says: text, a number, an id, or nothing. All sources read their values by this.

Other programs write "nothing" in many ways (null, NaN, an empty cell) and whole numbers as 7.0 where a column holds
a NaN too. Here a value is missing, or one text, whichever program wrote it.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
import unicodedata
from typing import Any

import numpy as np

from mmcontrast.data.record import BadRecord, hashed_text, id_of_row, id_of_text

_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0+")
_ROUND_A_NAME = re.compile(r"\A[\s\u200b\u2060\ufeff]+|[\s\u200b\u2060\ufeff]+\Z")
_NOT_WRITTEN = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_MOST_IDS = 2**31


def _stripped(text: str) -> str:
  """Without the white space round it, nor characters of no width there (a byte order mark, those of web pages)."""
  return text.strip() if text.isascii() else _ROUND_A_NAME.sub("", text)


def is_missing(value: Any) -> bool:
  """Whether a value is none: None, not a number (NaN, NaT), or text of nothing but white space."""
  if value is None:
    return True
  if isinstance(value, np.ndarray) and not value.ndim:
    value = value.item()
  if isinstance(value, (str, bytes)):
    return not (_stripped(value) if isinstance(value, str) else value.strip())
  if isinstance(value, decimal.Decimal):
    return value.is_nan()
  try:
    return not isinstance(value, (list, tuple, dict, np.ndarray)) and bool(value != value)  # pandas' NaT too
  except (TypeError, ValueError):  # pandas.NA is neither
    return type(value).__name__ == "NAType"


def text_of(value: Any, column: str) -> str:
  """The text of a value that is not missing; of a time as ISO 8601 writes it.

  Raises BadRecord for what is neither text nor a number, infinity among it.
  """
  if isinstance(value, bytes):
    try:
      return value.decode()
    except UnicodeDecodeError as error:
      raise BadRecord(f"column {column!r} is not UTF-8 ({error.reason} at byte {error.start})") from None
  if isinstance(value, str):
    return value
  if isinstance(value, (float, np.floating, decimal.Decimal)):
    if not math.isfinite(value):
      raise BadRecord(f"column {column!r} is {value}, which is neither text nor a finite number")
    return str(value)
  if isinstance(value, (int, np.integer, np.bool_)):
    return str(value)
  if isinstance(value, (datetime.date, datetime.time)):
    return value.isoformat()
  raise BadRecord(f"column {column!r} is a {type(value).__name__}, not text")


def listed(value: Any) -> list[Any]:
  """The values of a list of them, or the one value."""
  if isinstance(value, np.ndarray):
    value = value.tolist()  # of an array without dimensions the one value
  return list(value) if isinstance(value, (list, tuple)) else [value]


def texts_of(value: Any, column: str) -> list[str]:
  """The texts of one value or a list of them, without those that are missing; one of white space is a text, and bad."""
  return [text_of(one, column) for one in listed(value) if isinstance(one, (str, bytes)) or not is_missing(one)]


def name_of(value: Any, column: str) -> str:
  """A text that is compared with others, of a class, a tag or an id: "cat" of " cat", "7" of "7.0"."""
  text = _stripped(text_of(value, column))
  if isinstance(value, (float, np.floating)) and value == int(value):
    return str(int(value))
  if not text.isascii():
    return unicodedata.normalize("NFC", text)  # some systems write an accent as a character of its own
  whole = _WHOLE.fullmatch(text)
  return text if not whole else "0" if whole[1] == "-0" else whole[1]


def number_of(text: str) -> int | None:
  """The number that a text of at most ten digits writes: Python refuses to read thousands of them."""
  return int(text) if text.isascii() and text.isdecimal() and len(text) <= 10 else None


def number_first(text: str) -> tuple[int, int, str]:
  """A key of sorting: "2" before "10", and numbers before words."""
  number = number_of(text)
  return (1, 0, text) if number is None else (0, number, text)


def vocabulary(names: set[str]) -> tuple[str, ...]:
  """Names in order. Infinity among numbers is none of them: a program wrote it for what is no number."""
  words = {name for name in names if number_of(name) is None}
  if len(words) < len(names) and all(map(_NOT_WRITTEN.fullmatch, words)):
    names = names - words
  return tuple(sorted(names, key=number_first))


def id_of(value: Any, column: str, row: int) -> int:
  """The id that a value gives: a whole number below 2^31 itself, any other text by a hash; of none, that of the row.

  The three kinds share no number, see record.py.
  """
  if is_missing(value):
    return id_of_row(row)
  text = name_of(value, column)
  number = _own_number(text)
  return id_of_text(text) if number is None else number


def place_of(value: Any, column: str, row: int) -> int:
  """A number from 0 on that is the same for equal ids: what splits go by. It needs not differ where ids do."""
  if is_missing(value):
    return row
  text = name_of(value, column)
  number = _own_number(text)
  return hashed_text(text) if number is None else number


def _own_number(text: str) -> int | None:
  number = number_of(text)
  return number if number is not None and number < _MOST_IDS and str(number) == text else None
