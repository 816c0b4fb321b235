"""Bags of snippets of which only the bag has a label: MACIL's contrast of the sets that scores choose
(Yu et al. 2022, "Modality-Aware Contrastive Instance Learning with Self-Distillation", arXiv:2207.05500)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.criteria import softplus
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values, merge
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.term import Run
from mmcontrast.objectives.tokens import make_tokens


class Chosen(NamedTuple):
  """The snippets of each bag with the largest and the smallest scores: k = length // 16 + 1 of each.

  Attributes:
    top, bottom: [N, K, D], K the largest k that a bag could have.
    slots: bool [N, K], the first k of each.
    score: [N], the mean of the k largest scores.
  """

  top: jax.Array
  bottom: jax.Array
  slots: jax.Array
  score: jax.Array


class SnippetBags(ModuleLoss):
  """`embeddings`: tokens of two modalities with a score each (a head such as token_weighted); an example is a bag.

      bag      cross entropy of the bag's score, the mean of both modalities' k largest, with its label
      contrast weight of four InfoNCE: for a bag called positive, the mean of its k top snippets in one modality finds
               that in the other among (a) the k bottom snippets of all bags, (b) the k top ones of bags called negative

  A bag is called positive where its score, a logit, is above 0. As CMAL of JustinYuu/MACIL_SD@c20943f, which repeats a
  bag's anchor k times: here it weighs k. With no positive or no negative bag the contrast is 0. A bag of one snippet
  has it at the top and at the bottom. Without the paper's self-distillation into the audio-visual model.

  Attributes:
    label: of the dataset.
    positive: the class numbers of it that make a bag positive.
    temperature: of InfoNCE, a number or a schedule.
    contrast: weight of the sum of the four, a number or a schedule; the paper's rises by 0.1 an epoch to 1.5.
  """

  TAKES: ClassVar[tuple[str, ...]] = ("tokens", "weights")
  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature", "contrast")

  label: str = ""
  positive: tuple[int, ...] = (1,)
  temperature: Any = 0.1
  contrast: Any = 1.0

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, D] and weights [N, L] each."""
    if self.is_initializing():
      return jnp.float32(0), {}
    tokens = [make_tokens(widen(view.tokens), view.mask) for view in views]
    first, second = (
      choose_snippets(of.vectors, widen(view.weights), of.mask) for of, view in zip(tokens, views, strict=True)
    )
    score = (first.score + second.score) / 2
    labels = facts.batch["labels"][self.label]
    known = facts.valid & (labels >= 0)
    truth = jnp.isin(labels, jnp.asarray(self.positive))
    count = jnp.maximum(jnp.sum(known), 1)
    bag = jnp.sum(jnp.where(known, softplus(jnp.where(truth, -score, score)), 0.0)) / count
    losses = contrasts(score > 0, first, second, facts, facts.scheduled["temperature"])
    right = jnp.sum(known & ((score > 0) == truth)) / count
    return bag + facts.scheduled["contrast"] * jnp.sum(losses), {
      "bag": bag,
      "contrasted": jnp.sum(losses),
      "top1": right,
    }

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name the tokens of two modalities")
    choose(self.label, run.labels, "module.label")
    classes = len(run.labels[self.label]) if hasattr(run.labels, "keys") else None
    for number in self.positive:
      if classes is not None and not 0 <= number < classes:
        raise UserError(f"module.positive: label {self.label!r} has classes 0 to {classes - 1}, and no {number}")


def choose_snippets(x: jax.Array, scores: jax.Array, mask: jax.Array) -> Chosen:
  """Snippets [N, L, D] by scores [N, L], of those that are there (mask [N, L]). No gradient goes through the choice."""
  most = x.shape[1] // 16 + 1
  lengths = jnp.sum(mask, 1)
  slots = jnp.arange(most) < jnp.where(lengths > 0, lengths // 16 + 1, 0)[:, None]
  kept = lax.stop_gradient(scores)
  top = lax.top_k(jnp.where(mask, kept, -jnp.inf), most)[1]
  bottom = lax.top_k(jnp.where(mask, -kept, -jnp.inf), most)[1]
  largest = jnp.take_along_axis(scores, top, 1)
  score = jnp.sum(jnp.where(slots, largest, 0.0), 1) / jnp.maximum(jnp.sum(slots, 1), 1)
  return Chosen(*(jnp.take_along_axis(x, places[..., None], 1) for places in (top, bottom)), slots, score)


def contrasts(called: jax.Array, first: Chosen, second: Chosen, facts: Facts, temperature: Any) -> jax.Array:
  """The four InfoNCE, [4]: from the first modality against its other's background and normal snippets, and back.

  Args:
    called: bool [N], the bags that are called positive.
  """
  there = facts.valid & jnp.any(first.slots, 1) & jnp.any(second.slots, 1)
  positive, negative = there & called, there & ~called
  means = [normalize(_mean(of.top, of.slots)) for of in (first, second)]
  both = jnp.any(positive) & jnp.any(negative)
  losses = []
  for query, key, of, slots in ((*means, second, first.slots), (*means[::-1], first, second.slots)):
    own = jnp.sum(query * key, -1) / temperature
    for columns, bags in ((of.bottom, there), (of.top, negative)):
      mask = (of.slots & bags[:, None]).reshape(-1)
      flat = {"x": normalize(columns).reshape(-1, columns.shape[-1])}
      rows = {"x": query / temperature}
      others = facts.reduce(_dots, {"lse": Reduction("dots", "row", "logsumexp")}, rows, flat, column_mask=mask)["lse"]
      each = merge("logsumexp", own, others) - own
      # As many copies of a bag's anchor as it has chosen snippets.
      weight = jnp.where(positive, jnp.sum(slots, 1), 0)
      mean = jnp.sum(jnp.where(weight > 0, weight * each, 0.0)) / jnp.maximum(jnp.sum(weight), 1)
      losses.append(jnp.where(both, mean, 0.0))
  return jnp.stack(losses)


def _dots(rows: Any, columns: Any, shared: Any) -> tuple[Values, None]:
  return {"dots": products(rows["x"], columns["x"])}, None


def _mean(x: jax.Array, slots: jax.Array) -> jax.Array:
  """[N, K, D], [N, K] -> [N, D]."""
  return jnp.sum(jnp.where(slots[..., None], x, 0.0), 1) / jnp.maximum(jnp.sum(slots, 1), 1)[:, None]
