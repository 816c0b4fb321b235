"""`mmcontrast caption IMAGE ... --workdir RUN`: what a run writes of images, or of what else its decoder reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from mmcontrast.called import call_as
from mmcontrast.inference import load


def caption(
  workdir: str | os.PathLike,
  things: str | os.PathLike | Sequence[str | os.PathLike],
  *,
  step: int | None = None,
  data_dir: str | None = None,
  **search: Any,
) -> list[tuple[str, str]]:
  """(path, caption) of one file or many, in their order.

  Args:
    workdir: the run.
    things: paths of images, or of what else its decoder reads.
    step: the checkpoint of this step instead of the newest.
    search: of `Inference.caption`: beams=5; top_p=0.9, temperature, seed; length; head.
  Raises UserError: no such run or file, a run without a decoder, a caption longer than its decoder writes.
  """
  paths = [things] if isinstance(things, str | os.PathLike) else list(things)
  written = load(workdir, step, data_dir).caption(paths, **search)
  return [(os.fspath(path), text) for path, text in zip(paths, written)]


call_as(__name__, caption)
