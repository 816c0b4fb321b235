"""Answers of foreign threads to event loops that have ended are dropped; those of Python's own are not."""

import _thread
import asyncio
import queue

import pytest

from mmcontrast.runs import late_answers


def test_only_foreign_threads_are_not_told():
  late_answers.mend()
  late_answers.mend()
  loop, answers = asyncio.new_event_loop(), queue.Queue()
  loop.close()

  def tell():
    try:
      answers.put(loop.call_soon_threadsafe(print))
    except RuntimeError as error:
      answers.put(error)

  _thread.start_new_thread(tell, ())  # Python's threading does not know it, as it does not know TensorStore's
  assert answers.get(timeout=30) is None
  with pytest.raises(RuntimeError, match="Event loop is closed"):
    loop.call_soon_threadsafe(print)
