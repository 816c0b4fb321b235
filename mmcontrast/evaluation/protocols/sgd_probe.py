"""A linear classifier on frozen features by SGD, as MoCo trains it: rate 30, x 0.1 at epochs 60 and 80 of 100.

Momentum 0.9 as torch has it (v = 0.9 v + g; w = w - rate v), no weight decay, batches of 256 in a new order each epoch,
the last one smaller; weights N(0, 0.01), bias 0; the mean cross entropy of a batch. Features may be others each epoch:
those of new crops (moco_lincls-v1), or the same (moco_lincls_cached-v1). The last weights are taken.

Source: MoCo (arXiv:1911.05722), main_lincls.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.errors import UserError
from mmcontrast.evaluation.protocols.clip_benchmark import top_hits

EPOCHS, MILESTONES, RATE, MOMENTUM, BATCH = 100, (60, 80), 30.0, 0.9, 256


class Classifier(NamedTuple):
  """`weight` [F, K], `bias` [K]: logits are features @ weight + bias."""

  weight: np.ndarray
  bias: np.ndarray

  def logits(self, features: np.ndarray) -> np.ndarray:
    """float [N, F] -> [N, K]."""
    return features @ self.weight + self.bias


class Schedule(NamedTuple):
  """Epochs, and the rate of each: x 0.1 from each milestone on."""

  epochs: int = EPOCHS
  milestones: tuple[int, ...] = MILESTONES
  rate: float = RATE
  batch: int = BATCH

  def rate_of(self, epoch: int) -> float:
    return self.rate * 0.1 ** sum(epoch >= one for one in self.milestones)


MOCO = Schedule()


def fit(
  features: Callable[[int], np.ndarray],
  labels: np.ndarray,
  classes: int,
  schedule: Schedule = MOCO,
  seed: int = 0,
  start: Classifier | None = None,
) -> Classifier:
  """Trains a classifier.

  Args:
    features: (epoch) -> float32 [N, F], those of the epoch.
    labels: int [N] in 0..classes-1.
    seed: of the weights and the orders.
    start: weights to begin with; None: N(0, 0.01).
  Raises UserError for no example, and for a loss that is not finite.
  """
  if not len(labels):
    raise UserError("linear probe: there is nothing to train on")
  draw = np.random.default_rng(seed)
  state = None
  for epoch in range(schedule.epochs):
    rows = np.asarray(features(epoch))
    if state is None:
      start = start or Classifier(draw.normal(0, 0.01, (rows.shape[1], classes)), np.zeros(classes))
      weights = Classifier(*(jnp.asarray(one, rows.dtype) for one in start))
      state = weights, jax.tree.map(jnp.zeros_like, weights)
    order = draw.permutation(len(labels))
    for first in range(0, len(order), schedule.batch):
      at = order[first : first + schedule.batch]
      state, loss = _step(state, rows[at], labels[at], schedule.rate_of(epoch))
    if not np.isfinite(float(loss)):
      raise UserError(
        f"linear probe: the loss is {float(loss)} in epoch {epoch}; features of another scale need another rate"
      )
  return Classifier(*(np.asarray(one) for one in state[0]))


def accuracies(model: Classifier, features: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
  """Whether each row is right, bool [N]: `acc1`, and `acc5` of five classes or more, as torch.topk orders logits;
  `pred` int [N], the first of the highest."""
  return top_hits(model.logits(features), labels)


@jax.jit
def _step(state, rows, labels, rate):
  (weight, bias), (of_weight, of_bias) = state

  def loss_of(weights):
    logits = rows @ weights[0] + weights[1]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0])

  loss, (to_weight, to_bias) = jax.value_and_grad(loss_of)((weight, bias))
  moved = Classifier(MOMENTUM * of_weight + to_weight, MOMENTUM * of_bias + to_bias)
  return (Classifier(weight - rate * moved[0], bias - rate * moved[1]), moved), loss


def subset(labels: np.ndarray, share: float, seed: int = 0) -> np.ndarray:
  """int [n], ascending: of each class the share, rounded, at least one, the first in the order of a seed.

  Low-shot training on 1 % or 10 %. The subset of a smaller share is part of that of a larger one.
  """
  order = np.random.default_rng(seed).permutation(len(labels))
  chosen = []
  for one in np.unique(labels):
    of_class = order[labels[order] == one]
    chosen.append(of_class[: max(1, round(share * len(of_class)))])
  return np.sort(np.concatenate(chosen))
