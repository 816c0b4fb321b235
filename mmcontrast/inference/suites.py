"""The suites that `mmcontrast benchmark` knows, by the kind before the colon."""

from __future__ import annotations

from collections.abc import Callable

from mmcontrast.inference import (
  clip_benchmark_sets,
  edits_sets,
  imagenet_sets,
  karpathy_sets,
  multilingual_sets,
  order_sets,
  voc_sets,
)
from mmcontrast.inference.suite_sets import SuiteSet

# (folder, split or "" for the usual one) -> sets by name
SUITES: dict[str, Callable[[str, str], dict[str, SuiteSet]]] = {
  "clip_benchmark": clip_benchmark_sets.open_sets,
  "karpathy": karpathy_sets.open_sets,
  "voc07": voc_sets.open_sets,
  "imagenet": imagenet_sets.open_sets,
  "mrv": multilingual_sets.open_sets,
  **edits_sets.OPENERS,
  order_sets.KIND: order_sets.open_sets,  # of a source, KIND:PATH
}
OF_SOURCES = (order_sets.KIND,)
"""Those of a source, KIND:PATH, instead of a folder."""
