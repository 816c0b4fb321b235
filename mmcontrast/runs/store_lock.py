"""One training at a time in a folder of an object store, which has no locks: an object that its holder keeps renewing.

Who holds the lock writes a number into it, one higher every RENEWED seconds. Whoever finds one waits until the number
changes, and then knows that the holder is alive; after LEASE seconds without a change it takes the lock. So no clocks
are compared. Where the holder ran on this machine and is no longer there, nothing is waited for.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from mmcontrast.errors import UserError
from mmcontrast.object_stores import StorePath

RENEWED, LEASE = 15.0, 60.0  # seconds
_LOOKS = 1.0  # seconds between two looks at another's lock


class Lease:
  """The lock, from `take` on, renewed in the background until `release`."""

  def __init__(self, path: StorePath, content: dict[str, Any]):
    self._path, self._content, self._taken_by = path, content, None
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._renew, name="lock of the run", daemon=True)
    self._thread.start()

  def check(self) -> None:
    """Raises UserError where another training has taken the lock, since this one was not heard of for so long."""
    if self._taken_by is not None:
      raise UserError(
        f"{self._path.parent}: another training{words(self._taken_by)} took over, since this one could not renew its "
        f"lock for {LEASE:g} seconds; it goes on, this one ends"
      )

  def release(self) -> None:
    """Removes the lock, unless it is another's by now."""
    self._ended.set()
    self._thread.join()
    with contextlib.suppress(OSError):
      if (found := read(self._path)) and found.get("token") == self._content["token"]:
        self._path.unlink(missing_ok=True)

  def _renew(self) -> None:
    while not self._ended.wait(RENEWED):
      with contextlib.suppress(OSError):  # tried again in a while
        found = read(self._path)
        if found is not None and found.get("token") != self._content["token"]:
          self._taken_by = found
          return
        self._content["renewed"] += 1
        self._path.write_bytes(json.dumps(self._content).encode())


def take(path: StorePath, since: str) -> Lease | None:
  """The lock at `path`; None when another process holds it. Waits LEASE seconds for a holder that is silent."""
  content = {
    "pid": os.getpid(),
    "host": socket.gethostname(),
    "since": since,
    "machine": _machine(),
    "token": uuid.uuid4().hex,
    "renewed": 0,
  }
  while True:
    found = read(path)
    if found is not None:
      if _lives(path, found):
        return None
      path.unlink(missing_ok=True)
    try:
      path.create(json.dumps(content).encode())
    except FileExistsError:  # another was faster
      continue
    if found is not None:
      time.sleep(_LOOKS)  # of two that took over at once, the one whose lock it is now goes on
    if (read(path) or {}).get("token") != content["token"]:
      return None
    return Lease(path, content)


def read(path: StorePath) -> Mapping[str, Any] | None:
  """What the lock at `path` says; None where there is none, {} where it cannot be understood."""
  try:
    found = json.loads(path.read_bytes())
  except FileNotFoundError:
    return None
  except ValueError:
    return {}
  return found if isinstance(found, dict) else {}


def words(content: Mapping[str, Any]) -> str:
  """Words about who holds a lock; none when it does not say."""
  try:
    return f" (process {content['pid']} on {content['host']}, since {content['since']})"
  except KeyError:
    return ""


def _lives(path: StorePath, found: Mapping[str, Any]) -> bool:
  """Whether the holder of a lock shows that it is alive before its time is over."""
  if found.get("machine") == _machine() and isinstance(pid := found.get("pid"), int):
    return os.path.exists(f"/proc/{pid}") if os.path.isdir("/proc/self") else True
  print(
    f"{path.parent}: locked by another training{words(found)}; waiting up to {LEASE:g} s to see whether it is alive"
  )
  end = time.monotonic() + LEASE
  while time.monotonic() < end:
    time.sleep(_LOOKS)
    now = read(path)
    if now is None:
      return False
    if now != found:
      return True
  return False


def _machine() -> str:
  """What process numbers belong to: this machine since it was started, and the container on it."""
  try:
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return uuid.uuid4().hex  # of none
