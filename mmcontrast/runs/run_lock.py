"""One training at a time in a folder.

    with run_lock.held(workdir):
      ...  # train

The lock is of the operating system's (flock), on a file in the folder: it ends with the process that holds it, however
that ends, and so never outlives a crash. An object store has no such locks: store_lock.py. Whoever only reads the
folder needs none.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from mmcontrast import folders
from mmcontrast.errors import UserError
from mmcontrast.parallel import distributed

NAME = ".training"


@contextlib.contextmanager
def held(workdir: folders.Folder) -> Iterator[Callable[[], None]]:
  """Within it, no other training writes into the folder `workdir`, which is there.

  Gives a function that raises UserError where the lock was lost, which only an object store's can be.
  Of the processes of one run the first holds the lock for all of them.
  Raises UserError, in all of them, when another training holds it: which process, where and since when. On a file
  system without locks there is none, and a line says so.
  """
  path, take = workdir / NAME, _in_store if folders.is_store(workdir) else _of_the_system
  lock = take(path) if distributed.is_first() else None
  if not distributed.first_says(lock is not None):
    raise UserError(
      f"{workdir}: another training writes into this folder{_holder(path)}; wait until it "
      "ends, stop it, or give another --workdir"
    )
  try:
    yield lock.check if lock is not None else _nothing
  finally:
    if lock is not None:
      lock.release()


class _Lock(Protocol):
  def check(self) -> None:
    """Raises UserError when it is another's by now."""

  def release(self) -> None:
    """Ends it."""


class _FileLock(NamedTuple):
  """A file at `path`, open and locked as `file`."""

  path: pathlib.Path
  file: int

  def check(self) -> None:
    """It is held as long as this process lives."""

  def release(self) -> None:
    folders.unlock(self.path, self.file)


def _nothing() -> None:
  pass


def _in_store(path: folders.Folder) -> _Lock | None:
  from mmcontrast.runs import store_lock

  return store_lock.take(path, _now())


def _of_the_system(path: pathlib.Path) -> _Lock | None:
  """The locked file; None when another process holds it."""
  try:
    file = folders.locked(path)
  except OSError as error:
    if error.errno not in folders.NO_LOCKS:
      raise
    print(
      f"{path.parent}: its file system has no locks ({error.strerror}), so a second training here would not be noticed"
    )
    return _FileLock(path, os.open(path, os.O_RDWR | os.O_CREAT, 0o666))
  if file is None:
    return None
  who = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
  os.truncate(file, 0)
  os.write(file, json.dumps(who).encode())
  return _FileLock(path, file)


def _now() -> str:
  return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _holder(path: folders.Folder) -> str:
  """Words about who holds the lock at `path`; none when that cannot be read."""
  try:
    who = json.loads(path.read_text())
    return f" (process {who['pid']} on {who['host']}, since {who['since']})"
  except (OSError, ValueError, KeyError, TypeError):
    return ""
