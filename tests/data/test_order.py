"""The order of examples: of one source and of mixtures; of any part of the run, by any number of processes."""

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_source import Toy

from mmcontrast.data.balance import groups_of
from mmcontrast.data.order import Balanced, Epochs, OneGroup, Order, Shares
from mmcontrast.data.record import BadRecord
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError

BATCH = 24
MIXTURES = st.lists(st.tuples(st.integers(1, 10_000), st.integers(BATCH, 90)), min_size=1, max_size=6)


def shares(parts, seed=0, batch_size=BATCH):
  total = sum(weight for weight, _ in parts)
  names = tuple(f"source {number}" for number in range(len(parts)))
  return Shares(names, tuple(length for _, length in parts), tuple(weight / total for weight, _ in parts), seed,
                batch_size)  # fmt: skip


def batches(draws, steps, start=0, process=0, processes=1, batch_size=BATCH):
  """[(epochs, indices)] of one process, a step each."""
  order = Order(draws, batch_size, start, process, processes)
  chunks = [order[item] for item in range(steps * order.chunks_per_batch)]
  joined = [np.concatenate(parts) for parts in zip(*chunks)]
  return list(zip(*(np.split(array, steps) for array in joined)))


@settings(max_examples=50, deadline=None)
@given(parts=MIXTURES, far=st.integers(0, 10**9))
def test_every_prefix_of_a_mixture_has_its_shares(parts, far):
  draws = shares(parts)
  counts = np.array([draws.drawn(rows) for rows in [*range(200), *range(far, far + 200)]])
  rows = np.array([*range(200), *range(far, far + 200)])
  weights = np.array(draws.weights)
  assert (counts.sum(1) == rows).all()
  steps = np.diff(counts, axis=0)[np.diff(rows) == 1]
  assert steps.min() >= 0 and (steps.sum(1) == 1).all()  # nothing drawn is given back
  bound = (1 + weights * (len(parts) - 2)) / 2
  assert (np.abs(counts - rows[:, None] * weights) <= np.maximum(bound, 0) + 1e-4).all()
  if len(parts) <= 3:
    assert (np.abs(counts - rows[:, None] * weights) < 1).all()


@settings(max_examples=10, deadline=None)
@given(parts=MIXTURES, seed=st.integers(0, 2**31), start=st.integers(0, 10**6), processes=st.sampled_from([1, 2, 4]),
       alone=st.booleans())  # fmt: skip
def test_any_step_and_any_number_of_processes_make_the_same_batches(parts, seed, start, processes, alone):
  draws = Epochs(parts[0][1], seed, BATCH) if alone else shares(parts, seed)
  whole = batches(draws, 4, start)
  split = [batches(draws, 2, start + 2, process, processes) for process in range(processes)]
  for step in range(2):
    for kind in range(2):
      joined = np.concatenate([part[step][kind] for part in split])
      np.testing.assert_array_equal(joined, whole[2 + step][kind])


@settings(max_examples=8, deadline=None)
@given(parts=MIXTURES, seed=st.integers(0, 2**31))
def test_each_source_of_a_mixture_goes_through_its_own_epochs(parts, seed):
  """No example comes twice in an epoch, and none is left out."""
  draws = shares(parts, seed)
  pairs = [pair for epochs, indices in batches(draws, 12) for pair in zip(epochs.tolist(), indices.tolist())]
  assert len(set(pairs)) == len(pairs) == 12 * BATCH
  first = 0
  for length, drawn in zip(draws.lengths, draws.drawn(12 * BATCH)):
    own = collections.Counter(epoch for epoch, index in pairs if first <= index < first + length)
    full, rest = divmod(drawn, length)
    assert own == collections.Counter({**dict.fromkeys(range(full), length), full: rest})
    first += length


@settings(max_examples=10, deadline=None)
@given(examples=st.integers(BATCH, 200), seed=st.integers(0, 2**31), start=st.integers(0, 10**6))
def test_a_batch_of_one_source_has_no_example_twice(examples, seed, start):
  draws = Epochs(examples, seed, BATCH)
  for epochs, indices in batches(draws, 3, start):
    assert len(set(indices)) == BATCH and len(set(epochs)) == 1 and indices.min() >= 0 and indices.max() < examples
  epoch = [indices for _, indices in batches(draws, draws.steps_per_epoch)]
  assert len(set(np.concatenate(epoch))) == draws.steps_per_epoch * BATCH


def test_processes_get_of_each_source():
  parts = [batches(shares([(1, 90), (1, 90)]), 8, 0, process, 2) for process in range(2)]
  for part in parts:
    first = np.array([(indices < 90).sum() for _, indices in part])
    assert first.min() > 0 and first.max() < BATCH // 2


