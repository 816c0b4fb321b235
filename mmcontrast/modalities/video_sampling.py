"""Which frames of a clip a view shows: pure functions of the number of frames and uniform numbers."""

from __future__ import annotations

import numpy as np

SAMPLING = ("uniform", "tsn", "dense")


def frame_indices(count: int, frames: int, draws: np.ndarray, how: str, stride: int = 1) -> np.ndarray:
  """int64 [frames], rising, of a clip of `count` frames; one with fewer frames shows some of them again.

  Args:
    draws: `frames` uniform numbers in [0, 1); all 0.5, as in evaluation, give the middles.
    how: "uniform": evenly spaced, the clip cut into `frames` equal parts and the same place in each, by the first
      number; "tsn": a place in each part by a number of its own (TSN, Wang et al., arXiv:1608.00859, section 3.1);
      "dense": `stride` frames from one to the next, beginning anywhere they fit (VideoMAE, arXiv:2203.12602); without
      room for them the stride is as large as fits.
  """
  parts = np.arange(frames)
  if how == "dense":
    step = min(stride, (count - 1) / max(frames - 1, 1))
    spare = count - (frames - 1) * step
    return np.minimum(draws[0] * spare + parts * step, count - 1).astype(np.int64)
  places = draws[:frames] if how == "tsn" else draws[0]
  return np.minimum((parts + places) * count / frames, count - 1).astype(np.int64)
