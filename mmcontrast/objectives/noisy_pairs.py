"""Pairs of which some are wrong: soft margins, pseudo-classes and borrowed captions (PC2, Duan et al. 2024,
arXiv:2408.01349)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Run

MARGINS = ("linear", "exponential", "sine")
_CHUNK = 1 << 22  # similarities of class distributions that are held at a time


class NoisyPairs(ModuleLoss):
  """`embeddings`: images and texts in the joint space, then both through heads of K pseudo-classes.

      hinge   of an example i, its text's margin m_i:  max_j relu(m_j + s_ij - s_ii) + max_j relu(m_i + s_ji - s_ii)
      m_i     margin times y_i, (10^y_i - 1) / 9 or (1 + sin(pi (y_i - 1/2))) / 2; y_i how likely the pair is right
      class   cross entropy of the image's classes with the largest class of its text, less `entropy` times the entropy
              of the image's classes: of right pairs

  y comes from two posteriors that the epoch hook `pair_mixture` writes, p of a small loss and q of a steady prediction:
  y = p + (1 - p) q, q only above `threshold`. A pair with p below it is wrong: the image borrows the text of the right
  pair of the batch whose image has the most similar classes, y is their cosine, and 0 below 0.5. Right and wrong pairs
  have negatives among their like alone, and a borrowed text is no negative of who borrowed it. Until the hook has
  written, all pairs are right.

  As alipay/PC2-NoiseofWeb@c7ea41a, where the margin is that of the column in both directions. It adds the mean of the
  classes' losses to the sum of the batch's hinges: here both are divided by their number. It trains two networks, each
  with the other's split: one here.

  Table: small (p) and steady (q), 1 of an example not seen yet, and class_k, its last prediction, which the hook keeps.

  Attributes:
    margin: of a pair that is right for certain.
    soft: how the margin grows with y: "linear", "exponential", "sine".
    threshold: of p and q.
    hardest: share of the hardest negative in the hinge; the rest is the mean over the batch, with which the released
      code warms up. A number or a schedule.
    classes: weight of the classes' loss.
    entropy: see above.
    borrow: whether wrong pairs borrow; else they take no part.
    count: K.
  """

  ONE_SPACE = False
  SCHEDULED: ClassVar[tuple[str, ...]] = ("hardest",)
  CHOICES: ClassVar = {"soft": MARGINS}

  margin: float = 0.2
  soft: str = "exponential"
  threshold: float = 0.5
  hardest: Any = 1.0
  classes: float = 1.0
  entropy: float = 1.0
  borrow: bool = True
  count: int = 16

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.threshold < 1:
      raise UserError(f"threshold: {self.threshold} is not in [0, 1); PC2 uses 0.5")
    if self.count < 2:
      raise UserError(f"count: {self.count} is not a number of classes; give 2 or more, and as many to the heads")

  @property
  def table(self) -> Mapping[str, float]:
    return {"small": 1.0, "steady": 1.0} | {f"class_{number}": -1.0 for number in range(self.count)}

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D], [N, D], [N, K], [N, K]."""
    images, texts = (normalize(view.pooled) for view in views[:2])
    image_logits, text_logits = (widen(view.pooled) for view in views[2:])
    y = rightness(facts.rows["small"], facts.rows["steady"], self.threshold)
    right = facts.valid & (y > 0)
    wrong, origin = facts.valid & ~right, jnp.arange(len(y))
    if self.borrow:
      shares = lax.stop_gradient(normalize(jax.nn.softmax(image_logits, -1)))
      origin, alike = most_similar(shares, right, origin, wrong)
      some = jnp.any(right)
      y = jnp.where(wrong, jnp.where(some & (alike >= 0.5), alike, 0.0), y)
      wrong &= some
      texts = jnp.where(wrong[:, None], texts[origin], texts)
    taken = right | wrong if self.borrow else right
    margins = self.margin * softened(y, self.soft)
    costs = hinge(images, texts, margins, origin, wrong, taken, facts, facts.scheduled["hardest"])
    classes, spread = pseudo_classes(image_logits, lax.stop_gradient(text_logits))
    count, known = (jnp.maximum(jnp.sum(x), 1) for x in (taken, right))
    pairs = jnp.sum(jnp.where(taken, costs, 0.0)) / count
    named = jnp.sum(jnp.where(right, classes - self.entropy * spread, 0.0)) / known
    everyone = jnp.maximum(jnp.sum(facts.valid), 1)
    metrics = {"pairs": pairs, "classes": named, "right": jnp.sum(right) / everyone}
    metrics["borrowed"] = jnp.sum(wrong & (y > 0)) / everyone if self.borrow else jnp.zeros(())
    metrics["class_entropy"] = entropy_of_mean(jax.nn.softmax(text_logits, -1), facts.valid)
    return pairs + self.classes * named / count, metrics

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 4:
      raise UserError(
        f"embeddings: {list(names)} are {len(names)}; name image and text in the joint space, then both as classes"
      )
    heads = [parse_embedding(name).head for name in names]
    for pair in (heads[:2], heads[2:]):
      dims = [run.head_dims.get(head) for head in pair]
      if None not in dims and dims[0] != dims[1]:
        raise UserError(
          f"embeddings: heads {pair[0]!r} and {pair[1]!r} give {dims[0]} and {dims[1]} numbers; make them equal"
        )
    for head in heads[2:]:
      if run.head_dims.get(head, self.count) != self.count:
        raise UserError(
          f"module.count: {self.count} pseudo-classes, and head {head!r} gives {run.head_dims[head]}; make them equal"
        )


