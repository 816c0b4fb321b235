"""One training at a time in a folder.

    with run_lock.held(workdir):
      ...  # train

The lock is of the operating system's (flock), on a file in the folder: it ends with the process that holds it, however
that ends, and so never outlives a crash. Whoever only reads the folder needs none.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from mmcontrast.errors import UserError
from mmcontrast.parallel import distributed

NAME = ".training"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system that has none


@contextlib.contextmanager
def held(workdir: pathlib.Path) -> Iterator[None]:
  """Within it, no other training writes into the folder `workdir`, which is there.

  Of the processes of one run the first holds the lock for all of them.
  Raises UserError, in all of them, when another training holds it: which process, where and since when. On a file
  system without locks there is none, and a line says so.
  """
  file = _take(workdir / NAME) if distributed.is_first() else None
  if not distributed.first_says(file is not None):
    raise UserError(
      f"{workdir}: another training writes into this folder{_holder(workdir / NAME)}; wait until it "
      "ends, stop it, or give another --workdir"
    )
  try:
    yield
  finally:
    if file is not None:
      (workdir / NAME).unlink(missing_ok=True)  # before the lock ends: whoever opened it meanwhile looks again
      os.close(file)


def _take(path: pathlib.Path) -> int | None:
  """The locked file; None when another process holds it."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      os.close(file)
      return None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        os.close(file)
        raise
      print(
        f"{path.parent}: its file system has no locks ({error.strerror}), so a second training here would not be "
        "noticed"
      )
      return file
    with contextlib.suppress(FileNotFoundError):
      if os.path.sameopenfile(file, again := os.open(path, os.O_RDONLY)):
        os.close(again)
        break
      os.close(again)
    os.close(file)  # its holder removed it in the meantime: another file is the lock now
  who = {
    "pid": os.getpid(),
    "host": socket.gethostname(),
    "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
  }
  os.truncate(file, 0)
  os.write(file, json.dumps(who).encode())
  return file


def _holder(path: pathlib.Path) -> str:
  """Words about who holds the lock at `path`; none when that cannot be read."""
  try:
    who = json.loads(path.read_text())
    return f" (process {who['pid']} on {who['host']}, since {who['since']})"
  except (OSError, ValueError, KeyError, TypeError):
    return ""
