"""DenseCLIP's score maps, decoded (Rao et al., arXiv:2112.01518, section 3.3): towers stay frozen, a small head learns.

    s = z t^T           cosines of the K class vectors t and of the vectors z that places have in the joint space
    x' = [x, s]         what the image tower makes of the places, and the score maps behind it
    loss = CE(decoder(x')) + 0.4 CE(s / 0.07)

The class vectors are those of names, or names in context (segmentation.in_context), which learn by both parts of the
loss; without context only the decoder learns, since s is what the frozen towers make it. The constants are those of the
authors' code. Ours: two convolutions for its Semantic FPN, whose parameters begin at random; x is scaled to mean 0 and
deviation 1 over the images that are learned from; truth is taken at the middle of each cell that is decoded.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcontrast.evaluation.adaptation.segmentation import NOTHING, TAU, Head, in_context, init_head

AUXILIARY = 0.4  # the weight of the loss of the score maps themselves
FINER = 2  # rows and columns that are decoded for one place of the tower
WIDTH = 64
BATCH, LEARNING_RATE, WEIGHT_DECAY = 16, 1e-3, 1e-4


class Decoder(nn.Module):
  """Logits [N, 2 rows, 2 columns, K] of x' [N, rows, columns, F + K], by two 3 x 3 convolutions."""

  classes: int
  width: int = WIDTH

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = nn.gelu(nn.LayerNorm(name="near_norm")(nn.Dense(self.width, name="near")(_neighbours(x))))
    x = jax.image.resize(x, (len(x), FINER * x.shape[1], FINER * x.shape[2], self.width), "linear")
    x = nn.gelu(nn.LayerNorm(name="far_norm")(nn.Dense(self.width, name="far")(_neighbours(x))))
    return nn.Dense(self.classes, name="classes")(x)


def _neighbours(x: jax.Array) -> jax.Array:
  """[N, rows, columns, 9 C]: each place with those around it, row by row, zeros beyond the edge.

  A matrix times these is a 3 x 3 convolution, which a CPU is slow at within a loop.
  """
  _, rows, columns, _ = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
  return jnp.concatenate([padded[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)], -1)


class Trained(NamedTuple):
  """What has learned: the decoder's parameters, and the head of class vectors in context (None: they are the names');
  mean and deviation of x, float32 [F] each."""

  decoder: Any
  context: Head | None
  mean: np.ndarray
  deviation: np.ndarray


def score_maps(context: Head | None, patches: jax.Array, names: jax.Array) -> jax.Array:
  """s, [N, rows, columns, K]: cosines of places [N, rows, columns, D] and names [K, D], unit rows all; in context each
  image has class vectors of its own."""
  if context is None:
    return patches @ names.T
  flat = patches.reshape(len(patches), -1, patches.shape[-1])
  classes = jax.vmap(lambda one: in_context(context, names, one))(flat)
  return jnp.einsum("nrcd,nkd->nrck", patches, classes)


def at_middles(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
  """int [N, rows, columns]: the class of the pixel in the middle of each cell of a grid; maps int [N, H, W]."""
  rows, columns = ((2 * np.arange(cells) + 1) * side // (2 * cells) for side, cells in zip(maps.shape[1:], grid))
  return maps[:, rows[:, None], columns]


def cross_entropy(logits: jax.Array, classes: jax.Array) -> jax.Array:
  """The mean over cells [...] that are of a class, of logits [..., K]; 0 where none is."""
  known = classes != NOTHING
  each = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.where(known, classes, 0))
  return jnp.sum(jnp.where(known, each, 0)) / jnp.maximum(known.sum(), 1)


def decoded(trained: Trained, features: jax.Array, patches: jax.Array, names: jax.Array) -> tuple[jax.Array, jax.Array]:
  """(logits [N, 2 rows, 2 columns, K], score maps [N, rows, columns, K]).

  Args:
    features: x as the tower makes it, [N, rows, columns, F]. patches, names: as of `score_maps`.
  """
  scores = score_maps(trained.context, patches, names)
  x = jnp.concatenate([(features - trained.mean) / trained.deviation, scores], -1)
  return Decoder(len(names)).apply({"params": trained.decoder}, x), scores


def loss(
  trained: Trained, features: jax.Array, patches: jax.Array, names: jax.Array, fine: jax.Array, coarse: jax.Array
) -> jax.Array:
  """The cross entropy of the logits and AUXILIARY times that of the score maps; fine, coarse: classes by cell, int
  [N, 2 rows, 2 columns] and [N, rows, columns], NOTHING for none."""
  logits, scores = decoded(trained, features, patches, names)
  return cross_entropy(logits, fine) + AUXILIARY * cross_entropy(scores / TAU, coarse)


def train(
  features: np.ndarray,
  patches: np.ndarray,
  names: np.ndarray,
  maps: np.ndarray,
  key: jax.Array,
  *,
  context: bool = False,
  steps: int = 300,
) -> Trained:
  """A decoder trained by AdamW on N images, whose rate falls along a cosine; batches are drawn with replacement.

  Args:
    features, patches, names: as of `decoded`. maps: int [N, S, S], the class of each pixel, NOTHING for none.
    context: whether class vectors attend to the image, and learn it too.
  """
  rows, columns = patches.shape[1:3]
  fine, coarse = at_middles(maps, (FINER * rows, FINER * columns)), at_middles(maps, (rows, columns))
  flat = features.reshape(-1, features.shape[-1])
  mean, deviation = flat.mean(0), flat.std(0) + 1e-6
  decoder, head = _learn(features, patches, names, fine, coarse, mean, deviation, key, context, steps)
  return Trained(decoder, head, mean, deviation)


@functools.partial(jax.jit, static_argnames=("context", "steps"))
def _learn(features, patches, names, fine, coarse, mean, deviation, key, context, steps):
  """(decoder, context) after training."""
  of_decoder, of_context, draw = jax.random.split(key, 3)
  x = jnp.zeros((1, *features.shape[1:3], features.shape[-1] + len(names)))
  decoder = Decoder(len(names)).init(of_decoder, x)["params"]
  learned = decoder, init_head(of_context, names.shape[-1]) if context else None
  optimizer = optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, steps), weight_decay=WEIGHT_DECAY)

  def of_batch(learned, places):
    batch = features[places], patches[places], names, fine[places], coarse[places]
    return loss(Trained(*learned, mean, deviation), *batch)

  def step(carry, number):
    learned, state = carry
    places = jax.random.randint(jax.random.fold_in(draw, number), (BATCH,), 0, len(patches))
    updates, state = optimizer.update(jax.grad(of_batch)(learned, places), state, learned)
    return (optax.apply_updates(learned, updates), state), None

  return jax.lax.scan(step, (learned, optimizer.init(learned)), jnp.arange(steps))[0][0]
