"""CAPro: classes learned from labels that may be wrong, by moving prototypes and a queue that votes (Qin et al. 2023,
"CAPro: webly supervised learning with cross-modality aligned prototypes", arXiv:2310.09761)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.embedding_path import of_momentum
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.term import Run


class Capro(ModuleLoss):
  """`embeddings`: a projection q, what it is projected from, x, and the key k: the momentum projection of another view.

      (1 - beta) CE(W x, y) + beta CE(W x, t) + CE(V q, y) + instance CE([q . k; q . queue] / temperature, 0)
      + reconstruction |R(q) - x|^2 + prototype CE(q P^T / temperature, y)

  q, k of unit length; P one moving prototype a class; R a small network. As forward_webvision and use_soft_label 9 of
  yuleiqin/capro@bd1771c:

  - the keys of the batch enter the queue, which then votes: t is the mean over its keys of alpha softmax(V key) +
    (1 - alpha) softmax(key P^T / temperature), weighed by their cosine with q where that is above 0;
  - from `clean_from` on, where soft = alpha softmax(W x) + (1 - alpha) softmax(q P^T / temperature) reaches `threshold`
    the label becomes its largest class, and an example counts only if it is relabelled, or soft of its label is at
    least 1 / classes;
  - prototypes move to the mean q of the examples that count, momentum^n for n of them, and stay of unit length. The
    released code moves them example after example, whose order matters; with one example a class both are the same.

  Prototypes start as the epoch hook `class_means` writes them; until then there is no term of them, labels stay, and
  the reconstruction also trains q. A class without a prototype is predicted by none. Examples without a label (-1)
  count only once they are given one.

  State: prototypes [classes, D], queue [L, D], newest first, and how much of it is filled.

  Attributes:
    label: of the dataset.
    classes: how many it has.
    queue: keys that vote.
    temperature: of instances and prototypes, a number or a schedule.
    alpha: how much of a vote is the classifier's, and not the prototypes'.
    beta: how much of the target of the classifier is voted.
    threshold: of the probability at which a label is corrected.
    clean_from: the step from which labels are corrected, once there are prototypes.
    momentum: of prototypes.
    hidden: width of the layer of R; None: that of x.
    instance: weight of the instances' part.
    reconstruction: weight of the reconstruction.
    prototype: weight of the prototypes' part.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  label: str
  classes: int
  queue: int = 1024
  temperature: Any = 0.1
  alpha: float = 0.5
  beta: float = 0.1
  threshold: float = 0.6
  clean_from: int = 0
  momentum: float = 0.999
  hidden: int | None = None
  instance: float = 1.0
  reconstruction: float = 1.0
  prototype: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    for name, least in (("classes", 2), ("queue", 1), ("clean_from", 0)):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}: {value!r} is not a whole number of {least} or more")
    for name in ("alpha", "beta", "threshold", "momentum"):
      if not 0 <= getattr(self, name) <= 1:
        raise UserError(f"{name}: {getattr(self, name)} is not in [0, 1]")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D], [N, E] and [N, D]."""
    q, x, key = normalize(views[0].pooled), widen(views[1].pooled), normalize(lax.stop_gradient(views[2].pooled))
    classifier = nn.Dense(self.classes, use_bias=False, dtype=x.dtype, name="classifier")
    low = nn.Dense(self.classes, use_bias=False, dtype=q.dtype, name="classifier_low")
    inner = nn.Dense(self.hidden or x.shape[-1], dtype=q.dtype, name="reconstruct1")
    outer = nn.Dense(x.shape[-1], dtype=q.dtype, name="reconstruct2")
    prototypes = self.variable("state", "prototypes", jnp.zeros, (self.classes, q.shape[-1]), jnp.float32)
    queue = self.variable("state", "queue", jnp.zeros, (self.queue, q.shape[-1]), jnp.float32)
    filled = self.variable("state", "filled", jnp.zeros, (), jnp.int32)
    if self.is_initializing():
      outer(nn.relu(inner(q)))
      return jnp.sum(classifier(x)) + jnp.sum(low(q)), {}
    label, tau, table = facts.batch["labels"][self.label], facts.scheduled["temperature"], prototypes.value
    there = jnp.any(table)
    before = queue.value, jnp.arange(self.queue) < filled.value
    queue.value, filled.value = pushed(queue.value, filled.value, key, facts.valid)
    after = queue.value, jnp.arange(self.queue) < filled.value

    logits, low_logits, by_prototype = classifier(x), low(q), prototype_logits(q, table, tau)
    of_keys = self.alpha * jax.nn.softmax(low(after[0]), -1)
    of_keys += (1 - self.alpha) * jax.nn.softmax(prototype_logits(after[0], table, tau), -1)
    target = lax.stop_gradient(collective_target(q, after[0], of_keys, after[1]))
    soft = self.alpha * jax.nn.softmax(logits, -1) + (1 - self.alpha) * jax.nn.softmax(by_prototype, -1)
    cleans = there & (facts.step >= self.clean_from)
    cleaned, clean = corrected(label, lax.stop_gradient(soft), self.threshold)
    label, kept = jnp.where(cleans, cleaned, label), jnp.where(cleans, clean, label >= 0) & facts.valid

    def mean(each, counted=kept):
      return jnp.sum(jnp.where(counted, each, 0.0)) / jnp.maximum(jnp.sum(counted), 1)

    def of_label(scores):
      return -jnp.take_along_axis(jax.nn.log_softmax(scores, -1), jnp.maximum(label, 0)[:, None], 1)[:, 0]

    bootstrapped = -jnp.sum(target * jax.nn.log_softmax(logits, -1), -1)
    rebuilt = outer(nn.relu(inner(jnp.where(there, lax.stop_gradient(q), q))))
    negatives = jnp.where(before[1], products(q, before[0]) / tau, -jnp.inf)
    own = jnp.sum(q * key, -1, keepdims=True) / tau
    # Where a class has no prototype its examples are not contrasted with the others'.
    has = kept & there & jnp.any(table, -1)[jnp.maximum(label, 0)]
    parts = {
      "class": (1 - self.beta) * mean(of_label(logits)) + self.beta * mean(bootstrapped),
      "low": mean(of_label(low_logits)),
      "instance": mean(jax.nn.logsumexp(jnp.concatenate([own, negatives], 1), -1) - own[:, 0], facts.valid),
      "reconstruction": mean(jnp.mean((rebuilt - lax.stop_gradient(x)) ** 2, -1)),
      "prototype": mean(of_label(jnp.where(has[:, None], by_prototype, 0.0)), has),
    }
    moved = moved_prototypes(table, lax.stop_gradient(q), label, kept, self.momentum)
    prototypes.value = jnp.where(there, moved, table).astype(table.dtype)
    weights = {"instance": self.instance, "reconstruction": self.reconstruction, "prototype": self.prototype}
    changed = facts.valid & (label != facts.batch["labels"][self.label])
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    parts |= {"top1": mean(jnp.argmax(logits, -1) == label)}
    metrics = {**parts, "kept": jnp.sum(kept) / count, "relabelled": jnp.sum(changed) / count}
    return sum(weights.get(name, 1.0) * parts[name] for name in parts if name != "top1"), metrics

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 3 or not of_momentum(names[2]):
      raise UserError(
        f"embeddings: {list(names)} are not three; name a projection, the features that it is of, and the momentum "
        "projection of another view: 'image[0]/image_ssl', 'image[0]/image_features', 'image[1]/image_ssl@momentum'"
      )
    choose(self.label, run.labels, "module.label")
    classes = len(run.labels[self.label]) if isinstance(run.labels, Mapping) else self.classes
    if classes != self.classes:
      raise UserError(f"module.classes: label {self.label!r} has {classes} classes, not {self.classes}; use {classes}")
    if run.examples and self.queue > run.examples:
      raise UserError(
        f"module.queue: {self.queue} keys are more than an epoch of {run.examples}, so some would be in it twice; use "
        f"{run.examples} or fewer"
      )


def pushed(queue: jax.Array, filled: jax.Array, keys: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(queue [L, D] with the keys [N, D] that are valid before the others, how much of it is filled)."""
  order = jnp.argsort(~valid, stable=True)
  arrived, place = jnp.sum(valid), jnp.arange(len(queue))
  old = queue[jnp.clip(place - arrived, 0, len(queue) - 1)]
  new = keys[order][jnp.clip(place, 0, len(keys) - 1)]
  filled = jnp.minimum(filled + arrived, len(queue)).astype(filled.dtype)
  return jnp.where((place < arrived)[:, None], new.astype(queue.dtype), old), filled


