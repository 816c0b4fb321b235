"""Segmentation by names: which of some classes each place of an image shows, by vectors of patches and of names.

    score_maps     cosines of patches and class vectors, the patch-text map: nothing is trained
    spliced        patches become means of patches that look alike first (Trident-style, arXiv:2411.09219: what looks
                   alike is said by the tower's own features, by a softmax over cosines above their mean, and not by
                   SAM's and DINO's)
    prototypes     class vectors from a few images with masks, alone or with names (MMProto-style, arXiv:2307.02003)
    Head           DenseCLIP's context-aware class vectors (arXiv:2112.01518): text + gamma * attention of the text to
                   the image, gamma 1e-4 at the start, trained by the cross entropy of cosine / tau; one layer

Maps are made as large as the image, of which pixels of no class are not looked at, and measured by mIoU: of each class
that the truth shows anywhere hits / (hits + wrongly said + missed) over all pixels, and the mean over these classes.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcontrast.evaluation.embed import unit

GAMMA, TAU = 1e-4, 0.07
NOTHING = -1  # the class of pixels that are of none


class Head(NamedTuple):
  """Of the context-aware class vectors: query, key, value and out [D, D], gamma [D]."""

  query: jax.Array
  key: jax.Array
  value: jax.Array
  out: jax.Array
  gamma: jax.Array


def score_maps(patches: np.ndarray, classes: np.ndarray) -> np.ndarray:
  """Cosines [..., K] of patches [..., D] and classes [K, D], unit rows all."""
  return patches @ classes.T


def spliced(patches: np.ndarray, sharpness: float = 10.0) -> np.ndarray:
  """Unit rows [N, P, D]: of each patch the mean of those of its image whose cosine with it is above the mean cosine of
  the image, weighed by exp(sharpness * cosine)."""
  cosines = np.einsum("npd,nqd->npq", patches, patches)
  alike = cosines >= np.minimum(cosines.mean((1, 2), keepdims=True), np.diagonal(cosines, 0, 1, 2)[..., None])
  weights = np.where(alike, np.exp(sharpness * (cosines - 1)), 0.0)
  mixed = np.einsum("npq,nqd->npd", weights / weights.sum(-1, keepdims=True), patches)
  return unit(mixed.reshape(-1, mixed.shape[-1])).reshape(mixed.shape)


def shares(maps: np.ndarray, grid: tuple[int, int], classes: int) -> np.ndarray:
  """float32 [N, P, K]: how much of each patch of a grid (rows, columns) is of each class; maps int [N, S, S], NOTHING
  for none."""
  count, height, width = maps.shape
  rows, columns = (np.arange(side) * cells // side for side, cells in zip((height, width), grid))
  cell = (rows[:, None] * grid[1] + columns[None, :]).reshape(-1)
  out = np.zeros((count, grid[0] * grid[1], classes + 1), np.float32)  # the last: of none
  for number, one in enumerate(maps.reshape(count, -1)):
    np.add.at(out[number], (cell, np.where(one == NOTHING, classes, one)), 1)
  return out[..., :classes] / np.maximum(out.sum(-1, keepdims=True), 1)


def prototypes(patches: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(unit rows [K, D], bool [K] whether a class has one): the mean of patches [N, P, D], each weighed by how much of it
  is of the class, `share` [N, P, K]; zeros for a class that no patch shows."""
  total = np.einsum("npk,npd->kd", share, patches)
  return unit(total), share.sum((0, 1)) > 0


def fused(names: np.ndarray, visual: np.ndarray, has: np.ndarray, weight: float = 0.5) -> np.ndarray:
  """Unit rows [K, D] of classes: weight * visual + (1 - weight) * names; the names' where a class has no other."""
  return unit(np.where(has[:, None], weight * visual + (1 - weight) * names, names))


def guesses(scores: np.ndarray, size: int, among: np.ndarray | None = None) -> np.ndarray:
  """int [size, size]: the class of each pixel of one image, by scores [rows, columns, K] that are made so large, linear
  between the middles of patches; among bool [K]: which classes count."""
  scores = scores if among is None else scores[..., among]
  large = resized(scores, size)
  which = large.argmax(-1)
  return which if among is None else np.flatnonzero(among)[which]


