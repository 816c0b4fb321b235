"""SupReMix: supervised contrast over numbers, with mixtures of the batch as hard negatives and hard positives
(Wu et al. 2023, "Mixup Your Own Pairs", arXiv:2309.16633)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.module_loss import Facts, ModuleLoss
from mmcontrast.objectives.reductions import Reduction, Values, merge
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Run

Rows = dict[str, jax.Array]
_KINDS = {"lse": "logsumexp", "peak": "max", "sum": "sum", "count": "sum"}


class SupReMix(ModuleLoss):
  """Views of examples whose label is a number, y; z are unit vectors, all views of all examples are anchors.

      hard negatives of i:  alpha z_i + (1 - alpha) z_k,  of label alpha y_i + (1 - alpha) y_k,  for all y_k != y_i
      hard positives of i:  a z_j + (1 - a) z_k,  a = (y_k - y_i) / (y_k - y_j),  for all y_j < y_i < y_k in the window

      mean_i  1 / positives  sum over positives p of  log sum_c w_ic exp(z_i . c / temperature) - z_i . p / temperature

  Positives are the other embeddings of the same label and the hard positives; c goes over all embeddings but i and all
  mixtures, with w = |y_i - y_c| + 1 for what is farther to count more. Mixtures have no gradient. Source: the index of
  yilei-wu/SupReMix, whose loss exists in two versions and which subtracts from real and mixed logits different row
  maxima, so that its value depends on these; `denominator` and `offsets` say which. An anchor without positives, which
  it divides by 0, costs nothing here and is not counted. An example with label -1 takes no part.

  Attributes:
    label: of the dataset, whose class numbers are y.
    temperature: a number or a schedule.
    window: how far y_j and y_k may be from y_i.
    alpha: share of the anchor in a hard negative; None: drawn for each example from Beta(2, 8), as released.
    distance: "wider", w as above, as its script has it; "nearer": w = 1 / (|y_i - y_c| + 1), its function's default.
    denominator: what a sum over positives is divided by: their number ("positives") or one more ("positives_and_one").
    offsets: "one" for real and mixed logits: a softmax; "apart", as released.
    partners: how many embeddings z_j of the batch hard positives are made with, drawn by the examples' seeds; 0: all.
      Time grows with it; memory is linear in the batch.
    unit: whether vectors are brought to unit length here.
  """

  SCHEDULED: ClassVar[tuple[str, ...]] = ("temperature",)
  CHOICES: ClassVar = {
    "distance": ("wider", "nearer"), "denominator": ("positives", "positives_and_one"), "offsets": ("one", "apart"),
  }  # fmt: skip

  label: str = ""
  temperature: Any = 0.3
  window: float = 5.0
  alpha: float | None = None
  distance: str = "wider"
  denominator: str = "positives"
  offsets: str = "one"
  partners: int = 0
  unit: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.alpha is not None and not 0 <= self.alpha <= 1:
      raise UserError(f"alpha: {self.alpha} is not in [0, 1]; None draws it")
    if not self.window > 0:
      raise UserError(f"window: {self.window} is not above 0; SupReMix uses 5")
    if self.partners < 0:
      raise UserError(f"partners: {self.partners} is not a number of embeddings (0: all of them)")

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: pooled [N, D] each."""
    if self.is_initializing():
      return jnp.float32(0), {}
    x = jnp.stack([normalize(view.pooled) if self.unit else widen(view.pooled) for view in views], 1)
    x = x.reshape(-1, x.shape[-1])  # an example's views together, so that a sharded N stays so
    labels, count = facts.batch["labels"][self.label], len(views)
    valid = jnp.repeat(facts.valid & (labels >= 0), count)
    y = jnp.repeat(labels, count).astype(x.dtype)
    fixed, anchors = lax.stop_gradient(x), x / facts.scheduled["temperature"]
    rows = {
      "x": anchors, "y": y, "position": jnp.arange(len(y), dtype=jnp.int32), "own": jnp.sum(anchors * fixed, -1),
      "alpha": jnp.repeat(self._alphas(facts), count).astype(x.dtype),
    }  # fmt: skip
    columns = {"x": x, "fixed": fixed, "y": y, "position": rows["position"]}
    reduce = partial(facts.reduce, row_mask=valid, column_mask=valid)
    real = reduce(partial(_real, self.distance), _reductions("real") | _reductions("hard"), rows, columns)
    between = self._between(reduce, rows, columns, valid, facts)
    mixed = {kind: merge(of, real[f"hard:{kind}"], between[kind]) for kind, of in _KINDS.items()}
    real = {kind: real[f"real:{kind}"] for kind in _KINDS}
    # Absent mixtures are zeros as released, whose logits are part of the maximum.
    offsets = (real["peak"], jnp.maximum(mixed["peak"], 0.0)) if self.offsets == "apart" else (0.0, 0.0)
    a, b = (lax.stop_gradient(jnp.where(valid, offset, 0.0)) for offset in offsets)
    some = valid & ((number := real["count"] + mixed["count"]) > 0)
    whole = merge("logsumexp", *(jnp.where(some, part, 0.0) for part in (real["lse"] - a, mixed["lse"] - b)))
    each = real["count"] * (whole + a) - real["sum"] + mixed["count"] * (whole + b) - mixed["sum"]
    each = each / jnp.where(some, number + (self.denominator == "positives_and_one"), 1.0)
    total = jnp.maximum(jnp.sum(some), 1)
    loss = jnp.sum(jnp.where(some, each, 0.0)) / total
    return loss, {"positives": jnp.sum(jnp.where(some, number, 0.0)) / total}

  def _between(self, reduce: Any, rows: Rows, columns: Rows, valid: jax.Array, facts: Facts) -> Values:
    """Statistics of the hard positives of each anchor, one partner z_j after the other."""
    chosen = self._partners(valid, facts)
    kinds = {kind: Reduction(kind, "row", of) for kind, of in _KINDS.items()}

    @jax.checkpoint
    def of_partner(stats: Values, partner: Rows) -> tuple[Values, None]:
      found = reduce(partial(_between, self.window), kinds, rows, columns, partner)
      there = {kind: jnp.where(partner["valid"], found[kind], stats[kind] * 0 if of == "sum" else -jnp.inf)
               for kind, of in _KINDS.items()}  # fmt: skip
      return {kind: merge(of, stats[kind], there[kind]) for kind, of in _KINDS.items()}, None

    empty = {kind: jnp.full(len(valid), 0.0 if of == "sum" else -jnp.inf, rows["x"].dtype)
             for kind, of in _KINDS.items()}  # fmt: skip
    partners = {"x": columns["fixed"][chosen], "y": columns["y"][chosen], "valid": valid[chosen]}
    return lax.scan(of_partner, empty, partners)[0]

  def _partners(self, valid: jax.Array, facts: Facts) -> jax.Array:
    """Which embeddings are partners, int32: all, or so many drawn of those that take part."""
    if not 0 < self.partners < len(valid):
      return jnp.arange(len(valid))
    views = len(valid) // len(facts.valid)

    def draw(seed: jax.Array) -> jax.Array:
      return jax.random.uniform(jax.random.fold_in(jax.random.key(seed), 1), (views,))

    order = jnp.where(valid, jax.vmap(draw)(facts.batch["seed"]).reshape(-1), 2.0)
    return jnp.argsort(order)[: self.partners]

  def _alphas(self, facts: Facts) -> jax.Array:
    """[N]."""
    if self.alpha is not None:
      return jnp.full(len(facts.valid), self.alpha)

    def draw(seed: jax.Array) -> jax.Array:
      # Beta(2, 8) is the second smallest of nine uniform numbers.
      return jnp.sort(jax.random.uniform(jax.random.fold_in(jax.random.key(seed), 0), (9,)))[1]

    return jax.vmap(draw)(facts.batch["seed"])

  def check_views(self, names: Sequence[str], run: Run) -> None:
    choose(self.label, run.labels, "module.label")