def prototype_logits(x: jax.Array, prototypes: jax.Array, temperature: Any) -> jax.Array:
  """[N, C]: x . P^T / temperature; a class whose prototype is zero has -inf, unless all are."""
  there = jnp.any(prototypes, -1)
  return jnp.where(there | ~jnp.any(there), products(x, prototypes) / temperature, -jnp.inf)


def collective_target(q: jax.Array, queue: jax.Array, votes: jax.Array, there: jax.Array) -> jax.Array:
  """[N, C], rows of sum 1: the votes [L, C] of the keys [L, D] that are `there`, by their cosine with q [N, D]."""
  weight = jnp.where(there, jnp.clip(products(q, queue), 0, 1) + 1e-7, 0.0)
  weight = weight / jnp.maximum(jnp.sum(weight, -1, keepdims=True), 1e-30)
  target = jnp.clip(weight @ jnp.where(there[:, None], votes, 0.0), 0, 1)
  return target / jnp.maximum(jnp.sum(target, -1, keepdims=True), 1e-30)


def corrected(label: jax.Array, soft: jax.Array, threshold: float) -> tuple[jax.Array, jax.Array]:
  """(label [N] after correction, bool [N]: which examples count), by the class probabilities soft [N, C]."""
  own = jnp.take_along_axis(soft, jnp.maximum(label, 0)[:, None], 1)[:, 0]
  relabelled = jnp.max(soft, -1) >= threshold
  new = jnp.where(relabelled, jnp.argmax(soft, -1).astype(label.dtype), label)
  return new, relabelled | ((label >= 0) & (own >= 1 / soft.shape[-1]))


def moved_prototypes(
  prototypes: jax.Array, q: jax.Array, label: jax.Array, kept: jax.Array, momentum: float
) -> jax.Array:
  """[C, D] of unit length: m^n P_c + (1 - m^n) times the mean of the n rows q [N, D] of class c that are kept; a class
  of which there is neither a prototype nor a row stays zero."""
  member = jax.nn.one_hot(jnp.where(kept, label, -1), len(prototypes), dtype=q.dtype)
  number = jnp.sum(member, 0)[:, None]
  mean = member.T @ jnp.where(kept[:, None], q, 0.0) / jnp.maximum(number, 1)
  share = momentum**number
  return normalize(share * prototypes + (1 - share) * mean)
