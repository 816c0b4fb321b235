"""MoCo's linear classifier: each step by numpy, the schedule, low-shot subsets."""

import jax
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols.sgd_probe import Classifier, Schedule, accuracies, fit, subset


def steps_by_numpy(features, labels, start, schedule, seed):
  """As torch.optim.SGD with momentum, of cross entropy."""
  draw = np.random.default_rng(seed)
  weight, bias = (one.copy() for one in start)
  of_weight, of_bias = np.zeros_like(weight), np.zeros_like(bias)
  for epoch in range(schedule.epochs):
    rate = schedule.rate * 0.1 ** sum(epoch >= one for one in schedule.milestones)
    rows, order = features(epoch), draw.permutation(len(labels))
    for first in range(0, len(order), schedule.batch):
      at = order[first : first + schedule.batch]
      logits = rows[at] @ weight + bias
      shares = np.exp(logits - logits.max(1, keepdims=True))
      shares /= shares.sum(1, keepdims=True)
      shares[np.arange(len(at)), labels[at]] -= 1
      of_weight = 0.9 * of_weight + rows[at].T @ shares / len(at)
      of_bias = 0.9 * of_bias + shares.mean(0)
      weight, bias = weight - rate * of_weight, bias - rate * of_bias
  return weight, bias


def test_steps_are_those_of_sgd():
  draw = np.random.default_rng(0)
  labels = draw.integers(0, 3, 21)
  epochs = [draw.normal(size=(21, 4)) for _ in range(5)]
  start = Classifier(draw.normal(0, 0.01, (4, 3)), np.zeros(3))
  schedule = Schedule(epochs=5, milestones=(2, 4), rate=0.5, batch=8)
  with jax.enable_x64(True):
    found = fit(epochs.__getitem__, labels, 3, schedule, seed=7, start=start)
  expected = steps_by_numpy(epochs.__getitem__, labels, start, schedule, 7)
  for ours, theirs in zip(found, expected):
    np.testing.assert_allclose(ours, theirs, atol=1e-10)


def test_the_schedule_is_mocos():
  rates = [Schedule().rate_of(epoch) for epoch in (0, 59, 60, 79, 80, 99)]
  assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3]) and Schedule().epochs == 100 and Schedule().batch == 256


def test_it_learns_and_what_cannot_be_is_said():
  draw = np.random.default_rng(1)
  labels = np.arange(60) % 6
  rows = (np.eye(6)[labels] + 0.1 * draw.normal(size=(60, 6))).astype(np.float32)
  found = accuracies(fit(lambda epoch: rows, labels, 6, Schedule(epochs=3, batch=16)), rows, labels)
  assert found["acc1"].mean() > 0.9 and found["acc5"].all() and (found["pred"] == labels).mean() > 0.9
  with pytest.raises(UserError, match="nothing to train on"):
    fit(lambda epoch: rows[:0], labels[:0], 6)
  with pytest.raises(UserError, match="the loss is nan in epoch 0; features of another scale need another rate"):
    fit(lambda epoch: rows * np.float32(1e30), labels, 6, Schedule(epochs=2, batch=16))


def test_subsets_are_of_each_class_and_one_within_the_other():
  labels = np.repeat([0, 1, 2], [200, 50, 3])
  one, ten = subset(labels, 0.01), subset(labels, 0.1)
  assert np.bincount(labels[one]).tolist() == [2, 1, 1] and np.bincount(labels[ten]).tolist() == [20, 5, 1]
  assert set(one) <= set(ten) and (np.diff(ten) > 0).all()
  assert one.tolist() == subset(labels, 0.01).tolist() != subset(labels, 0.01, seed=1).tolist()
