"""The order of examples: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from grain.experimental import index_shuffle

from mmcontrast.data import transforms
from mmcontrast.errors import UserError

_CHUNK = 32  # most examples that one thread prepares at a time
_SHUFFLE_ROUNDS = 4


class Order(Sequence):
  """Item j: (epoch, indices) of the j-th chunk of one process's share of the batches.

  Constant time and memory for every j: a keyed permutation of the examples per epoch,
  not a shuffled list.
  """

  def __init__(self, examples: int, seed: int, batch_size: int, start_step: int = 0,
               process_index: int = 0, process_count: int = 1):  # fmt: skip
    if batch_size < 1 or batch_size % process_count:
      raise UserError(f"batch_size {batch_size} does not divide over {process_count} processes")
    if batch_size > examples:
      raise UserError(f"batch_size {batch_size} is more than the {examples} examples of the split; "
                      f"set it to {examples} or less")  # fmt: skip
    self.steps_per_epoch = examples // batch_size
    local = batch_size // process_count
    self._chunk = max(size for size in range(1, _CHUNK + 1) if local % size == 0)
    self.chunks_per_batch = local // self._chunk
    self._examples, self._seed, self._batch_size = examples, seed, batch_size
    self._start_step, self._first_row = start_step, process_index * local

  def __len__(self) -> int:
    return 2**31 * self.chunks_per_batch  # steps without end

  def __getitem__(self, item: int) -> tuple[int, np.ndarray]:
    step, part = divmod(item, self.chunks_per_batch)
    epoch, step = divmod(self._start_step + step, self.steps_per_epoch)
    first = step * self._batch_size + self._first_row + part * self._chunk
    key = int(transforms.hashed(self._seed, epoch, transforms.ORDER) >> np.uint64(33))
    permuted = [
      index_shuffle(index=place, max_index=self._examples - 1, seed=key, rounds=_SHUFFLE_ROUNDS)
      for place in range(first, first + self._chunk)
    ]
    return epoch, np.array(permuted, np.int64)
