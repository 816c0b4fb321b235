"""Batches of several shapes: rounds of buckets, epochs of whole rounds, and the arrays of each step."""

import numpy as np
import pytest
from toy_source import Toy, take

from mmcontrast.data.buckets import EpochsOfRounds, Rounds, buckets_of, widest
from mmcontrast.data.order import Order, TooFewExamples
from mmcontrast.data.settings import resolve
from mmcontrast.errors import UserError

SIZES = (24, 16, 8)


def indices(start, steps, process=0, processes=1, examples=100):
  """What stands in the batches of some steps, of one process."""
  rounds = Rounds(SIZES, seed=5)
  order = Order(EpochsOfRounds(examples, 5, rounds), 24, start, process, processes, rounds)
  chunks = [order[item] for item in range(steps * order.chunks_per_batch)]
  starts = range(0, len(chunks), order.chunks_per_batch)
  return [np.concatenate([index for _, index, _ in chunks[at : at + order.chunks_per_batch]]) for at in starts]


def test_each_round_has_each_bucket_once_in_an_order_of_its_own():
  rounds = Rounds(SIZES, seed=5)
  orders = [tuple(rounds.bucket(3 * number + place) for place in range(3)) for number in range(40)]
  assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2)} and len(set(orders)) == 6
  assert orders != [tuple(Rounds(SIZES, seed=6).bucket(3 * n + place) for place in range(3)) for n in range(40)]


def test_an_epoch_holds_no_example_twice_and_whole_rounds():
  """100 examples: two rounds of 48, six steps."""
  batches, rounds = indices(0, 12), Rounds(SIZES, seed=5)
  assert [len(batch) for batch in batches] == [SIZES[rounds.bucket(step)] for step in range(12)]
  for epoch in (batches[:6], batches[6:]):
    assert len(set(np.concatenate(epoch))) == 96
  assert batches[0].tolist() != batches[6].tolist()


def test_any_step_and_any_number_of_processes_make_the_same_batches():
  whole = indices(0, 12)
  for start, processes in ((7, 2), (4, 4)):
    split = [indices(start, 5, process, processes) for process in range(processes)]
    for step, parts in enumerate(zip(*split, strict=True)):
      assert np.concatenate(parts).tolist() == whole[start + step].tolist()


def test_too_few_examples_for_a_round():
  message = r"a round of batches of 24 \+ 16 \+ 8 examples is more than the 40 of the split"
  with pytest.raises(TooFewExamples, match=message):
    EpochsOfRounds(40, 0, Rounds(SIZES, 0))


CONFIG = {"views": {"image": 1}, "native": {"patch": 4, "patches": (4, 9, 12), "tokens": 9 * 12, "multiple": 4}}


def test_batches_are_of_the_shapes_of_their_buckets():
  """27, 12 and 9 images are rounded down to multiples of 4; a step that is asked for first is what it was."""
  batches, _ = take(9, CONFIG, Toy(70), batch_size=16)
  shapes = {batch["image"].shape for batch in batches}
  assert shapes == {(16, 1, 4, 48), (12, 1, 9, 48), (8, 1, 12, 48)}  # compilations: one a bucket
  for batch in batches:
    assert batch["image_grid"].shape == (len(batch["index"]), 1, 2)
    assert (batch["image_grid"].prod(-1) <= batch["image"].shape[2]).all() and (batch["image_grid"] >= 1).all()
  again, _ = take(2, CONFIG, Toy(70), batch_size=16, start_step=5)
  for left, right in zip(batches[5:7], again, strict=True):
    np.testing.assert_array_equal(left["image"], right["image"])


def test_one_shape_stands_for_all_where_one_has_to():
  buckets = buckets_of(resolve(CONFIG), 8)
  assert [bucket.size for bucket in buckets] == [8, 8, 8]
  assert widest(buckets, 8).settings["native"]["patches"] == (12,)
  buckets = buckets_of(resolve(CONFIG), 16)
  assert widest(buckets, 16).settings["native"]["patches"] == (4,)


@pytest.mark.parametrize("change, options, message", [
  ({"balance": {"label": "parity", "most": 30}}, {}, r"tokens: makes batches of 16 and 12 and 8 examples, which "
                                                     r"data\.balance does not go with; set it to 0"),
  ({}, {"groups": np.zeros(70, int)}, r"which config\.epoch_hooks, which make batches of one group, does not go with"),
], ids=["balance", "groups"])  # fmt: skip
def test_orders_of_one_size_are_refused(change, options, message):
  with pytest.raises(UserError, match=message):
    take(1, {**CONFIG, **change}, Toy(70), batch_size=16, **options)