def resized(scores: np.ndarray, size: int) -> np.ndarray:
  """[rows, columns, K] -> [size, size, K], linear between the middles of patches."""
  return np.asarray(_resized(jnp.asarray(scores), size))


@functools.partial(jax.jit, static_argnums=1)
def _resized(scores: jax.Array, size: int) -> jax.Array:
  return jax.image.resize(scores, (size, size, scores.shape[-1]), "linear")


def confusion(truth: np.ndarray, guess: np.ndarray, classes: int) -> np.ndarray:
  """int [K, K]: pixels by what they are and what is guessed; those whose truth is NOTHING are left out."""
  known = truth != NOTHING
  return np.bincount(truth[known] * classes + guess[known], minlength=classes**2).reshape(classes, classes)


def mean_iou(counts: np.ndarray) -> dict[str, float]:
  """miou and pixel accuracy (fractions), and how many classes that is of, by `confusion` [K, K]."""
  hits, true, said = np.diagonal(counts), counts.sum(1), counts.sum(0)
  shown = true > 0
  each = hits[shown] / (true + said - hits)[shown]
  return {"miou": float(each.mean()), "pixel_accuracy": float(hits.sum() / counts.sum()), "classes": float(shown.sum())}


def init_head(key: jax.Array, dim: int) -> Head:
  """A head that changes nearly nothing yet."""
  drawn = [jax.random.normal(one, (dim, dim)) / jnp.sqrt(dim) for one in jax.random.split(key, 4)]
  return Head(*drawn, jnp.full(dim, GAMMA))


def in_context(head: Head, classes: jax.Array, patches: jax.Array) -> jax.Array:
  """Unit class vectors [K, D] of one image: classes [K, D] that attend to its patches [P, D] and their mean."""
  seen = jnp.concatenate([patches.mean(0, keepdims=True), patches])
  scores = (classes @ head.query) @ (seen @ head.key).T / jnp.sqrt(classes.shape[-1])
  moved = classes + head.gamma * (jax.nn.softmax(scores, -1) @ (seen @ head.value) @ head.out)
  return moved / jnp.maximum(jnp.linalg.norm(moved, axis=-1, keepdims=True), 1e-12)


def head_loss(head: Head, classes: jax.Array, patches: jax.Array, share: jax.Array, tau: float = TAU) -> jax.Array:
  """The cross entropy of cosine / tau, each patch weighed by how much of it is of its classes, the mean over images.

  Args:
    classes: [N, C, D], candidates of each image, zeros for none; patches: [N, P, D]; share: [N, P, C].
  """

  def one(classes, patches, share):
    there = jnp.any(classes != 0, -1)
    scores = jnp.where(there, patches @ in_context(head, classes, patches).T / tau, -1e9)
    return -(share * jax.nn.log_softmax(scores, -1)).sum() / jnp.maximum(share.sum(), 1e-6)

  return jax.vmap(one)(classes, patches, share).mean()


@functools.partial(jax.jit, static_argnames=("steps", "batch_size", "learning_rate"))
def train_head(
  classes: jax.Array,
  patches: jax.Array,
  share: jax.Array,
  key: jax.Array,
  *,
  steps: int = 300,
  batch_size: int = 32,
  learning_rate: float = 1e-3,
) -> Head:
  """A head trained by Adam on N images; arguments as of `head_loss`. Batches are drawn with replacement."""
  start, draw = jax.random.split(key)
  head, optimizer = init_head(start, patches.shape[-1]), optax.adam(learning_rate)

  def step(carry, number):
    head, state = carry
    places = jax.random.randint(jax.random.fold_in(draw, number), (batch_size,), 0, len(patches))
    gradient = jax.grad(head_loss)(head, classes[places], patches[places], share[places])
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(head, updates), state), None

  return jax.lax.scan(step, (head, optimizer.init(head)), jnp.arange(steps))[0][0]
