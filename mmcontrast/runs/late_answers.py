"""TensorStore's threads answer event loops of Orbax that have ended.

When one array of a save cannot be written, Orbax gives up on the others and closes its loop; each of them is then a
traceback ("Event loop is closed") on the terminal, after the line that says what is wrong.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any


def mend() -> None:
  """From now on what a thread that Python did not start tells a closed loop is dropped; done again, it does nothing."""
  loop = asyncio.BaseEventLoop
  if not hasattr(loop.call_soon_threadsafe, "__wrapped__"):
    loop.call_soon_threadsafe = _dropped_when_closed(loop.call_soon_threadsafe)


def _dropped_when_closed(tell: Callable[..., Any]) -> Callable[..., Any]:
  @functools.wraps(tell)
  def dropped(self: asyncio.BaseEventLoop, *arguments: Any, **options: Any) -> Any:
    foreign = threading.current_thread().name.startswith("Dummy-")
    return None if foreign and self.is_closed() else tell(self, *arguments, **options)

  return dropped
