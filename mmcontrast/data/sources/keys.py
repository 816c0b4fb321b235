"""What tells a record from another that may take its place: to know whether what was made of it is still of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmcontrast.data.record import Record, Source


def key_of(source: Source, index: int, record: Record | None = None) -> str:
  """A text that changes when the record at `index` does.

  A source that need not read images for it has a method `key(index)`; of the others it is a digest of all that the
  record holds, `record` if it is given. Raises as `source[index]` does.
  """
  if hasattr(source, "key"):
    return source.key(index)
  return digest_of(source[index] if record is None else record)


def digest_of(value: Any) -> str:
  """16 hexadecimal digits of tables, lists, arrays, bytes, texts and numbers in each other."""
  digest = hashlib.blake2b(digest_size=8)
  _add(digest, value)
  return digest.hexdigest()


def key_of_file(path: str) -> str:
  """The path, size and time of change of a local file, whose bytes are not read; of a URL the path."""
  try:
    found = os.stat(os.path.expanduser(path))
  except (OSError, ValueError):
    return path
  return f"{path} {found.st_size} {found.st_mtime_ns}"


def _add(digest: Any, value: Any) -> None:
  if isinstance(value, Mapping):
    value = sorted(value.items())
  if isinstance(value, np.ndarray) and value.dtype == object:
    value = value.tolist()
  if isinstance(value, (list, tuple)):
    digest.update(b"[%d" % len(value))
    for one in value:
      _add(digest, one)
    return
  if isinstance(value, np.ndarray):
    value = f"{value.dtype}{value.shape}".encode() + value.tobytes()
  data = value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")
  digest.update(b"%s %d " % (type(value).__name__.encode(), len(data)))
  digest.update(data)
