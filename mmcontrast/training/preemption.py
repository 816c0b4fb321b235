"""SIGTERM ends a run after the step under way: every process at the same step, and none in the middle of one.

    with preemption.Notice() as notice:
      for step in ...:
        ...
        if notice.reached(step):
          ...  # save
          raise Preempted(...)  # errors.py

Schedulers send SIGTERM some seconds before they take a machine away.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType

import jax
from jax.experimental import multihost_utils

from mmcontrast.errors import UserError

EXIT_CODE = "MMCONTRAST_PREEMPTED_EXIT_CODE"


def exit_code(environment: Mapping[str, str] = os.environ) -> int:
  """With which code a run ends that was asked to: 0, or what the launcher sets, to tell it from one that is done.

  Raises UserError when $MMCONTRAST_PREEMPTED_EXIT_CODE is no exit code.
  """
  code = environment.get(EXIT_CODE, "0")
  if not code.isdigit() or int(code) > 255:
    raise UserError(f"${EXIT_CODE}={code}: give a number from 0 to 255")
  return int(code)


class Notice(contextlib.AbstractContextManager):
  """Listens for SIGTERM, in place of the handler that was there before, which comes back afterwards.

  Of several processes, each listens by JAX, which passes the notice on and finds the step that all of
  them can still stop at. Outside the main thread, where Python allows no handlers, SIGTERM keeps its effect.
  A second SIGTERM changes nothing: the checkpoint is being written, and SIGKILL comes anyway.
  """

  def __init__(self) -> None:
    self._received, self._restored = False, None

  def __enter__(self) -> Notice:
    if not jax.distributed.is_initialized() and threading.current_thread() is threading.main_thread():
      self._restored = signal.signal(signal.SIGTERM, self._receive)
    return self

  def __exit__(self, *_: object) -> None:
    if self._restored is not None:
      signal.signal(signal.SIGTERM, self._restored)

  def reached(self, step: int) -> bool:
    """Whether the run ends after `step`; call it after each step, in every process."""
    if jax.distributed.is_initialized():
      self._received |= multihost_utils.reached_preemption_sync_point(step)  # True once, in all of them
    return self._received

  def _receive(self, number: int, frame: FrameType | None) -> None:
    del number, frame
    self._received = True