def _reductions(prefix: str) -> dict[str, Reduction]:
  return {f"{prefix}:{kind}": Reduction(f"{prefix}:{kind}", "row", of) for kind, of in _KINDS.items()}


def _log_weight(distance: str, gap: jax.Array) -> jax.Array:
  return jnp.log1p(gap) if distance == "wider" else -jnp.log1p(gap)


def _real(distance: str, rows: Rows, columns: Rows, shared: Any) -> tuple[Values, None]:
  """The embeddings themselves, and the hard negatives, which are one a column too."""
  logits, itself = products(rows["x"], columns["x"]), same(rows["position"], columns["position"])
  gap = jnp.abs(rows["y"][:, None] - columns["y"])
  positive, rest = (gap == 0) & ~itself, 1 - rows["alpha"][:, None]
  hard = (rows["alpha"] * rows["own"])[:, None] + rest * products(rows["x"], columns["fixed"])
  nothing = jnp.zeros_like(logits)
  return {
    "real:lse": jnp.where(itself, -jnp.inf, logits + _log_weight(distance, gap)),
    "real:peak": logits,
    "real:sum": jnp.where(positive, logits, 0.0),
    "real:count": positive.astype(logits.dtype),
    "hard:lse": jnp.where(gap > 0, hard + _log_weight(distance, rest * gap), -jnp.inf),
    "hard:peak": jnp.where(gap > 0, hard, -jnp.inf),
    "hard:sum": nothing,
    "hard:count": nothing,
  }, None


def _between(window: float, rows: Rows, columns: Rows, partner: Rows) -> tuple[Values, None]:
  """The hard positives of one partner, which is at or below the anchor: one for each column above it."""
  below, above = (rows["y"] - partner["y"])[:, None], columns["y"] - rows["y"][:, None]
  fits = (below > 0) & (above > 0) & (below <= window) & (above <= window)
  share = above / jnp.where(fits, above + below, 1.0)
  of_partner = jnp.einsum("rd,d->r", rows["x"], partner["x"], precision="highest")[:, None]
  mixed = share * of_partner + (1 - share) * products(rows["x"], columns["fixed"])
  nowhere = jnp.where(fits, mixed, -jnp.inf)
  return {
    "lse": nowhere, "peak": nowhere, "sum": jnp.where(fits, mixed, 0.0), "count": fits.astype(mixed.dtype),
  }, None  # fmt: skip
