"""Batches of several static shapes: which of them each step has, a pure function of (seed, step).

A bucket is a number of examples and what config.data says of their views, such as how many patches an image has. A
round is one batch of each bucket, in an order drawn anew; an epoch has whole rounds.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from mmcontrast.data import noise
from mmcontrast.data.order import TooFewExamples, key_of, permuted
from mmcontrast.data.settings import shown
from mmcontrast.errors import UserError

_STREAM = noise.stream("buckets")


class Bucket(NamedTuple):
  """Examples of a global batch, and the resolved config.data by which their views are made."""

  size: int
  settings: Mapping[str, Any]


def buckets_of(settings: Mapping[str, Any], batch_size: int) -> tuple[Bucket, ...]:
  """Those of resolved config.data, at least one. Raises UserError as the modalities."""
  every = (modality.buckets(settings, batch_size) for modality in shown(settings).values())
  found = next(filter(None, every), [(batch_size, {})])
  return tuple(Bucket(size, {**settings, **changes}) for size, changes in found)


def widest(buckets: tuple[Bucket, ...], batch_size: int) -> Bucket:
  """The last of those that hold whole batches: what stands for all where one shape has to."""
  return [bucket for bucket in buckets if bucket.size == batch_size][-1]


@dataclasses.dataclass(frozen=True)
class Rounds:
  """Which bucket the batch of each step is of.

  Attributes:
    sizes: examples of the buckets' batches.
  """

  sizes: tuple[int, ...]
  seed: int

  def bucket(self, step: int) -> int:
    """The number of the bucket of a step."""
    number, place = divmod(step, len(self.sizes))
    return _shuffled(self.seed, number, len(self.sizes))[place]

  def before(self, step: int) -> int:
    """How many examples the steps of the same round had before a step."""
    number, place = divmod(step, len(self.sizes))
    return sum(self.sizes[bucket] for bucket in _shuffled(self.seed, number, len(self.sizes))[:place])


@dataclasses.dataclass(frozen=True)
class EpochsOfRounds:
  """One source whose batches are of different sizes: its examples epoch after epoch, whole rounds of each."""

  examples: int
  seed: int
  rounds: Rounds

  def __post_init__(self):
    if self._round > self.examples:
      raise TooFewExamples(
        f"a round of batches of {' + '.join(map(str, self.rounds.sizes))} examples is more than the {self.examples} of "
        "the split; lower config.batch.size, or leave out some of config.data.native.patches", 0
      )  # fmt: skip

  @property
  def _round(self) -> int:
    return sum(self.rounds.sizes)

  @property
  def steps_per_epoch(self) -> int:
    return self.examples // self._round * len(self.rounds.sizes)

  def __call__(self, step: int, rows: range) -> tuple[list[int], list[int]]:
    epoch, of_epoch = divmod(step, self.steps_per_epoch)
    first = of_epoch // len(self.rounds.sizes) * self._round + self.rounds.before(step)
    key = key_of(self.seed, epoch, noise.ORDER)
    return [epoch] * len(rows), [permuted(first + row, self.examples, key) for row in rows]


def check_one_size(buckets: tuple[Bucket, ...], what: str) -> None:
  """Raises UserError where batches are of different sizes, which `what` does not go with."""
  if len({bucket.size for bucket in buckets}) > 1:
    raise UserError(
      f"data.native.tokens: makes batches of {' and '.join(str(bucket.size) for bucket in buckets)} examples, which "
      f"{what} does not go with; set it to 0"
    )


@functools.lru_cache(maxsize=64)  # the rounds read ahead
def _shuffled(seed: int, number: int, count: int) -> tuple[int, ...]:
  return tuple(np.argsort(noise.hashed(seed, number, _STREAM, np.arange(count))).tolist())
