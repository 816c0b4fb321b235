"""VLAP: images and texts predict each other's assignment to the words of a language model (Park et al. 2024, "Bridging
vision and language spaces with assignment prediction", arXiv:2404.09632)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.swav import Table
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.words import check_words, words_of


class AssignmentPrediction(ModuleLoss):
  """Two embeddings; each predicts which of fixed prototypes the other is assigned to.

      1/2 mean_i [ -q(b_i) . log softmax(a_i C / temperature) - q(a_i) . log softmax(b_i C / temperature) ]
      q(x) = softmax(x C / epsilon + iterations * log prior),  prior = softmax(frequency / 0.25)

  a, b and the prototypes C of unit length. As park-jungin/vlap@5caf538, whose rounds of Sinkhorn come to this softmax,
  as they divide examples only. Prototypes have no gradient: they come from elsewhere, such as the word embeddings of a
  text tower, by config.init of "terms/NAME/prototypes/kernel", and config.optimizer.frozen keeps them as they are.

  State: frequency [K], how many texts had each word until now. Released is a file of the vocabulary's distribution.

  Attributes:
    prototypes: how many.
    text: the view whose words are counted for the prior, where prototypes are the tokenizer's pieces, as in "text[0]";
      "": all prototypes are equally frequent.
    temperature: of the softmax that predicts, a number or a schedule (released: 0.01).
    epsilon: how soft assignments are (released: 0.01).
    iterations: how often the prior counts.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  prototypes: int = 2000
  text: str = ""
  temperature: Any = 0.01
  epsilon: float = 0.01
  iterations: int = 3

  def __post_init__(self):
    super().__post_init__()
    for name, least in (("prototypes", 2), ("iterations", 0)):
      value = getattr(self, name)
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}: {value!r} is not a whole number of {least} or more")
    if not self.epsilon > 0:
      raise UserError(f"epsilon: {self.epsilon} is not above 0; VLAP uses 0.01")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D], two of them."""
    a, b = (normalize(view.pooled) for view in views)
    if a.shape[-1] != b.shape[-1]:
      raise UserError(
        f"embeddings: {facts.names[0]!r} has {a.shape[-1]} numbers and {facts.names[1]!r} {b.shape[-1]}; both are "
        "compared with the same prototypes, so give their heads one dim"
      )
    table = normalize(lax.stop_gradient(Table(self.prototypes, name="prototypes")(a.shape[-1])))
    scores = products(a, table), products(b, table)
    frequency = self._frequency(facts, a.dtype)
    codes = [lax.stop_gradient(assignments(one, frequency, self.epsilon, self.iterations)) for one in scores]
    logs = [jax.nn.log_softmax(one / facts.scheduled["temperature"], -1) for one in scores]
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    each = -jnp.sum(codes[1] * logs[0] + codes[0] * logs[1], -1) / 2
    agree = facts.valid & (jnp.argmax(codes[0], -1) == jnp.argmax(codes[1], -1))
    return jnp.sum(jnp.where(facts.valid, each, 0.0)) / count, {"agree": jnp.sum(agree) / count}

  def _frequency(self, facts: Facts, dtype: Any) -> jax.Array:
    """[K], of sum 1: the words of the texts until now, this batch included."""
    if not self.text:
      return jnp.zeros(self.prototypes, dtype)
    frequency = self.variable("state", "frequency", jnp.zeros, (self.prototypes,), jnp.float32)
    if self.is_initializing():
      return frequency.value
    new = frequency.value + jnp.sum(words_of(facts, self.text, self.prototypes, dtype), 0)
    frequency.value = new.astype(jnp.float32)
    return new / jnp.maximum(jnp.sum(new), 1)

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name two, such as an image's and a text's")
    if self.text:
      check_words(self.text, self.prototypes, run, "module.text")


def assignments(scores: jax.Array, frequency: jax.Array, epsilon: float, iterations: int) -> jax.Array:
  """Soft assignments [N, K] of rows with cosines `scores` [N, K]; prototypes of a greater `frequency` [K] take more."""
  prior = jax.nn.log_softmax(frequency / 0.25)
  return jax.nn.softmax(scores / epsilon + iterations * prior, -1)
