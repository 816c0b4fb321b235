"""The electrocardiograms that `mmcontrast data build simulated_ecg` makes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping

from mmcontrast.data.sources.emoji import EmojiSource, open_built
from mmcontrast.errors import UserError


def open_simulated_ecg(path: str, options: Mapping, split: str, data_dir: str | os.PathLike | None) -> EmojiSource:
  """Opens simulated_ecg, which has no options."""
  if path or options:
    raise UserError(f"data.dataset: simulated_ecg takes no path and no data.source, not {path or dict(options)!r}")
  source = open_built("simulated_ecg", split, data_dir)
  source.info = dataclasses.replace(source.info, notes=("simulated by NeuroKit2; no recording of a person",))
  return source
