"""Reads that fail or hang: tried again with backoff, given up after a time, without holding up the run."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mmcontrast.errors import UserError

Found = TypeVar("Found")
_LASTING = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)  # it will not mend in seconds
_MOST_HUNG = 64


class Closed(Exception):
  """The reading was ended."""


class Attempts:
  """Calls functions that read, each in a thread that may be given up.

  A thread cannot be stopped: one whose read hangs is left to itself and ends when its read does. With more than 64 of
  them at once the storage is taken to be gone.

  Args:
    settings: `retries` of a read that fails (OSError) or hangs, `backoff_seconds` before the first of
      them, twice as many before each other, and `timeout_seconds` after which a read counts as hung.
  """

  def __init__(self, settings: Mapping[str, float]):
    self._retries, self._backoff = settings["retries"], settings["backoff_seconds"]
    self._timeout = settings["timeout_seconds"]
    self.repeated = 0  # attempts after the first
    self._jobs: queue.SimpleQueue = queue.SimpleQueue()
    self._waiting: set[queue.SimpleQueue] = set()
    self._lock, self._closed = threading.Lock(), threading.Event()
    self._idle = self._hung = self._threads = 0

  def __call__(self, function: Callable[[], Found]) -> Found:
    """What `function` returns.

    Raises what it raises, OSError after the last retry; TimeoutError (an OSError) when it hangs;
    UserError when too many reads hang.
    """
    for attempt in range(self._retries + 1):
      try:
        return self._once(function)
      except OSError as error:
        if attempt == self._retries or isinstance(error, _LASTING) or self._closed.is_set():
          raise
      self._closed.wait(self._backoff * 2**attempt)
      with self._lock:
        self.repeated += 1
    raise AssertionError("unreachable")

  def close(self) -> None:
    """Ends the threads, those that hang as soon as they can, and the waiting of those who call."""
    self._closed.set()
    with self._lock:
      for answer in self._waiting:
        answer.put((None, Closed()))
      for _ in range(self._threads):
        self._jobs.put(None)

  def _once(self, function: Callable[[], Found]) -> Found:
    answer: queue.SimpleQueue = queue.SimpleQueue()
    with self._lock:
      if self._closed.is_set():
        raise Closed
      if self._hung >= _MOST_HUNG:
        raise UserError(f"{self._hung} reads hang for more than data.on_error.timeout_seconds={self._timeout:g}: "
                        "is the storage there?")
      self._waiting.add(answer)
      if self._idle:
        self._idle -= 1
      else:
        self._threads += 1
        threading.Thread(target=self._work, name="read", daemon=True).start()
    self._jobs.put((function, answer))
    with contextlib.suppress(queue.Empty):
      found, error = answer.get(timeout=self._timeout)
      if error is not None:
        raise error
      return found
    with self._lock:
      if answer in self._waiting:  # else the answer came just now; late all the same
        self._waiting.discard(answer)
        self._hung += 1
    raise TimeoutError(f"no answer within {self._timeout:g} seconds")

  def _work(self) -> None:
    while (job := self._jobs.get()) is not None:
      function, answer = job
      found: Any = None
      error: BaseException | None = None
      try:
        found = function()
      except BaseException as raised:  # of any kind: it belongs to the caller
        error = raised
      with self._lock:
        if answer not in self._waiting:  # given up: another thread has taken this one's place
          self._hung -= 1
          self._threads -= 1
          return
        self._waiting.discard(answer)
        self._idle += 1
      answer.put((found, error))
