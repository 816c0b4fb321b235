"""The order of examples: a pure function of (seed, step), in constant time and memory.

An epoch is a keyed permutation of a source's examples, not a shuffled list. A mixture hands the rows
of the run out one by one: draw d of a source of weight w (all weights sum to 1) is due at (d + 1/2) / w,
and the earliest goes first (Sainte-Lague's apportionment). After n rows a source has had n w of them,
at most (1 + w (K - 2)) / 2 more or fewer with K sources: always within one row up to three.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from grain.experimental import index_shuffle

from mmcontrast.data import noise
from mmcontrast.errors import UserError

_CHUNK = 32  # most examples that one thread prepares at a time
_SHUFFLE_ROUNDS = 4


class Draws(Protocol):
  """What stands in the rows of the global batches."""

  steps_per_epoch: int

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    """(epoch, index) of each of `rows` of the global batch of `step`."""


class TooFewExamples(UserError):
  """A batch would hold an example twice; `most`: the largest batch of which that is not so."""

  def __init__(self, message: str, most: int):
    super().__init__(message)
    self.most = most


@dataclasses.dataclass(frozen=True)
class Epochs:
  """One source: its examples epoch after epoch. A batch is of one epoch; the remainder is dropped."""

  examples: int
  seed: int
  batch_size: int

  def __post_init__(self):
    if self.batch_size > self.examples:
      raise TooFewExamples(f"batch_size {self.batch_size} is more than the {self.examples} examples of the split; "
                           f"set it to {self.examples} or less", self.examples)  # fmt: skip

  @property
  def steps_per_epoch(self) -> int:
    return self.examples // self.batch_size

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    epoch, step = divmod(step, self.steps_per_epoch)
    key = key_of(self.seed, epoch, noise.ORDER)
    return [epoch] * len(rows), [permuted(step * self.batch_size + row, self.examples, key) for row in rows]


@dataclasses.dataclass(frozen=True)
class Balanced:
  """One source, of which an epoch holds at most `most` examples of a group, drawn anew for each epoch.

  Attributes:
    groups: the indices of each group's examples, of all examples together once each.
  """

  groups: tuple[np.ndarray, ...]
  most: int
  seed: int
  batch_size: int

  def __post_init__(self):
    if self.batch_size > self.examples:
      raise TooFewExamples(
        f"batch_size {self.batch_size} is more than the {self.examples} examples of an epoch of at most {self.most} of "
        f"a group (data.balance); set it to {self.examples} or less, or raise data.balance.most", self.examples
      )  # fmt: skip

  @functools.cached_property
  def _ends(self) -> list[int]:
    return list(itertools.accumulate(min(len(group), self.most) for group in self.groups))

  @property
  def examples(self) -> int:
    """Of an epoch."""
    return self._ends[-1] if self.groups else 0

  @property
  def steps_per_epoch(self) -> int:
    return self.examples // self.batch_size

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    epoch, step = divmod(step, self.steps_per_epoch)
    key, indices = key_of(self.seed, epoch, noise.ORDER), []
    for row in rows:
      place = permuted(step * self.batch_size + row, self.examples, key)
      number = bisect.bisect_right(self._ends, place)
      group, first = self.groups[number], self._ends[number - 1] if number else 0
      own = key_of(self.seed, epoch, noise.ORDER, number)
      indices.append(int(group[permuted(place - first, len(group), own)]))
    return [epoch] * len(rows), indices


@dataclasses.dataclass(frozen=True)
class OneGroup:
  """One source, whose batches are of one group each: examples that only a few features tell apart.

  Groups take turns by their sizes, in an order drawn anew for each epoch; each goes through its own examples again and
  again, drawn anew, without the remainder of a batch. Groups that are smaller than a batch are put together, in the
  order of their numbers, with those that are in no group; the last of these with the one before it.

  Attributes:
    group: int [E], that of each example; below 0: none.
  """

  group: np.ndarray
  seed: int
  batch_size: int

  def __post_init__(self):
    if self.batch_size > len(self.group):
      raise TooFewExamples(f"batch_size {self.batch_size} is more than the {len(self.group)} examples of the split; "
                           f"set it to {len(self.group)} or less", len(self.group))  # fmt: skip

  @functools.cached_property
  def _members(self) -> list[np.ndarray]:
    numbers, sizes = np.unique(np.where(self.group < 0, -1, self.group), return_counts=True)
    whole = [number for number, size in zip(numbers, sizes) if number >= 0 and size >= self.batch_size]
    found, waiting = [np.flatnonzero(self.group == number) for number in whole], []
    for number in numbers[~np.isin(numbers, whole)]:
      waiting.append(np.flatnonzero(self.group == number if number >= 0 else self.group < 0))
      if sum(map(len, waiting)) >= self.batch_size:
        found.append(np.concatenate(waiting))
        waiting = []
    if waiting:
      found = [*found[:-1], np.concatenate([*found[-1:], *waiting])]
    return found

  @functools.cached_property
  def _turns(self) -> list[tuple[int, int]]:
    """(group, how often it had its turn before) of each step of an epoch, by the sizes of groups (as `Shares`)."""
    counts, turns = [0] * len(self._members), []
    for _ in range(self.steps_per_epoch):
      due = [(count + 0.5) / len(group) for count, group in zip(counts, self._members)]
      number = due.index(min(due))
      turns.append((number, counts[number]))
      counts[number] += 1
    return turns

  @functools.cached_property
  def _turns_of(self) -> collections.Counter[int]:
    return collections.Counter(number for number, _ in self._turns)

  @property
  def steps_per_epoch(self) -> int:
    return len(self.group) // self.batch_size

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    epoch, step = divmod(step, self.steps_per_epoch)
    number, before = self._turns[permuted(step, self.steps_per_epoch, key_of(self.seed, epoch, noise.ORDER))]
    group = self._members[number]
    turn = epoch * self._turns_of[number] + before
    own, part = divmod(turn, len(group) // self.batch_size)  # its own epoch, and the batch in it
    key = key_of(self.seed, own, noise.ORDER, number)
    first = part * self.batch_size
    return [own] * len(rows), [int(group[permuted(first + row, len(group), key)]) for row in rows]


@dataclasses.dataclass(frozen=True)
class Shares:
  """Several sources by weight, each through its own epochs, without a remainder; their indices one after another.

  Every batch has of each what is due, shuffled over its rows, so that each process gets of each.
  """

  names: tuple[str, ...]
  lengths: tuple[int, ...]
  weights: tuple[float, ...]  # they sum to 1
  seed: int
  batch_size: int

  def __post_init__(self):
    for name, length, weight in zip(self.names, self.lengths, self.weights):
      if (rows := math.ceil(weight * self.batch_size - 1e-6)) > length:
        raise UserError(
          f"data.mixture.{name}.weight: makes {rows} rows of a batch of {self.batch_size}, more than its "
          f"{length} examples; lower it"
        )

  @property
  def steps_per_epoch(self) -> int:
    return max(1, sum(self.lengths) // self.batch_size)

  def drawn(self, rows: int) -> list[int]:
    """How many of the first `rows` rows of the run are of each source."""
    early = rows - len(self.weights) / 2 - 1  # before `rows` of them are due, whatever the weights
    counts = [max(0, int(early * weight + 0.5)) for weight in self.weights]
    for _ in range(rows - sum(counts)):
      due = [(count + 0.5) / weight for count, weight in zip(counts, self.weights)]
      counts[due.index(min(due))] += 1
    return counts

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    before, after = self.drawn(step * self.batch_size), self.drawn((step + 1) * self.batch_size)
    ends = list(itertools.accumulate(after[k] - before[k] for k in range(len(before))))
    offsets = [0, *itertools.accumulate(self.lengths)]
    shuffled = _shuffled_rows(self.seed, step, self.batch_size)
    epochs, indices = [], []
    for place in shuffled[rows.start : rows.stop].tolist():
      source = bisect.bisect_right(ends, place)
      epoch, draw = divmod(after[source] - (ends[source] - place), self.lengths[source])
      own = key_of(self.seed, epoch, noise.ORDER, source)
      epochs.append(epoch)
      indices.append(offsets[source] + permuted(draw, self.lengths[source], own))
    return epochs, indices


@dataclasses.dataclass(frozen=True)
class InOrder:
  """Every example once, in the order of the source, as epoch 0 shows them; after the last one the first again."""

  examples: int
  batch_size: int

  @property
  def steps_per_epoch(self) -> int:
    return -(-self.examples // self.batch_size)

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    return [0] * len(rows), [(step * self.batch_size + row) % self.examples for row in rows]


class Rounds(Protocol):
  """Batches of several buckets (buckets.py)."""

  sizes: tuple[int, ...]

  def bucket(self, step: int) -> int:
    """The number of the bucket of a step."""


class Order(Sequence):
  """Item j: (epochs, indices), int64 [n] each, of the j-th chunk of one process's rows of the batches; with rounds also
  the number of the bucket that the batch is of.

  Args:
    rounds: of batches of several buckets; their sizes count, and `batch_size` does not.
  """

  def __init__(self, draws: Draws, batch_size: int, start_step: int = 0, process_index: int = 0,
               process_count: int = 1, rounds: Rounds | None = None):  # fmt: skip
    sizes = rounds.sizes if rounds else (batch_size,)
    for size in sizes:
      if size < 1 or size % process_count:
        raise UserError(f"batch_size {size} does not divide over {process_count} processes")
    self._locals = [size // process_count for size in sizes]
    common = math.gcd(*self._locals)
    parts = [count for count in range(1, common + 1) if common % count == 0]
    # As few chunks as their size allows; as many in each batch, so that they can be counted without end.
    self.chunks_per_batch = next((n for n in parts if max(self._locals) // n <= _CHUNK), common)
    self._draws, self._start_step, self._process, self._rounds = draws, start_step, process_index, rounds

  def __len__(self) -> int:
    return 2**31 * self.chunks_per_batch  # steps without end

  def __getitem__(self, item: int) -> tuple[Any, ...]:
    step, part = divmod(item, self.chunks_per_batch)
    step += self._start_step
    bucket = self._rounds.bucket(step) if self._rounds else 0
    chunk = self._locals[bucket] // self.chunks_per_batch
    first = self._process * self._locals[bucket] + part * chunk
    epochs, indices = self._draws(step, range(first, first + chunk))
    return np.array(epochs, np.int64), np.array(indices, np.int64), *([bucket] if self._rounds else [])


@functools.lru_cache(maxsize=1024)  # of a few sources and epochs at a time
def key_of(*words: int) -> int:
  """The key of a permutation, a hash of integers."""
  return int(noise.hashed(*words) >> np.uint64(33))


@functools.lru_cache(maxsize=64)  # the steps read ahead
def _shuffled_rows(seed: int, step: int, batch_size: int) -> np.ndarray:
  return np.argsort(noise.hashed(seed, step, noise.ROWS, np.arange(batch_size)))


def permuted(place: int, count: int, key: int) -> int:
  """What stands at a place of the permutation of `count` numbers by a key."""
  return index_shuffle(index=place, max_index=count - 1, seed=key, rounds=_SHUFFLE_ROUNDS)
