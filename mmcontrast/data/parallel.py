"""The same work on many shards by several processes, with a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

from mmcontrast.errors import UserError

Item, Result = TypeVar("Item"), TypeVar("Result")


def each(
  work: Callable[[Item], Result], items: Sequence[Item], workers: int | None, title: str
) -> Iterator[tuple[Item, Result]]:
  """(item, work(item)) as they get done; a bar on the terminal counts them.

  Args:
    work: a function of a module; what it takes and returns crosses to another process.
    workers: processes, or None for one a core. One does the work here.

  Raises:
    UserError: a process was killed.
  """
  from rich.console import Console
  from rich.progress import Progress

  workers = min(workers or os.cpu_count() or 1, len(items))
  console = Console(file=sys.stderr)
  with Progress(console=console, disable=not console.is_terminal) as bar:
    task = bar.add_task(title, total=len(items))
    for done in ((item, work(item)) for item in items) if workers <= 1 else _elsewhere(work, items, workers):
      bar.advance(task)
      yield done


def _elsewhere(work, items, workers):
  # spawn: a fork of a process with threads may hang.
  pool = futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
  jobs = {pool.submit(work, item): item for item in items}
  try:
    for job in futures.as_completed(jobs):
      yield jobs[job], job.result()
  except futures.process.BrokenProcessPool:
    raise UserError(f"one of {workers} processes was killed, perhaps for lack of memory; run the same command again: "
                    "what is done is kept (--workers 1 needs the least memory)") from None  # fmt: skip
  finally:
    pool.shutdown(cancel_futures=True)
