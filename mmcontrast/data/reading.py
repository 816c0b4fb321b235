"""Reading records: decoded, kept in memory where they fit, and replaced where they cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from mmcontrast.data import transforms
from mmcontrast.data.images import decode
from mmcontrast.data.sources import BadRecord, Record, Source
from mmcontrast.errors import UserError

_CACHE_BYTES = 512 * 2**20


class Reader:
  """Records by index, captions checked and images decoded.

  A record that cannot be used is replaced by the next index that can, and counted. When
  more than `max_share` of the source's records turn out bad, UserError names the last one.
  """

  def __init__(self, source: Source, settings: Mapping):
    self._source, self._settings = source, settings
    self._most_bad = settings["on_error"]["max_share"] * len(source)
    self._bad: dict[int, str] = {}
    self._cache: dict[int, tuple[Record, dict]] = {}
    self._caching = settings["cache"] == "decoded"
    self._lock = threading.Lock()
    if settings["cache"] == "auto":
      images = self._read(0)[1] if len(source) else {}
      each = sum(image.nbytes for image in images.values())
      self._caching = each * len(source) <= _CACHE_BYTES

  def usable(self, index: int) -> tuple[int, Record, dict]:
    """The first usable example from `index` on: (its index, record, drawings by style)."""
    for place in range(index, index + len(self._source)):
      place %= len(self._source)
      if place in self._bad:
        continue
      try:
        return place, *self._read(place)
      except BadRecord as error:
        self._note_bad(place, str(error))
    raise UserError(f"dataset {self._source.info.name}: no usable record")

  def _note_bad(self, index: int, reason: str) -> None:
    with self._lock:
      self._bad[index] = reason
      count = len(self._bad)
    if count > self._most_bad:
      share = self._settings["on_error"]["max_share"]
      raise UserError(
        f"dataset {self._source.info.name}, record {index}: {reason}; {count} of "
        f"{len(self._source)} records are bad, more than data.on_error.max_share={share:g}: "
        "mend the data or raise it"
      )

  def _read(self, index: int) -> tuple[Record, dict]:
    """The record and its decoded drawings; raises BadRecord, naming the record."""
    if index in self._cache:
      return self._cache[index]
    name = ""
    try:
      record = self._source[index]
      name = record["name"]
      images = {}
      if self._settings["views"]["text"]:
        record = {**record, "captions": transforms.usable_captions(record["captions"])}
        for language in self._settings["languages"]:
          if not record["names"][language].strip():
            raise BadRecord(f"no name in language {language!r}")
      if self._settings["views"]["image"]:
        if not record["images"]:
          raise BadRecord("no image")
        for style, data in record["images"].items():
          image = decode(data, self._settings["limits"], exact=False)
          images[style] = transforms.trim(image) if self._settings["trim"] else image
    except (BadRecord, OSError) as error:
      raise BadRecord(f"{name}: {error}" if name else str(error)) from None
    result = {**record, "images": {}}, images
    if self._caching:
      self._cache[index] = result
    return result

  @property
  def bad(self) -> dict[int, str]:
    """Index -> reason of the bad records met so far, those read ahead included."""
    return dict(self._bad)
