"""Orbax looks for files below a folder by a pattern that begins with the folder's path, unescaped.

In a path such as runs/a[1] it then finds nothing of what its processes wrote, leaves the merge of their files out
without a word, and commits a checkpoint whose arrays cannot be read (seen in 0.11 and 0.12, etils 1.14).
"""

from __future__ import annotations

import functools
import glob
import os
from collections.abc import Callable, Iterator

from etils import epath


def mend() -> None:
  """From now on a local folder's path is no pattern in this process; done again, it does nothing."""
  local = type(epath.Path("."))
  if not hasattr(local.glob, "__wrapped__"):
    local.glob = _below_a_path(local.glob)


def _below_a_path(search: Callable[..., Iterator[epath.Path]]) -> Callable[..., Iterator[epath.Path]]:
  @functools.wraps(search)
  def below(self: epath.Path, pattern: str) -> Iterator[epath.Path]:
    path = os.fspath(self)
    # Only the pattern decides when the folder's path has no character that could be one.
    return search(self, pattern) if glob.escape(path) == path else _matching(self, path, pattern)

  return below


def _matching(folder: epath.Path, path: str, pattern: str) -> Iterator[epath.Path]:
  for name in sorted(glob.glob(pattern, root_dir=path)):
    yield folder / name