def rightness(small: jax.Array, steady: jax.Array, threshold: float) -> jax.Array:
  """y of pairs from the posteriors of a small loss and of a steady prediction, [N]; 0 of a pair that is wrong."""
  raised = small + (1 - small) * jnp.where(steady > threshold, steady, 0.0)
  return jnp.where(small > threshold, raised, 0.0)


def softened(y: jax.Array, form: str) -> jax.Array:
  """What share of the margin a pair of rightness y has."""
  if form == "linear":
    return y
  return (10.0**y - 1) / 9 if form == "exponential" else (jnp.sin(math.pi * (y - 0.5)) + 1) / 2


def hinge(
  images: jax.Array,
  texts: jax.Array,
  margins: jax.Array,
  origin: jax.Array,
  group: jax.Array,
  taken: jax.Array,
  facts: Facts,
  hardest: jax.Array | float = 1.0,
) -> jax.Array:
  """The cost of each example, [N], of both directions, with the margins [N] of the columns.

  Args:
    images, texts: of unit length, [N, D].
    origin: int [N], whose text each has; that of its own is no negative.
    group: bool [N]; examples of different groups are not negatives of each other.
    taken: bool [N], who is compared.
    hardest: share of the hardest negative; the rest is the mean over all of the group, itself counted as 0.
  """
  own = jnp.sum(images * texts, -1)
  rows = {"x": images, "own": own, "origin": origin, "group": group}
  columns = {"x": texts, "own": own, "origin": origin, "group": group, "margin": margins.astype(own.dtype)}
  reduce = partial(facts.reduce, row_mask=taken, column_mask=taken)
  peaks = reduce(_costs, {axis: Reduction(axis, axis, "max") for axis in _AXES}, *lax.stop_gradient((rows, columns)))
  rows["peak"], columns["peak"] = (jnp.maximum(lax.stop_gradient(peaks[axis]), 0.0) for axis in _AXES)
  kinds = {f"{axis}{part}": Reduction(f"{axis}{part}", axis, "sum") for axis in _AXES for part in ("", ":top", ":tops")}
  found = reduce(_tops, kinds | {"count": Reduction("count", "row", "sum")}, rows, columns)
  most = sum(found[f"{axis}:top"] / jnp.maximum(found[f"{axis}:tops"], 1) for axis in _AXES)
  mean = sum(found[axis] for axis in _AXES) / jnp.maximum(found["count"], 1)
  return hardest * most + (1 - hardest) * mean


_AXES = ("row", "column")


def _costs(rows: Any, columns: Any, shared: Any) -> tuple[Values, None]:
  """What each pair costs the row, and the column; 0 of what is no negative."""
  alike, margin = products(rows["x"], columns["x"]), columns["margin"][None]
  together = same(rows["group"], columns["group"])
  negative = together & ~same(rows["origin"], columns["origin"])
  costs = {"row": margin + alike - rows["own"][:, None], "column": margin + alike - columns["own"]}
  values = {axis: jnp.where(negative, jax.nn.relu(cost), 0.0) for axis, cost in costs.items()}
  return values | {"count": together.astype(alike.dtype)}, None


def _tops(rows: Any, columns: Any, shared: Any) -> tuple[Values, None]:
  """The same, and those that are as large as the largest to rounding: sums of them have gradients, where equality with
  a number that was computed before can fail."""
  values, _ = _costs(rows, columns, shared)
  for axis, peak in (("row", rows["peak"][:, None]), ("column", columns["peak"])):
    near = 64 * jnp.finfo(peak.dtype).eps * (1 + peak)
    top = (values[axis] > 0) & (values[axis] >= peak - near)
    values |= {f"{axis}:top": jnp.where(top, values[axis], 0.0), f"{axis}:tops": top.astype(peak.dtype)}
  return values, None


def pseudo_classes(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Of logits [N, K] of images: the cross entropy with the largest of the targets [N, K], and the entropy, [N] each."""
  logs = jax.nn.log_softmax(logits, -1)
  largest = jnp.argmax(targets, -1)[:, None]
  return -jnp.take_along_axis(logs, largest, 1)[:, 0], -jnp.sum(jnp.exp(logs) * logs, -1)


def entropy_of_mean(shares: jax.Array, valid: jax.Array) -> jax.Array:
  """The entropy of the mean distribution of the examples that take part: 0 where all are of one class."""
  mean = jnp.sum(jnp.where(valid[:, None], shares, 0.0), 0) / jnp.maximum(jnp.sum(valid), 1)
  mean = jnp.maximum(mean, 1e-8)
  return -jnp.sum(mean * jnp.log(mean))


def most_similar(
  rows: jax.Array, among: jax.Array, otherwise: jax.Array, wanted: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """For the unit rows [N, K] that are `wanted`, the most similar of those `among`, and the cosine; else `otherwise`.

  A chunk of rows at a time, so that memory is linear in N.
  """
  size = max(1, min(len(rows), _CHUNK // len(rows)))
  padded = jnp.pad(rows, ((0, -len(rows) % size), (0, 0))).reshape(-1, size, rows.shape[1])

  def of_chunk(part: jax.Array) -> tuple[jax.Array, jax.Array]:
    alike = jnp.where(among, part @ rows.T, -jnp.inf)
    return jnp.argmax(alike, 1), jnp.max(alike, 1)

  best, alike = (x.reshape(-1)[: len(rows)] for x in lax.map(of_chunk, padded))
  found = wanted & jnp.any(among)
  return jnp.where(found, best, otherwise), jnp.where(found, alike, 0.0)
