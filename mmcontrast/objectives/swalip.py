"""SwALIP: who is paired with whom, as soft codes of another pair of views (Fini et al. 2023, arXiv:2305.08675)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, products
from mmcontrast.objectives.swav import sinkhorn
from mmcontrast.objectives.term import Run


class Swalip(ModuleLoss):
  """`embeddings`: two views of images, then two of texts. The batch itself is the set of prototypes.

      mean over views v, w and both directions of  -sinkhorn(T_{1-v,1-w}) . log softmax(T_vw / temperature),

  T_vw the cosines of image view v with text view w. As SwALIPV1Loss of facebookresearch/clip-rocket@ebd9e586. The
  [N, N] matrices are made whole.

  Attributes:
    temperature: of the softmax that predicts, a number or a schedule.
    epsilon: how soft the codes are: cosines are divided by it.
    iterations: rounds of Sinkhorn.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)

  temperature: Any = 0.1
  epsilon: float = 0.05
  iterations: int = 3

  def __post_init__(self):
    super().__post_init__()
    if not self.epsilon > 0:
      raise UserError(f"epsilon: {self.epsilon} is not above 0; SwALIP uses 0.05")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    images, texts = ([normalize(view.pooled) for view in views[i : i + 2]] for i in (0, 2))
    matrices = {(v, w): products(images[v], texts[w]) for v in range(2) for w in range(2)}
    each = [self._follow(matrices[v, w], matrices[1 - v, 1 - w], facts) for v, w in matrices]
    each += [self._follow(matrices[v, w].T, matrices[1 - v, 1 - w].T, facts) for v, w in matrices]
    return sum(each) / len(each), {}

  def _follow(self, predicted: jax.Array, coded: jax.Array, facts: Facts) -> jax.Array:
    """The cross entropy of `predicted` [N, N] to the codes of `coded`, over the examples that take part."""
    pairs = facts.valid[:, None] & facts.valid
    codes = self._codes(lax.stop_gradient(coded), facts.valid)
    logits = jnp.where(facts.valid, predicted / facts.scheduled["temperature"], -jnp.inf)
    logs = jax.nn.log_softmax(jnp.where(facts.valid[:, None], logits, 0.0), -1)
    return -jnp.sum(jnp.where(pairs, codes * logs, 0.0)) / jnp.maximum(jnp.sum(facts.valid), 1)

  def _codes(self, scores: jax.Array, valid: jax.Array) -> jax.Array:
    """Sinkhorn over the rows and columns that take part."""
    # `sinkhorn` gives every prototype 1 / K; one that is absent takes none of it, and rows end with a sum of one.
    scores = jnp.where(valid, scores, -jnp.inf)
    return sinkhorn(scores, valid, self.epsilon, self.iterations)

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 4:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name two views of images, then two of texts")
