"""The epoch hook that tells right pairs from wrong ones, for the term module `noisy_pairs` (PC2, arXiv:2408.01349)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmcontrast.errors import UserError, nearest
from mmcontrast.stores.hook import Embed, Update
from mmcontrast.stores.mixtures import smaller_component


@dataclass(frozen=True)
class PairMixture:
  """Two mixtures of two Gaussians over the examples that are trained on: of the pair's loss, and of how far the image's
  pseudo-classes moved since the hook ran last, KL(now || then), 0 of one not seen then. The posterior of the smaller
  mean is written for each example, and its classes now.

  The loss is the mean hinge over `batch` examples at a time, in an order drawn by the run's seed, both directions.

  Attributes:
    term: the entry of the objective whose table it writes.
    images, texts, classes: paths of the term's images and texts in the joint space, and of its images as classes.
    margin: of the loss.
    batch: examples that are compared.
    rounds: of the mixtures' fit, at most.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("pooled",)
  labels: ClassVar[tuple[str, ...]] = ()

  term: str
  images: str
  texts: str
  classes: str
  margin: float = 0.2
  batch: int = 128
  rounds: int = 10

  def __post_init__(self):
    for name, least in (("batch", 2), ("rounds", 1)):
      if getattr(self, name) < least:
        raise UserError(f"{name}: {getattr(self, name)} is below {least}")

  @property
  def embeddings(self) -> tuple[str, ...]:
    return (self.images, self.texts, self.classes)

  @property
  def vectors(self) -> dict[str, str]:
    return {"class_": self.classes}

  def check(self, state: Any, examples: int, of_training: bool) -> None:
    fitting = [name for name, columns in state.tables.items() if "small" in columns]
    if "small" not in state.tables.get(self.term, {}):
      raise UserError(
        f"term: {self.term!r} is no entry of the objective that asks which pairs are right; "
        + (nearest(self.term, fitting) if fitting else "add one with module=dict(name='noisy_pairs', ...)")
      )
    if not of_training:
      raise UserError("set: it tells pairs apart that are trained on; leave it out")

  def __call__(self, embed: Embed, state: Any, key: jax.Array) -> Update:
    found = embed(self.embeddings)
    images, texts = (_unit(found.nodes[name].pooled) for name in (self.images, self.texts))
    valid = found.present[self.images] & found.present[self.texts] & found.present[self.classes]
    seed = int(jax.random.bits(key) >> 1)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(valid))
    losses = np.zeros(len(valid))
    for first in range(0, len(order), self.batch):
      part = order[first : first + self.batch]
      losses[part] = pair_losses(images[part] @ texts[part].T, self.margin)
    now = _softmax(found.nodes[self.classes].pooled)
    columns = state.tables[self.term]
    count = sum(name.startswith("class_") for name in columns)
    then = np.stack([_whole(columns[f"class_{number}"])[: len(valid)] for number in range(count)], 1)
    moved = np.where(then[:, 0] >= 0, divergence(now, np.maximum(then, 0)), 0.0)
    small, steady = (smaller_component(x, valid, seed % 2**31, self.rounds) for x in (losses, moved))
    shown = {"small losses": int((small.posterior[valid] > 0.5).sum()), "of": int(valid.sum())}
    shown |= {f"mixture of {name} not converged after": self.rounds
              for name, split in (("losses", small), ("movements", steady)) if not split.converged}  # fmt: skip
    new = {"small": small.posterior, "steady": steady.posterior}
    new |= {f"class_{number}": np.where(valid, now[:, number], -1.0) for number in range(count)}
    return Update(tables={self.term: new}, shown=shown)


def pair_losses(alike: np.ndarray, margin: float) -> np.ndarray:
  """[B], the mean hinge of each pair with all others, of both directions added, from similarities [B, B].

  Source: ContrastiveLoss of alipay/PC2-NoiseofWeb@c7ea41a, mode "eval_loss".
  """
  own, others = np.diagonal(alike), ~np.eye(len(alike), dtype=bool)
  costs = (np.maximum(margin + alike - own[:, None], 0), np.maximum(margin + alike - own, 0))
  return sum(np.mean(np.where(others, cost, 0), axis) for cost, axis in zip(costs, (1, 0)))


def divergence(now: np.ndarray, then: np.ndarray) -> np.ndarray:
  """KL(now || then) of distributions [E, K] -> [E]."""
  now, then = (np.maximum(x.astype(np.float64), 1e-12) for x in (now, then))
  return np.sum(now * (np.log(now) - np.log(then)), 1)


def _whole(column: jax.Array) -> np.ndarray:
  """A column that devices, of several processes perhaps, share."""
  return np.asarray(column if column.is_fully_addressable else multihost_utils.process_allgather(column, tiled=True))


def _unit(rows: np.ndarray) -> np.ndarray:
  rows = rows.astype(np.float32)
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _softmax(logits: np.ndarray) -> np.ndarray:
  raised = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
  return raised / raised.sum(1, keepdims=True)
