"""`mmcontrast demo --workdir RUN`: a page on this machine that searches by words, pictures and sounds."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mmcontrast.demo.answers import Demo, opened
from mmcontrast.demo.server import Server

__all__ = ["PORT", "Demo", "Server", "demo", "opened"]

PORT = 7860


def demo(
  workdir: str | os.PathLike,
  source: str | None = None,
  *,
  options: Mapping | None = None,
  split: str | None = None,
  dataset: str | None = None,
  embeddings: str | os.PathLike | None = None,
  port: int = PORT,
  step: int | None = None,
  data_dir: str | os.PathLike | None = None,
) -> None:
  """Serves the page at http://127.0.0.1:PORT/ until it is interrupted.

  Args:
    workdir: the run. source, options, split, dataset, embeddings: what is searched, as of `search`; by default the last
      evaluation set of the run.
    port: 0: any that is free; the line that is printed says which.
    step: the checkpoint of this step instead of the newest.
  Raises UserError: a port in use, no such run or set, a run that has no single vectors, nothing to search.
  """
  server = Server(port)  # before the model: a port in use is said at once
  with server:
    made = opened(
      workdir,
      source,
      options=options,
      split=split,
      dataset=dataset,
      embeddings=embeddings,
      step=step,
      data_dir=data_dir,
    )
    made.warm_up()
    print(f"{server.address} searches {made.described()}; Ctrl-C ends it", flush=True)
    try:
      server.serve(made)
    except KeyboardInterrupt:
      print()
