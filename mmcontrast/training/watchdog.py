"""A watchdog: a run that does not get on ends itself and says what it was waiting for.

    with Watchdog(600) as watchdog:
      watchdog.doing("reading batch 121")
      batch = next(batches)
      watchdog.doing("step 121")

A read that hangs and a collective that another process never joins look the same from outside: a run
without progress, which holds its machines until somebody looks. Each process watches itself, by a thread; behind it
stands faulthandler's, which needs no interpreter, for what hangs with the interpreter's lock in its hands.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax

from mmcontrast.errors import UserError

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: a failure that another attempt may fix. Launchers start again on it."""
_GRACE_SECONDS = 3.0  # beyond config.log.watchdog_seconds, before a watching thread that never gets to run is missed
PATIENCE = 10
"""How many times as long compiling, an evaluation and a checkpoint may take as a step."""


class Watchdog(contextlib.AbstractContextManager):
  """Ends the process when one thing it is `doing` takes more than `seconds`.

  It then writes to stderr which process waits on what and for how long and the stacks of all threads,
  and exits with EXIT_CODE, without waiting for anything: checkpoints are whole or not there. When the interpreter's
  lock is not given back for `seconds`, whatever the process is doing, only the stacks are written, after "Timeout",
  and it exits with 1: no code of Python's runs then.

  Args:
    seconds: config.log.watchdog_seconds; 0: never.
    leave: what ends the process, for tests.
  Raises UserError when `seconds` is negative.
  """

  def __init__(self, seconds: float, leave: Callable[[int], object] = os._exit):
    if seconds < 0:
      raise UserError(f"config.log.watchdog_seconds={seconds}: give seconds without a step, or 0 for no watchdog")
    self._seconds, self._leave = seconds, leave
    self._clock = 0.0  # seconds that this process ran, counted by the watching thread
    self._now = "starting", seconds * PATIENCE, self._clock  # replaced as one, as two threads use it
    self._ended = threading.Event()
    self._before: Any = None  # what was done at SIGTSTP
    self._who = f"process {jax.process_index()} of {jax.process_count()} on {socket.gethostname()}"

  def __enter__(self) -> Watchdog:
    if self._seconds:
      self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
      self._thread.start()
      if threading.current_thread() is threading.main_thread():
        self._before = signal.signal(signal.SIGTSTP, self._suspend)
    return self

  def __exit__(self, *_: object) -> None:
    self._ended.set()
    if self._seconds:
      self._thread.join()
      if self._before is not None:
        signal.signal(signal.SIGTSTP, self._before)

  def doing(self, what: str, patience: int = 1) -> None:
    """Says what begins now, and so that all before it is done. It may take `patience` times `seconds`."""
    self._now = what, self._seconds * patience, self._clock

  def _watch(self) -> None:
    pause = min(self._seconds / 10, 5.0)
    last = time.monotonic()
    self._expect(self._seconds + 2 * pause)
    while not self._ended.wait(pause):
      self._expect(self._seconds + 2 * pause)
      now = time.monotonic()
      # A process that was suspended, with all its threads, was not waiting.
      self._clock += min(now - last, 2 * pause)
      last = now
      what, allowed, began = self._now
      if self._clock - began > allowed:
        self._end(what, self._clock - began)
        break
    faulthandler.cancel_dump_traceback_later()

  def _expect(self, seconds: float) -> None:
    """Has faulthandler's thread end the process unless this is called again in so many seconds."""
    faulthandler.dump_traceback_later(seconds + _GRACE_SECONDS, exit=True, file=2)

  def _suspend(self, number: int, frame: FrameType | None) -> None:
    """Stops the process as its terminal or scheduler asks; the time until it goes on is nobody's fault."""
    del number, frame
    faulthandler.cancel_dump_traceback_later()  # the watching thread begins it again
    os.kill(os.getpid(), signal.SIGSTOP)

  def _end(self, what: str, seconds: float) -> None:
    # File descriptors, not sys.stderr: a thread that hangs may hold its lock.
    os.write(
      2,
      f"\nerror: {self._who} makes no progress: {what}, for {seconds:.0f} seconds "
      f"(config.log.watchdog_seconds={self._seconds:g}); its threads follow; exit {EXIT_CODE}: run the "
      "same command again to resume from the last checkpoint\n".encode(),
    )
    faulthandler.dump_traceback(2, all_threads=True)
    self._leave(EXIT_CODE)
