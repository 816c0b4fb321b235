"""Random numbers by counter: the same wherever, and in whatever order, they are asked for.

So no generator state is carried, and any number of threads and processes makes the same batch.
"""

from __future__ import annotations

import zlib

import numpy as np

IMAGE, TEXT, STYLE, ORDER, DEVICE, FIELD, ROWS = range(7)  # streams


def stream(name: str) -> int:
  """A stream of a name, apart from those above: what a further modality draws from."""
  return 2**32 + zlib.crc32(name.encode())


def hashed(*words: int | np.ndarray) -> np.ndarray:
  """uint64 hash of integer words, broadcast together (splitmix64 finaliser, Steele et al. 2014)."""
  state = np.zeros(np.broadcast_shapes(*(np.shape(word) for word in words)), np.uint64)
  with np.errstate(over="ignore"):
    for word in words:
      state = (state ^ np.asarray(word).astype(np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
      state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
      state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
      state = state ^ (state >> np.uint64(31))
  return state


def uniform(seed: int, index: np.ndarray, epoch: np.ndarray, stream: int, count: int) -> np.ndarray:
  """Uniform numbers in [0, 1): float64 [N, count] for int [N] index and epoch."""
  index, epoch = np.asarray(index)[:, None], np.asarray(epoch)[:, None]
  bits = hashed(seed, index, epoch, stream, np.arange(count)[None])
  return (bits >> np.uint64(11)) * 2.0**-53
