"""Reading records: tried again, decoded, kept in memory where they fit, and replaced where they cannot be used."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from mmcontrast.data import filters
from mmcontrast.data.attempts import Attempts, Closed
from mmcontrast.data.settings import shown
from mmcontrast.data.sources import BadRecord, Record, Source
from mmcontrast.errors import UserError, one_line
from mmcontrast.modalities import MODALITIES

CACHE_BYTES = 512 * 2**20
_TEXT_BYTES = 2_000  # of a record without its images, about
_ENOUGH_SEEN = 10_000  # records, before which a share of bad ones says little
_UNSEEN, _USABLE, _BAD, _FILTERED = range(4)
Reads = dict[int, Callable[[], Record]]
"""Index -> a read that has begun, and gives its record."""

AS_WANTED, FOR_BAD, FOR_FILTERED = range(3)
"""Why an example is in its place: it belongs there, or it replaces a bad record, or a filtered one."""


@dataclasses.dataclass(frozen=True)
class Found:
  """A usable example."""

  index: int
  why: int  # AS_WANTED, FOR_BAD, FOR_FILTERED
  record: Record  # without what was decoded
  values: Mapping[str, Any]  # modality -> what its views are made of (`Modality.decode`), false where it has none


class Reader:
  """Examples by index of one source: what their views show decoded, cleaned and checked.

  A record that is bad (it cannot be read or decoded, or lacks what views need) or that a filter takes
  out is replaced by the next index that is neither, the first following the last: the same one
  whoever asks and whenever.

  The run stops with a UserError that names the last one when more than `on_error.max_share` of the
  records are bad: of those seen so far, at least 10,000 of them or the whole source.

  Args:
    source: read by `attempts`.
    settings: resolved config.data.
    cache_bytes: of decoded values that cache="auto" may keep.
  """

  def __init__(self, source: Source, settings: Mapping, attempts: Attempts, cache_bytes: int = CACHE_BYTES):
    self._source, self._settings, self._attempts = source, settings, attempts
    self._modalities = shown(settings)
    # What costs little comes first, which may spare what costs more.
    self._in_order = sorted(self._modalities.items(), key=lambda item: not item[1].light)
    self._state = np.zeros(len(source), np.uint8)
    self._lock = threading.Lock()
    self.bad: dict[int, str] = {}  # index -> reason, of those met so far, those read ahead included
    self.filtered: collections.Counter[str] = collections.Counter()  # name of a filter -> records it took
    self.usable_seen = 0
    self._cache: dict[int, tuple[Record, Mapping[str, Any]]] = {}
    self._caching = settings["cache"] == "decoded"
    if settings["cache"] == "auto":
      heavy = any(not modality.light for modality in self._modalities.values())
      values = self.usable(0).values if heavy else {}
      sizes = [self._modalities[name].nbytes(value) for name, value in values.items() if value is not None]
      each = _TEXT_BYTES + sum(sizes)
      self._caching = each * len(source) <= cache_bytes

  def ahead(self, indices: Iterable[int]) -> Reads:
    """Begins to read what `indices` will need; for `usable`."""
    needed = [index for index in dict.fromkeys(indices)
              if index not in self._cache and self._state[index] in (_UNSEEN, _USABLE)]  # fmt: skip
    reads = [functools.partial(self._source.__getitem__, index) for index in needed]
    return dict(zip(needed, self._attempts.ahead(reads))) if reads else {}

  def usable(self, index: int, reads: Reads | None = None) -> Found:
    """The first usable example from `index` on. Raises UserError when there is none, or too many are bad.

    Args:
      reads: begun already; those that are used are taken out.
    """
    reads = {} if reads is None else reads
    why = AS_WANTED
    for place in range(index, index + len(self._source)):
      place %= len(self._source)
      if self._state[place] in (_UNSEEN, _USABLE):
        try:
          record, values = self._read(place, reads)
          self._note(place, _USABLE)
          return Found(place, why, record, values)
        except BadRecord as error:
          self._note(place, _BAD, str(error))
        except filters.Filtered as error:
          self._note(place, _FILTERED, str(error))
      if why == AS_WANTED:
        why = FOR_BAD if self._state[place] == _BAD else FOR_FILTERED
    raise self._nothing_left()

  def after(self, index: int, reason: str) -> Found:
    """The first usable example after one that is read well and of which these views cannot be made.

    Others of it may be: so it is counted as bad, and asked again the next time. Whether it is replaced is so a function
    of the example and its numbers, as all else, and not of what was read before. Raises as `usable`.
    """
    with self._lock:
      self.bad.setdefault(index, reason)
      bad, seen = len(self.bad), self.seen
    self._check_share(index, reason, bad, seen)
    found = self.usable((index + 1) % len(self._source))
    if found.index == index:
      raise self._nothing_left()
    return dataclasses.replace(found, why=FOR_BAD)

  def _check_share(self, index: int, reason: str, bad: int, seen: int) -> None:
    """Raises UserError where more of the records seen are bad than may be."""
    whole, share = len(self._source), self._settings["on_error"]["max_share"]
    enough = min(whole, _ENOUGH_SEEN)
    if bad > share * max(seen, enough):
      of = whole if enough == whole else f"the {seen} seen of {whole}"
      raise UserError(f"dataset {self._source.info.name}, record {index}: {reason}; {bad} of {of} records are bad, "
                      f"more than data.on_error.max_share={share:g}: fix the data or raise it")  # fmt: skip

  def _note(self, index: int, state: int, reason: str = "") -> None:
    with self._lock:
      if self._state[index] in (state, _BAD, _FILTERED):  # what is out stays out, whoever else was reading it
        return
      # A record that was read before, and fails now, is no longer usable.
      self.usable_seen += int(state == _USABLE) - int(self._state[index] == _USABLE)
      self._state[index] = state
      if state == _BAD:
        self.bad[index] = reason
      elif state == _FILTERED:
        self.filtered[reason] += 1
      bad, seen = len(self.bad), self.seen
    if state == _BAD:
      self._check_share(index, reason, bad, seen)
    enough = min(len(self._source), _ENOUGH_SEEN)
    if not self.usable_seen and seen >= enough:
      raise self._nothing_left()

  @property
  def seen(self) -> int:
    """Different records met so far: usable, bad or filtered."""
    return self.usable_seen + len(self.bad) + self.filtered.total()

  def _nothing_left(self) -> UserError:
    took = ", ".join(f"{name} {count}" for name, count in self.filtered.most_common())
    absent = {modality.absent: modality.source_option for modality in MODALITIES.values()}
    todo = [f"; {name}: does data.source.{key} name where they are?" for name, key in absent.items()
            if self.filtered[name]]  # fmt: skip
    todo += ["; loosen data.filter"] if self.filtered.keys() - absent.keys() else []
    return UserError(f"dataset {self._source.info.name}: no usable record among the first {self.seen} of "
                     f"{len(self._source)}: {len(self.bad)} bad, {self.filtered.total()} filtered"
                     + (f" ({took}){''.join(todo)}" if took else ""))  # fmt: skip

  def _read(self, index: int, reads: Reads) -> tuple[Record, Mapping[str, Any]]:
    """The record and its decoded values; raises BadRecord, naming the record, or Filtered."""
    if index in self._cache:
      return self._cache[index]
    name = ""
    try:
      begun = reads.pop(index, None)
      record = begun() if begun else self._attempts(lambda: self._source[index])
      name = record["name"]
      result = self._prepared(record)
    except (BadRecord, OSError) as error:
      raise BadRecord(f"{name}: {error}" if name else str(error)) from None
    except (UserError, Closed, filters.Filtered):
      raise
    except Exception as error:
      raise UserError(
        f"dataset {self._source.info.name}, record {index}{f' ({name})' if name else ''}: "
        f"{type(error).__name__}: {one_line(error)}; the source failed in an unexpected way"
      ) from error
    if self._caching:
      self._cache[index] = result
    return result

  def _prepared(self, record: Record) -> tuple[Record, Mapping[str, Any]]:
    missing = self._settings["missing"]
    for modality in self._modalities.values() if missing != "mask" else ():
      if not modality.has(record, self._settings):
        # Not there is not damaged: downloaders leave such samples behind by the thousand.
        raise filters.Filtered(modality.absent) if missing == "skip" else BadRecord(modality.absent)
    values = {name: modality.decode(record, self._settings) for name, modality in self._in_order}
    if not any(map(_is_there, values.values())):
      raise BadRecord("nothing that the views need")
    return {**record, **{modality.field: {} for modality in self._modalities.values()}}, values


def _is_there(value: Any) -> bool:
  return value is not None and len(value) > 0
