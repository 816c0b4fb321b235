"""Text-only transfer: a head that is trained on texts alone and used on images (CLOSE, arXiv:2211.09778).

In a joint space the vectors of an image and of its caption lie near each other, but not in the same place. A head that
learns on unit text vectors x is made to bear that by noise, drawn anew at every step, as the authors' code adds it:

    x' = (x + std * n) / |x + std * n|        n normal, [D]; std 0.04 to 0.12 in the paper

The head is one linear layer, trained by Adam on the cross entropy; the paper's is a language model. Protocol
`text_transfer-v1`: trained on captions of the training part, tested on images of the other splits. Beside it stand the
same head without noise, and trained on images of the training part, which is what texts alone could reach at best.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmcontrast.errors import UserError
from mmcontrast.evaluation.adaptation.labelled_things import all_names, shown
from mmcontrast.evaluation.embed import cosines
from mmcontrast.evaluation.embedded_set import EmbeddedSet, labels_of
from mmcontrast.evaluation.zero_shot import PROMPTS, classified

WHERE = "text_transfer"
USUAL_LABEL = "group"  # the emoji's; without it every label of the data
METRICS = ("accuracy", "accuracy_without_noise", "accuracy_trained_on_images")


class Head(NamedTuple):
  """A linear layer: weight [D, K], bias [K]."""

  weight: jax.Array
  bias: jax.Array

  def scores(self, rows: np.ndarray) -> np.ndarray:
    """float [N, D] -> [N, K]."""
    return np.asarray(rows @ self.weight + self.bias)


def noisy(rows: jax.Array, std: float, key: jax.Array) -> jax.Array:
  """Unit rows [N, D] with normal noise, brought to unit length again."""
  moved = rows + std * jax.random.normal(key, rows.shape, rows.dtype)
  return moved / jnp.maximum(jnp.linalg.norm(moved, axis=-1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames=("classes", "steps", "batch_size", "learning_rate"))
def train_head(
  rows: jax.Array,
  labels: jax.Array,
  key: jax.Array,
  std: float,
  *,
  classes: int,
  steps: int = 500,
  batch_size: int = 256,
  learning_rate: float = 1e-2,
) -> Head:
  """A head that tells `classes` classes apart, trained on rows [N, D] with noise; labels int [N].

  Batches are drawn with replacement. The weights start at zero.
  """
  head = Head(jnp.zeros((rows.shape[1], classes)), jnp.zeros(classes))
  optimizer = optax.adam(learning_rate)

  def loss(head, x, label):
    return optax.softmax_cross_entropy_with_integer_labels(x @ head.weight + head.bias, label).mean()

  def step(carry, number):
    head, state = carry
    which, noise = jax.random.split(jax.random.fold_in(key, number))
    places = jax.random.randint(which, (batch_size,), 0, len(rows))
    gradient = jax.grad(loss)(head, noisy(rows[places], std, noise), labels[places])
    updates, state = optimizer.update(gradient, state)
    return (optax.apply_updates(head, updates), state), None

  return jax.lax.scan(step, (head, optimizer.init(head)), jnp.arange(steps))[0][0]


def evaluate(
  tests: Sequence[EmbeddedSet],
  bank: Sequence[EmbeddedSet],
  *,
  label: str | Sequence[str] | None = None,
  std: float = 0.08,
  steps: int = 500,
  learning_rate: float = 1e-2,
  test_splits: Sequence[str] = ("validation", "test"),
  seed: int = 0,
) -> dict[str, dict[str, float]]:
  """Accuracy on images of a head that saw only texts: "text_transfer/group_accuracy", see METRICS.

  Args:
    label: the classes; None: "group" of emoji, else every label of the data.
    std: of the noise.
    steps: of Adam.
    learning_rate: of Adam.
    seed: of batches and noise.
  Raises UserError for a run without a joint space of texts and something else, and where a part is empty.
  """
  if std < 0 or steps < 1 or learning_rate <= 0:
    raise UserError(f"{WHERE}: std is 0 or more, steps is 1 or more, learning_rate is above 0")
  out: dict[str, dict[str, float]] = {test.name: {} for test in tests}
  for one in labels_of(label, USUAL_LABEL, bank[0].data.label_names):
    classes = all_names(bank, one, f"{WHERE}.label")
    heads = {}
    for metric, modality, noise in zip(METRICS, (PROMPTS, PROMPTS, _shown(bank[0])), (std, 0.0, 0.0)):
      rows, labels = _rows(bank, modality, one, classes, ("train",))
      options = dict(classes=len(classes), steps=steps, learning_rate=learning_rate)
      heads[metric] = train_head(rows, labels, jax.random.key(seed), noise, **options)
    for test in tests:
      rows, labels = _rows([test], _shown(test), one, classes, test_splits)
      for metric, head in heads.items():
        out[test.name][f"{WHERE}/{one}_{metric}"] = float(np.mean(head.scores(rows).argmax(1) == labels))
  return out


def _rows(
  sets: Sequence[EmbeddedSet], modality: str, label: str, classes: Sequence[str], splits: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Unit rows [N, D] of labelled things of one modality, and the class of each."""
  rows, labels = [], []
  for one in sets:
    one.check(modality, WHERE)
    places, of = shown(one, modality, label, classes, splits, f"{WHERE}.label")
    rows.append(one.joint(modality)[places])
    labels.append(of)
  if not sum(map(len, labels)):
    named = ", ".join(one.name for one in sets)
    raise UserError(f"{WHERE}.label: no {modality} of {named} has {label!r} and is of split {', '.join(splits)}")
  return np.concatenate(rows), np.concatenate(labels)


def _shown(test: EmbeddedSet) -> str:
  """The modality that is tested."""
  found = classified(test.space, list(test.data.things))
  if test.compare is not cosines or not found or PROMPTS not in (test.space.joint or [PROMPTS]):
    raise UserError(
      f"{WHERE}: needs a run with two heads of single vectors, of texts and of images or sounds "
      f"(config.evaluation.image, .{PROMPTS}); leave it out of config.evaluation.evaluators"
    )
  return found