def test_a_small_weight_has_a_row_now_and_then():
  indices = np.stack([found for _, found in batches(shares([(199, 1000), (1, 1000)]), 200 // BATCH * 3)])
  steps = np.flatnonzero((indices >= 1000).any(1))
  assert len(steps) == 3 and np.diff(steps).min() > 6


def test_seeds_give_other_orders():
  for make in (lambda seed: Epochs(90, seed, BATCH), lambda seed: shares([(1, 90), (1, 90)], seed)):
    assert (batches(make(0), 1)[0][1] != batches(make(1), 1)[0][1]).any()


def test_the_order_of_one_source_stays_what_it_was():
  """Runs that began with an earlier version go on where they were."""
  assert Order(Epochs(200, 3, 48), 48, start_step=5)[0][1][:8].tolist() == PINNED


PINNED = [112, 164, 136, 120, 125, 46, 186, 82]


def test_what_cannot_be_ordered():
  with pytest.raises(UserError, match=r"data.mixture.source 1.weight: makes 12 rows of a batch of 24, more than its"):
    shares([(1, 90), (1, 11)])
  with pytest.raises(UserError, match="batch_size 24 is more than the 3 examples"):
    Epochs(3, 0, 24)
  with pytest.raises(UserError, match="batch_size 2 does not divide over 4 processes"):
    Order(Epochs(3, 0, 2), 2, 0, 0, 4)  # fewer examples than processes


def test_an_epoch_holds_at_most_so_many_of_a_group():
  """Each example at most once, others in the next epoch, and by any number of processes the same."""
  sizes, most = (40, 7, 1, 90), 12
  ends = np.cumsum((0, *sizes))
  draws = Balanced(tuple(np.arange(a, b) for a, b in itertools.pairwise(ends)), most, 3, 8)
  assert draws.examples == 12 + 7 + 1 + 12 and draws.steps_per_epoch == 4
  epochs = [np.concatenate([i for _, i in batches(draws, 4, 4 * epoch, batch_size=8)]) for epoch in range(5)]
  for indices in epochs:
    counts = np.histogram(indices, ends)[0]
    assert counts.tolist() == [12, 7, 1, 12] and len(set(indices)) == 32
  assert len(set(np.concatenate(epochs))) > 60  # of 138
  halves = [np.concatenate([i for _, i in batches(draws, 4, 0, process, 2, 8)]) for process in range(2)]
  assert sorted(np.concatenate(halves)) == sorted(epochs[0])
  with pytest.raises(
    UserError, match="batch_size 33 is more than the 32 examples of an epoch of at most 12 of a group"
  ):
    Balanced(draws.groups, most, 0, 33)


def test_groups_are_the_classes_of_a_label():
  class Labelled(Toy):
    def __init__(self, count):
      super().__init__(count)
      self.info = dataclasses.replace(self.info, label_names={"kind": ("a", "b")})

    def __getitem__(self, index):
      if index == 4:
        raise BadRecord("broken")
      return {**super().__getitem__(index), "labels": {"kind": (0, 1, 0, -1)[index % 4]}}

  found = [group.tolist() for group in groups_of(Labelled(8), "kind")]
  assert found == [[0, 2, 6], [1, 5], [3], [4], [7]]
  with pytest.raises(UserError, match=r"data\.balance\.label: no such choice 'kin'; did you mean 'kind'"):
    groups_of(Labelled(8), "kin")
  bare = Labelled(8)
  bare.info = dataclasses.replace(bare.info, label_names={})
  with pytest.raises(UserError, match=r"data\.balance\.label: toy has no labels"):
    groups_of(bare, "kind")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(balance=dict(label="kind", most=0)), r"data\.balance\.most: 0; give a whole number, at least 1"),
    (
      dict(balance=dict(label="kind"), mixture=dict(a=dict(dataset="emoji_views"))),
      r"balance\.label: is of one dataset",
    ),
  ],
)
def test_wrong_balance(changes, message):
  with pytest.raises(UserError, match=message):
    resolve(changes)


def grouped(sizes, seed=0, batch_size=8, none=0):
  """Groups of such sizes, shuffled over the examples, beside `none` in no group."""
  group = np.repeat([*range(len(sizes)), -1], [*sizes, none])
  return OneGroup(np.random.default_rng(1).permutation(group), seed, batch_size)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), seed=st.integers(0, 99), start=st.integers(0, 10**5))
def test_every_batch_is_of_one_group(sizes, seed, start):
  draws = grouped([*sizes, 9], seed, none=3)
  large = [number for number, size in enumerate([*sizes, 9]) if size >= 8]
  rest = {*range(len(sizes) + 1), -1} - {*large}
  assert draws.steps_per_epoch == (sum(sizes) + 12) // 8
  for epochs, indices in batches(draws, 3, start, batch_size=8):
    groups = set(draws.group[indices])
    assert len(set(indices)) == 8 and len(set(epochs)) == 1
    assert len(groups) == 1 or groups <= rest | {large[-1]}
  split = [batches(draws, 2, start + 1, process, 2, batch_size=8) for process in range(2)]
  whole = batches(draws, 3, start, batch_size=8)[1:]
  for step in range(2):
    assert np.array_equal(np.concatenate([part[step][1] for part in split]), whole[step][1])


def test_groups_have_turns_by_their_sizes_and_all_are_seen():
  draws = grouped([80, 40, 3, 17], none=4)
  steps = draws.steps_per_epoch
  found = batches(draws, 12 * steps, batch_size=8)
  of = [set(draws.group[indices].tolist()) for _, indices in found]
  turns = collections.Counter(min(groups) for groups in of if len(groups) == 1)
  assert turns[0] == 12 * 10 and turns[1] == 12 * 5
  assert len({*np.concatenate([indices for _, indices in found]).tolist()}) == 144
  pairs = collections.Counter((e, i) for epochs, indices in found for e, i in zip(epochs, indices))
  assert max(pairs.values()) == 1  # an example is drawn once in an epoch of its group
  other = batches(dataclasses.replace(draws, seed=5), 3, batch_size=8)
  assert not np.array_equal(other[0][1], found[0][1])
  assert np.array_equal(batches(draws, 1, 40, batch_size=8)[0][1], found[40][1])


def test_groups_of_fewer_than_a_batch_are_one():
  draws = grouped([3, 2, 2], none=2)
  assert draws.steps_per_epoch == 1
  assert set(batches(draws, 1, batch_size=8)[0][1].tolist()) < set(range(9))
  with pytest.raises(UserError, match="batch_size 10 is more than the 9 examples"):
    grouped([3, 2, 2], none=2, batch_size=10)
