"""Any pair of classes is a positive pair in a subspace of its own (Wu et al. 2024, "Rethinking Positive Pairs in
Contrastive Learning", arXiv:2410.18200)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.criteria import softplus
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Run

Rows = Mapping[str, jax.Array]


class GatedSubspaces(ModuleLoss):
  """`embeddings`: queries, then keys, of one view each. Example i, of class y_i, is paired with a class y'_i, that of
  another example of the batch, and a network makes of both classes a gate of the dimensions:

      g_i = sigmoid(MLP((E[y_i] + E[y'_i]) / 2))
      l_ij = scale n(z_i g_i) . n(k_j g_i)  ("renormalized"),  or  scale sum_d n(z_i)_d g_id^2 n(k_j)_d  ("weighted")
      mean over positives (i, j), y_j = y'_i, of  log(e^l_ij + sum_m e^l_im) - l_ij,  m of neither y_i nor y'_i

  The first is Hydra's (erow/hydra), the second SimLAP's. The partner is the next in a random cycle through the batch,
  drawn by the examples' seeds; an example without a label takes no part. The gates' network is E of 512, ReLU, batch
  norm, and layers of 1,024 and D with both between; it is normalised by the examples of the batch that take part.

  Attributes:
    label: of the dataset.
    classes: how many it has.
    form: "renormalized" or "weighted".
    scale: at the start; learned (released: 20 and 10).
    mean: over all positives ("positives"), or over each example's and then over examples ("examples").
  """

  CHOICES: ClassVar = {"form": ("renormalized", "weighted"), "mean": ("positives", "examples")}

  label: str = ""
  classes: int = 2
  form: str = "renormalized"
  scale: float = 20.0
  mean: str = "positives"

  def __post_init__(self):
    super().__post_init__()
    if not self.scale > 0:
      raise UserError(f"scale: {self.scale} is not above 0; Hydra starts at 20")

  @nn.compact
  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    queries, keys = (widen(view.pooled) for view in views)
    labels = facts.batch.get("labels", {}).get(self.label, jnp.zeros(len(queries), jnp.int32))
    valid = facts.valid & (labels >= 0)
    partners = partner_classes(labels, valid, facts.batch.get("seed", jnp.arange(len(labels), dtype=jnp.uint32)))
    gates = Gates(self.classes, queries.shape[-1], name="gates")(labels, partners, valid)
    log_scale = self.param("log_scale", lambda _: jnp.log(jnp.float32(self.scale)))
    scale = jnp.exp(jnp.clip(log_scale, 0.0, jnp.log(100.0)))
    loss, count = subspace_loss(queries, keys, gates, labels, partners, valid, scale, self.form, self.mean, facts)
    everyone = jnp.maximum(jnp.sum(valid), 1)
    open_gates = jnp.sum(jnp.where(valid[:, None], gates, 0.0)) / (everyone * gates.shape[-1])
    return loss, {"positives": count / everyone, "open": open_gates, "scale": scale}

  def check_views(self, names: Sequence[str], run: Run) -> None:
    if len(names) != 2:
      raise UserError(f"embeddings: {list(names)} are {len(names)}; name queries and keys")
    choose(self.label, run.labels, "module.label")
    known = len(run.labels[self.label]) if isinstance(run.labels, Mapping) else self.classes
    if self.classes != known:
      raise UserError(
        f"module.classes: {self.classes}, and label {self.label!r} has {known} classes; set it to {known}"
      )


class Gates(nn.Module):
  """Gates of pairs of classes."""

  classes: int
  dim: int

  @nn.compact
  def __call__(self, first: jax.Array, second: jax.Array, valid: jax.Array) -> jax.Array:
    """int [N], int [N], bool [N] -> [N, dim] in (0, 1)."""
    table = nn.Embed(self.classes, 512, name="embed")
    x = (table(jnp.maximum(first, 0)) + table(jnp.maximum(second, 0))) / 2
    x = nn.Dense(1024, name="fc1")(Standard(name="norm1")(nn.relu(x), valid))
    x = nn.Dense(self.dim, name="fc2")(Standard(name="norm2")(nn.relu(x), valid))
    return jax.nn.sigmoid(x)


class Standard(nn.Module):
  """Batch norm by the examples that take part, without running statistics: gates are made in training alone."""

  @nn.compact
  def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
    """[N, D], bool [N] -> [N, D]."""
    keep, count = valid[:, None], jnp.maximum(jnp.sum(valid), 1)
    mean = jnp.sum(jnp.where(keep, x, 0.0), 0) / count
    variance = jnp.sum(jnp.where(keep, (x - mean) ** 2, 0.0), 0) / count
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias


def partner_classes(labels: jax.Array, valid: jax.Array, seeds: jax.Array) -> jax.Array:
  """The class of each example's partner, int [N]: the next in a random cycle of those that are valid."""
  draws = jax.vmap(lambda seed: jax.random.uniform(jax.random.key(seed)))(seeds)
  order = jnp.argsort(jnp.where(valid, draws, 2.0))
  following = order[(jnp.arange(len(order)) + 1) % jnp.maximum(jnp.sum(valid), 1)]
  return labels[jnp.zeros_like(order).at[order].set(following)]


def subspace_loss(
  queries: jax.Array,
  keys: jax.Array,
  gates: jax.Array,
  labels: jax.Array,
  partners: jax.Array,
  valid: jax.Array,
  scale: jax.Array | float,
  form: str,
  mean: str,
  facts: Facts,
) -> tuple[jax.Array, jax.Array]:
  """(the loss of `GatedSubspaces`, how many positives there are).

  Args:
    queries, keys, gates: [N, D]; labels, partners: int [N], y and y'.
  """
  squares = gates * gates
  if form == "renormalized":  # n(z g) . n(k g) = (n(z g) g) . k / sqrt(g^2 . k^2)
    rows = {"x": scale * normalize(queries * gates) * gates, "squares": squares}
    columns = {"x": keys, "squares": keys * keys}
  else:
    rows, columns = {"x": scale * normalize(queries) * squares}, {"x": normalize(keys)}
  rows |= {"label": labels, "partner": partners}
  columns |= {"label": labels}
  negatives = {"lse": Reduction("negative", "row", "logsumexp")}
  rows["lse"] = facts.reduce(_negatives, negatives, rows, columns, column_mask=valid)["lse"]
  kinds = {name: Reduction(name, "row", "sum") for name in ("cost", "count")}
  found = facts.reduce(_positives, kinds, rows, columns, column_mask=valid)
  cost, count = (jnp.where(valid, found[name], 0.0) for name in ("cost", "count"))
  total = jnp.sum(count)
  if mean == "positives":
    return jnp.sum(cost) / jnp.maximum(total, 1), total
  some = count > 0
  return jnp.sum(jnp.where(some, cost / jnp.maximum(count, 1), 0.0)) / jnp.maximum(jnp.sum(some), 1), total


def _logits(rows: Rows, columns: Rows) -> jax.Array:
  logits = products(rows["x"], columns["x"])
  if "squares" not in rows:
    return logits
  return logits * jax.lax.rsqrt(jnp.maximum(products(rows["squares"], columns["squares"]), 1e-24))


def _negatives(rows: Rows, columns: Rows, shared: Any) -> tuple[Values, jax.Array]:
  either = same(rows["label"], columns["label"]) | same(rows["partner"], columns["label"])
  return {"negative": _logits(rows, columns)}, ~either


def _positives(rows: Rows, columns: Rows, shared: Any) -> tuple[Values, None]:
  positive = same(rows["partner"], columns["label"])
  some = rows["lse"] > -jnp.inf
  gap = jnp.where(some, rows["lse"], 0.0)[:, None] - _logits(rows, columns)
  cost = jnp.where(positive & some[:, None], softplus(gap), 0.0)
  return {"cost": cost, "count": positive.astype(cost.dtype)}, None
