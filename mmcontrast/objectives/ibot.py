"""iBOT: what a momentum teacher says of the patches that a student does not see (Zhou et al., arXiv:2111.07832)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.means import mean_of_valid, of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import widen
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.view_pairs import within_views


class Ibot(ModuleLoss):
  """`embeddings` are maps of logits (head `token_prototypes`): students' of `image_masked[k]`, teachers' of
  `image[k]@momentum`.

      mean over students, then over examples, of the mean over hidden patches i of
        -softmax((t_i - c) / T_t) . log softmax(s_i / T_s);   0 for an example of which nothing is hidden
      c <- m c + (1 - m) mean of t over all patches of the teachers and the global batch, after use

  The loss is that of facebookresearch/dinov2@b8931f7b, iBOTPatchLoss; the centre is iBOT's (in DINOv2 it is the mean
  over hidden patches only).

  Attributes:
    temperature: T_s, a number or a schedule.
    teacher_temperature: T_t, a number or a schedule; iBOT warms it up from 0.04 to 0.07.
    momentum: m, of the centre.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "grid")
  VIEW_FACTS: ClassVar[tuple[str, ...]] = ("masked",)
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature", "teacher_temperature")

  temperature: Any = 0.1
  teacher_temperature: Any = 0.04
  momentum: float = 0.9

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.momentum < 1:
      raise UserError(f"momentum: {self.momentum} is not in [0, 1); iBOT uses 0.9")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, K] each, which are a map."""
    centre = self.variable("state", "centre", jnp.zeros, views[0].tokens.shape[-1:], jnp.float32)
    if self.is_initializing():
      return jnp.float32(0), {}
    pairs, x = within_views(facts.names), [widen(of_valid(view.tokens, facts.valid)) for view in views]
    losses, shares = [], []
    for s, t in pairs:
      hidden = facts.of_view(facts.names[s], "masked")
      teacher = (lax.stop_gradient(x[t]) - centre.value) / facts.scheduled["teacher_temperature"]
      each = hidden_cross_entropy(x[s], jax.nn.softmax(teacher, -1), hidden, facts.scheduled["temperature"])
      losses.append(mean_of_valid(each, facts.valid))
      shares.append(mean_of_valid(jnp.mean(hidden, 1), facts.valid))
    mean = sum(mean_of_valid(jnp.mean(x[t], 1), facts.valid) for _, t in pairs) / len(pairs)
    new = self.momentum * centre.value + (1 - self.momentum) * lax.stop_gradient(mean)
    centre.value = jnp.where(jnp.any(facts.valid), new, centre.value).astype(centre.value.dtype)
    return sum(losses) / len(losses), {"hidden": sum(shares) / len(shares)}

  def view_facts(self, name: str) -> tuple[str, ...]:
    source = parse_embedding(name).source
    return () if source == source.original else self.VIEW_FACTS

  def check_views(self, names: Sequence[str], run: Run) -> None:
    paired = {place for pair in within_views(names) for place in pair}
    if lone := [name for place, name in enumerate(names) if place not in paired]:
      raise UserError(
        f"embeddings: {lone[0]!r} has no other version of its view; name students, 'image_masked[0]/HEAD', and for "
        "each its teacher, 'image[0]/HEAD@momentum'"
      )
    if not names:
      raise UserError("embeddings: none; name 'image_masked[0]/HEAD' and 'image[0]/HEAD@momentum'")


def hidden_cross_entropy(student: jax.Array, targets: jax.Array, hidden: jax.Array, temperature: Any) -> jax.Array:
  """Logits and probabilities [N, L, K], bool [N, L] -> [N]: the mean over hidden patches; 0 where there is none.

  Source: iBOTPatchLoss.forward of facebookresearch/dinov2@b8931f7b.
  """
  each = -jnp.sum(targets * jax.nn.log_softmax(student / temperature, -1), -1)
  return jnp.sum(jnp.where(hidden, each, 0.0), 1) / jnp.maximum(jnp.sum(hidden, 1), 1)
