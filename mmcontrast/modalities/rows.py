"""Things that are rows of numbers, such as the samples of a signal or the points of a cloud: stored, checked, taken."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from mmcontrast.data.record import BadRecord
from mmcontrast.errors import UserError, one_line
from mmcontrast.modalities.use import InUse, as_list, is_array

NPY = b"\x93NUMPY"
_LARGEST = float(np.finfo(np.float32).max)
_APART = 10_000


class RowsInUse(InUse):
  """Raw: the bytes of a .npy file of numbers [n, columns], or [n] of one column. Value: float32 [n, columns].

  From outside: a path, the bytes of a file, or an array; opened, the bytes of a file.

  Attributes:
    row, column: what messages call one: "sample", "channel".
  """

  row: ClassVar[str]
  column: ClassVar[str]

  def raw_of(self, value: Any, column: str, row: Mapping[str, Any], options: Mapping[str, Any]) -> bytes | None:
    if not isinstance(value, list | np.ndarray):
      return None
    try:
      return to_npy(value)
    except (TypeError, ValueError, OverflowError) as error:
      raise BadRecord(f"column {column!r}: not rows of numbers: {one_line(error)}") from None

  def rows(self, raw: bytes) -> np.ndarray:
    """float32 [n, columns] of what is stored, all of them finite. Raises BadRecord."""
    return self.wide_rows(raw).astype(np.float32)

  def wide_rows(self, raw: bytes) -> np.ndarray:
    """The same; float64 where float32 would round away what tells them apart. Raises BadRecord."""
    return self.checked_rows(_loaded(raw))

  def checked_rows(self, found: np.ndarray) -> np.ndarray:
    """The same of an array. Raises BadRecord."""
    if found.dtype.kind not in "fiu":
      raise BadRecord(f"values of {found.dtype} in place of numbers")
    if found.ndim not in (1, 2):
      raise BadRecord(f"numbers of shape {found.shape} in place of ({self.row}s, {self.column}s)")
    if not found.size:
      raise BadRecord(f"{self.a} without a {self.row}")
    as_is = found.dtype.kind == "f" and found.dtype.itemsize <= 4
    found = found.astype(np.float32 if as_is else np.float64).reshape(len(found), -1)
    for bad, what in ((~np.isfinite(found), "not finite"), (np.abs(found) > _LARGEST, "more than float32 holds")):
      if bad.any():
        at, of = np.argwhere(bad)[0]
        raise BadRecord(f"{int(bad.sum())} numbers are {what}, the first at {self.row} {at}, {self.column} {of}: "
                        f"{found[at, of]}")  # fmt: skip
    return _narrowed(found)

  def many(self, things: Any, where: str) -> list:
    if is_array(things):
      return list(np.asarray(things)) if things.ndim == 3 else [things]
    return [things] if self.takes(things) else as_list(things, where, f"not {self.a}", self.taken)

  def takes(self, thing: Any) -> bool:
    return (is_array(thing) and thing.ndim in (1, 2)) or super().takes(thing)

  def file_of(self, thing: Any, name: str) -> bytes:
    if not is_array(thing):
      return super().file_of(thing, name)
    try:
      return to_npy(thing)
    except (TypeError, ValueError, OverflowError):
      raise UserError(f"{name}: an array of {np.asarray(thing).dtype} is not {self.a}; {self.taken}") from None

  def described(self, records: Sequence[Sequence[bytes]]) -> str:
    found = [raw for things in records for raw in things]
    if not found:
      return f"none in {len(records)} records"
    shapes, bad = [], 0
    for raw in found:
      try:
        shapes.append(self.rows(raw).shape)
      except BadRecord:
        bad += 1
    text = f"{len(found)} of {len(records)} records; {sum(map(len, found)) / len(found) / 1024:.1f} KiB each"
    if shapes:
      lengths = sorted(shape[0] for shape in shapes)
      spread = f"{lengths[0]} / {lengths[len(lengths) // 2]} / {lengths[-1]}"
      widths = " or ".join(map(str, sorted({shape[1] for shape in shapes})))
      text += f"; {widths} {self.column}s; {spread} {self.row}s (least / median / most)"
    return text + (f"; NOT READABLE {bad}" if bad else "")

  def describe(self, raw: bytes) -> str:
    try:
      count, width = self.rows(raw).shape
    except BadRecord as error:
      return f"NOT READABLE: {error}"
    return f"{count} {self.row}s of {width} {self.column}s"


def to_npy(values: Any) -> bytes:
  """A .npy file of numbers, float32 where that keeps them apart. Raises ValueError, TypeError."""
  if is_array(values) and np.asarray(values).dtype.kind not in "fiubO":
    raise TypeError(f"values of {np.asarray(values).dtype} are no numbers")
  file = io.BytesIO()
  np.save(file, _narrowed(np.asarray(values, np.float64)), allow_pickle=False)
  return file.getvalue()


def _loaded(raw: bytes) -> np.ndarray:
  if raw[: len(NPY)] != NPY:
    archive = "; of an .npz store one array as .npy" if raw[:2] == b"PK" else ""
    raise BadRecord(f"not a readable .npy file: it begins with {raw[:8]!r}{archive}" if raw else "empty file")
  try:
    return np.load(io.BytesIO(raw), allow_pickle=False)
  except Exception as error:  # a header is a Python literal: what parses, sizes and fills it fails in many ways
    raise BadRecord(f"not a readable .npy file: {one_line(error)}") from None


def _narrowed(values: np.ndarray) -> np.ndarray:
  """float32; float64 where rounding would take more than a part in _APART of what a column spans."""
  if values.dtype == np.float32 or not values.size or values.ndim > 2:
    return values.astype(np.float32)
  with np.errstate(all="ignore"):
    rounded = np.abs(values).max(0) * 2.0**-24
    spans = values.max(0) - values.min(0)
    lost = (rounded * _APART > spans) & (spans > 0)
    return values if np.any(lost) else values.astype(np.float32)
