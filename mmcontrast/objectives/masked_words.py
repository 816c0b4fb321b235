"""Masked language modelling: words that were taken from a text, guessed from the others, and from an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import widen
from mmcontrast.objectives.term import Run

MOMENTUM = "@momentum"


class MaskedWords(ModuleLoss):
  """Cross entropy of logits [N, L, V] with the words that were there, a mean over all that were chosen.

      words = dict(module=dict(name="masked_words", share=0.4), embeddings=(
        "fusion(text_masked[0], image[0])/words", "fusion(text_masked[0], image[0])/words@momentum"))

  With a path of the momentum branch beside one of the online branch, `share` of the target is what the former guesses:
  `(1 - share) CE + share * -sum_v p_v log q_v` (momentum distillation: ALBEF, arXiv:2107.07651, eq. 7). Losses of
  several online paths are averaged. Texts are of the views `text_masked` (config.data.masked_words), at the first end
  of the path, and config.data.facts names "ids" and "masked". A batch without a chosen word has the loss 0.

  Attributes:
    share: of the momentum branch in the target; a number or a schedule.
  """

  TAKES = ("logits",)
  SCHEDULED: ClassVar[tuple[str, ...]] = ("share",)

  share: Any = 0.0

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: logits [N, L, V] each."""
    if self.is_initializing():
      return jnp.float32(0), {}
    made, losses, plain, hits = dict(zip(facts.names, views, strict=True)), [], [], []
    for name in (name for name in made if not name.endswith(MOMENTUM)):
      logits, ids = widen(made[name].logits), facts.of_view(name, "ids")
      if logits.shape[1] != ids.shape[1]:
        raise UserError(
          f"embeddings: {name!r} is of {logits.shape[1]} tokens and its text has {ids.shape[1]}; name a path whose "
          "tokens are those of the text"
        )
      chosen = facts.of_view(name, "masked") & facts.valid[:, None]
      teacher = made.get(f"{name}{MOMENTUM}")
      each, entropy = guess_losses(logits, ids, None if teacher is None else teacher.logits, facts.scheduled["share"])
      count = jnp.maximum(jnp.sum(chosen), 1)
      hit = jnp.argmax(logits, -1) == ids
      for found, one in ((losses, each), (plain, entropy), (hits, hit)):
        found.append(jnp.sum(jnp.where(chosen, one, 0.0)) / count)
    mean = lambda found: sum(found) / len(found)  # noqa: E731
    return mean(losses), {"accuracy": mean(hits), "perplexity": jnp.exp(mean(plain))}

  def view_facts(self, name: str) -> tuple[str, ...]:
    return ("ids", "masked") if _views(name) == "text_masked" else ()  # of others check_views says what is wrong

  def check_views(self, names: Sequence[str], run: Run) -> None:
    online = [name for name in names if not name.endswith(MOMENTUM)]
    for name in names:
      if (views := _views(name)) != "text_masked":
        raise UserError(
          f"embeddings: {name!r} is of {views} views, of which no word was taken; write text_masked[0], with "
          "data.masked_words.views=1"
        )
      if name.removesuffix(MOMENTUM) not in online:
        raise UserError(f"embeddings: {name!r} teaches {name.removesuffix(MOMENTUM)!r}, which is not named; add it")
    teachers = len(names) - len(online)
    if teachers and not hasattr(self.share, "keys") and not self.share:
      raise UserError(f"module.share: 0 leaves {names[-1]!r} without use; ALBEF's is 0.4, or leave that path out")
    if not teachers and self.share:
      raise UserError(
        f"module.share: {self.share!r} is of a momentum branch; add {online[0] + MOMENTUM!r}, or set it to 0"
      )


def _views(name: str) -> str:
  """The set of views at the first end of a path."""
  return parse_embedding(name).source.first.views


def guess_losses(
  logits: jax.Array, ids: jax.Array, teacher: jax.Array | None, share: jax.Array | float
) -> tuple[jax.Array, jax.Array]:
  """(loss, cross entropy with the words themselves) of each place, [N, L].

  Args:
    logits: [N, L, V], float32 or wider. ids: int [N, L]; negative ones are of no word.
    teacher: logits [N, L, V] of the branch that teaches; None: none does. share: of the target that it makes.
  """
  log_probability = jax.nn.log_softmax(logits, -1)
  entropy = -jnp.take_along_axis(log_probability, jnp.maximum(ids, 0)[..., None], -1)[..., 0]
  if teacher is None:
    return entropy, entropy
  soft = -jnp.sum(jax.nn.softmax(teacher.astype(logits.dtype), -1) * log_probability, -1)
  return (1 - share) * entropy + share * soft, entropy
