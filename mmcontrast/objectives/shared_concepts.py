"""What GLSCL asks of the outputs of shared queries: that they differ, and that modalities agree (arXiv 2405.12710)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.score import normalize, widen
from mmcontrast.objectives.term import Run


class SharedConcepts(ModuleLoss):
  """`embeddings`: tokens of images (or videos), then of texts, of heads `shared_queries`; p and n are the last
  `queries` of each, of unit length.

      diversity    mean over q != r, both ways, of relu(margin + s_qr - s_qq),  s = mean_b p_bq . p_br, of images alone
      consistency  mean (mean_b p - mean_b n)^2 + beta sum_q (r_q - 0.75)^2,  r_q = sum_b p_bq . n_bq / divisor

  As zchoi/GLSCL@06979f8, which divides r_q by the number of queries; the mean cosine, of which 0.75 can be asked, has
  the number of examples there.

  Attributes:
    queries: outputs of queries at the end of the tokens.
    diversity: weight of it (released: 1e-4).
    beta: see above (released: 0.02).
    margin: see above.
    divisor: "examples" or, as released, "queries".
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens",)
  CHOICES: ClassVar = {"divisor": ("examples", "queries")}

  queries: int = 8
  diversity: float = 1e-4
  beta: float = 0.02
  margin: float = 0.1
  divisor: str = "examples"

  def __post_init__(self):
    super().__post_init__()
    if self.queries < 1:
      raise UserError(f"queries: {self.queries} is not a number of queries; give that of the heads")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, D] each."""
    for name, view in zip(facts.names, views):
      if view.tokens.shape[1] < self.queries:
        raise UserError(
          f"queries: {self.queries}, and {name!r} has {view.tokens.shape[1]} tokens; give its head's queries"
        )
    p, n = (normalize(widen(view.tokens[:, view.tokens.shape[1] - self.queries :])) for view in views)
    keep = facts.valid[:, None, None]
    p, n = (jnp.where(keep, x, 0.0) for x in (p, n))
    count = jnp.maximum(jnp.sum(facts.valid), 1)
    alike = jnp.einsum("bqd,brd->qr", p, p, precision="highest") / count
    diversity = margin_ranking(alike, self.margin)
    agree = jnp.sum(p * n, (0, 2)) / (count if self.divisor == "examples" else self.queries)
    apart = jnp.mean(((jnp.sum(p, 0) - jnp.sum(n, 0)) / count) ** 2)
    consistency = jnp.where(jnp.any(facts.valid), apart + self.beta * jnp.sum((agree - 0.75) ** 2), 0.0)
    diversity = jnp.where(jnp.any(facts.valid), diversity, 0.0)
    return self.diversity * diversity + consistency, {"diversity": diversity, "consistency": consistency}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name the tokens of images, then those of texts")


def margin_ranking(alike: jax.Array, margin: float) -> jax.Array:
  """The mean over q != r of relu(margin + s_qr - s_qq), plus that of relu(margin + s_qr - s_rr), of s [Q, Q]."""
  own, count = jnp.diagonal(alike), len(alike)
  costs = sum(jax.nn.relu(margin + alike - of) for of in (own[:, None], own))
  return jnp.sum(jnp.where(jnp.eye(count, dtype=bool), 0.0, costs)) / max(count * (count - 1), 1)
