"""SuperClass: the words of a caption as classes of its image (Huang et al. 2024, "Classification done right for
vision-language pre-training", arXiv:2411.03313)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import widen
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.words import check_words, who_has_words, words_of


class WordClassification(ModuleLoss):
  """Cross entropy of logits [N, V] with the tokens of a text view, each weighed by how seldom texts have it.

      words = dict(module=dict(name="word_classification", text="text[0]"), embeddings="image[0]/image_words")

      f_c <- f_c + share of the batch that has token c;  n <- n + 1;  w_c = log((n + 1/N) / (f_c + 1/N))
      mean over examples of  -sum_c p_c log softmax(logits)_c,  p the weights of the example's tokens, to sum 1

  As ClsLoss of x-cls/superclass@90b761f4, but that padding is no token. There is no text tower; the head gives as
  many logits as the tokenizer has pieces: dict(name="match", dim=...). A text all of whose tokens are in every text
  (weight 0) has no target, and no loss.

  State: frequency [V], and count of steps.

  Attributes:
    text: the view whose tokens are predicted; config.data.facts names "ids".
  """

  TAKES = ("logits",)

  text: str = "text[0]"

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: logits [N, V] each; the losses of several are averaged."""
    logits = [widen(view.logits) for view in views]
    words = logits[0].shape[-1]
    frequency = self.variable("state", "frequency", jnp.zeros, (words,), jnp.float32)
    count = self.variable("state", "count", jnp.zeros, (), jnp.float32)
    if self.is_initializing():
      return jnp.float32(0), {}
    has, valid = words_of(facts, self.text, words, logits[0].dtype), who_has_words(facts)
    target, new, steps = word_targets(has, frequency.value, count.value, valid)
    some = jnp.any(valid)
    frequency.value = jnp.where(some, new, frequency.value).astype(jnp.float32)
    count.value = jnp.where(some, steps, count.value).astype(jnp.float32)
    number = jnp.maximum(jnp.sum(valid), 1)
    losses, hits = [], []
    for one in logits:
      each = -jnp.sum(target * jax.nn.log_softmax(one, -1), -1)
      losses.append(jnp.sum(jnp.where(valid, each, 0.0)) / number)
      best = jnp.take_along_axis(has, jnp.argmax(one, -1)[:, None], 1)[:, 0]
      hits.append(jnp.sum(jnp.where(valid, best, 0.0)) / number)
    return sum(losses) / len(losses), {"top1": sum(hits) / len(hits)}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    for name in names:
      head = parse_embedding(name).head
      check_words(self.text, run.head_dims.get(head, run.words or 0), run, "module.text")
      if run.words and run.head_dims.get(head, run.words) != run.words:
        raise UserError(
          f"embeddings: head {head!r} gives {run.head_dims[head]} logits and the tokenizer has {run.words} pieces; "
          f"set config.heads.{head}.dim={run.words}"
        )


def word_targets(
  has: jax.Array, frequency: jax.Array, count: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(targets [N, V] whose rows sum to 1, or to 0 without a word that counts; the frequency [V] and the count after).

  Args:
    has: [N, V] of 0 and 1, which words an example has.
    frequency: sum over steps of the share of examples that had a word. count: of these steps.
    valid: bool [N].
  """
  number = jnp.maximum(jnp.sum(valid), 1)
  frequency = frequency + jnp.sum(jnp.where(valid[:, None], has, 0.0), 0) / number
  count = count + 1
  weight = jnp.maximum(jnp.log((count + 1 / number) / (frequency + 1 / number)), 0.0)
  weighted = has * weight
  total = jnp.sum(weighted, -1, keepdims=True)
  return weighted / jnp.where(total > 0, total, 1.0), frequency, count
