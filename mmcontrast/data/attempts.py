"""Reads that fail or hang: tried again with backoff, given up after a time, without holding up the run."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Mapping, Sequence
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
    return self.ahead([function])[0]()

  def ahead(self, functions: Sequence[Callable[[], Found]]) -> list[Callable[[], Found]]:
    """Begins to call `functions`, one after another in one thread; item k() is `self(functions[k])`, to be asked once.

    While the caller works on one result the next are read, and seldom waited for.
    """
    result = self._first(functions)
    return [functools.partial(self._tried, function, functools.partial(result, place))
            for place, function in enumerate(functions)]  # fmt: skip

  def close(self) -> None:
    """Ends the threads, those that hang as soon as they can, and the waiting of those who call."""
    self._closed.set()
    with self._lock:
      for answers in self._waiting:
        answers.put(None)
      for _ in range(self._threads):
        self._jobs.put(None)

  def _tried(self, function: Callable[[], Found], result: Callable[[], Found]) -> Found:
    """`result()`, of the first attempt, or that of another."""
    for attempt in range(self._retries + 1):
      try:
        return result()
      except OSError as error:
        if attempt == self._retries or isinstance(error, _LASTING) or self._closed.is_set():
          raise
      self._closed.wait(self._backoff * 2**attempt)
      with self._lock:
        self.repeated += 1
      result = functools.partial(self._first([function]), 0)
    raise AssertionError("unreachable")

  def _first(self, functions: Sequence[Callable[[], Found]]) -> Callable[[int], Found]:
    """Begins to call `functions`; the function returned gives, or raises, the result of one by its place."""
    answers, arrived = self._hand_over(functions), []

    def result(place: int) -> Found:
      nonlocal answers
      while len(arrived) <= place:
        answers = answers or self._hand_over(functions[len(arrived) :])
        answer = self._next(answers)
        if answer is None:
          answers, answer = None, (None, TimeoutError(f"no answer within {self._timeout:g} seconds"))
        arrived.append(answer)
      (found, error), arrived[place] = arrived[place], None  # kept no longer than it is needed
      if error is not None:
        raise error
      return found

    return result

  def _hand_over(self, functions: Sequence[Callable]) -> queue.SimpleQueue:
    """A thread calls `functions`; answers come in order: (what it returned, None) or (None, what it raised)."""
    answers: queue.SimpleQueue = queue.SimpleQueue()
    with self._lock:
      if self._closed.is_set():
        raise Closed
      if self._hung >= _MOST_HUNG:
        raise UserError(
          f"{self._hung} reads hang for more than data.on_error.timeout_seconds={self._timeout:g}: "
          "is the storage there?"
        )
      self._waiting.add(answers)
      if self._idle:
        self._idle -= 1
      else:
        self._threads += 1
        threading.Thread(target=self._work, name="read", daemon=True).start()
    self._jobs.put((functions, answers))
    return answers

  def _next(self, answers: queue.SimpleQueue) -> tuple[Any, BaseException | None] | None:
    """The next answer; None when its read hangs, and the thread with all that it has yet to do is given up."""
    with contextlib.suppress(queue.Empty):
      answer = answers.get(timeout=self._timeout)
      if answer is None:
        raise Closed
      return answer
    with self._lock:
      if answers in self._waiting:  # else the answer came just now; late all the same
        self._waiting.discard(answers)
        self._hung += 1
    return None

  def _work(self) -> None:
    while (job := self._jobs.get()) is not None:
      functions, answers = job
      for place, function in enumerate(functions, start=1):
        found: Any = None
        error: BaseException | None = None
        try:
          found = function()
        except BaseException as raised:  # of any kind: it belongs to the caller
          error = raised
        with self._lock:
          if answers not in self._waiting:  # given up: another thread has taken this one's place
            self._hung -= 1
            self._threads -= 1
            return
          if place == len(functions):
            self._waiting.discard(answers)
            self._idle += 1
        answers.put((found, error))
        if self._closed.is_set():
          break
