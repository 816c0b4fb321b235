"""Regularizers: what is asked of the embeddings themselves, beside the terms, in the same objective.

    align = dict(regularizer="alignment", embeddings=("image[0]/image_joint", "text[0]/text_joint"),
                 stop_gradient=(),  # those of them that get none (SimSiam's second view)
                 weight=1.0)

A regularizer is a function of vectors [N, D] in float32 or wider, which are of unit length unless it
says otherwise (`prepare`). One that compares examples
goes over the tiles of the global matrix (`reduce_tiles`): memory linear in N, on any mesh. Examples
that are not valid, or lack a modality it reads, are in no sum and no count. The weights of examples
are those of anchors, of which a regularizer has none.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError, choose, nearest
from mmcontrast.objectives.comparison import LossMatrix
from mmcontrast.objectives.embedding_path import of_momentum, one_dim, parse_embedding, parse_names
from mmcontrast.objectives.global_matrix import reduce_tiles
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.reductions import Reduction, Values, reduce_values
from mmcontrast.objectives.score import normalize, products, widen
from mmcontrast.objectives.side import same
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Run, Term
from mmcontrast.registry import REQUIRED, build, check_options

Embeddings = Sequence[jax.Array]  # [N, D] each, as prepared
Rows = dict[str, jax.Array]  # "x" [n, D] and more, of the rows or the columns of a tile
Matrix = Callable[..., Values]  # `reduce_tiles` of one batch, its masks among the options


@dataclass(frozen=True)
class Function(abc.ABC):
  """What is asked of embeddings; its fields are a config's options.

  Attributes:
    takes: how many embeddings; None: one or more.
    across: whether vectors of one embedding meet those of the other, and so must be of one length.
    cells: numbers that a tile holds for each pair of examples; 0: no matrix.
    examples: how few a batch may have.
  """

  takes: ClassVar[int | None] = 2
  across: ClassVar[bool] = True
  cells: ClassVar[int] = 0
  examples: ClassVar[int] = 1

  def prepare(self, x: jax.Array) -> jax.Array:
    """[N, D] of any float type -> what `loss` takes."""
    return normalize(x)

  @abc.abstractmethod
  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    """A scalar. `valid`: bool [N], which examples there are; None: all."""


@dataclass(frozen=True)
class Alignment(Function):
  """`mean_i |a_i - b_i|^2` (Wang and Isola 2020, arXiv:2005.10242): 2 less twice the mean cosine."""

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    distances = jnp.sum((a - b) ** 2, -1)
    kept = distances if valid is None else jnp.where(valid, distances, 0.0)
    return jnp.sum(kept) / jnp.maximum(_number(a, valid), 1)


@dataclass(frozen=True)
class Uniformity(Function):
  """`log mean_{i != j} exp(-t |a_i - a_j|^2)` (Wang and Isola 2020), and its mean over embeddings."""

  t: float = 2.0
  takes: ClassVar[int | None] = None
  across: ClassVar[bool] = False
  cells: ClassVar[int] = 1

  def __post_init__(self):
    if not self.t > 0:
      raise UserError(f"t: {self.t} is not above 0; Wang and Isola use 2")

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    return sum(self._potential(x, x, valid, matrix) for x in embeddings) / len(embeddings)

  def _potential(self, a: jax.Array, b: jax.Array, valid, matrix: Matrix) -> jax.Array:
    """`log mean_{i != j} exp(-t |a_i - b_j|^2)`; zero for a single example."""
    place = {"position": jnp.arange(a.shape[0], dtype=jnp.int32)}
    sums = {"sums": Reduction("value", "row", "logsumexp")}
    rows = matrix(partial(_minus_distance, self.t), sums, {"x": a} | place, {"x": b} | place)["sums"]
    total = reduce_values("logsumexp", rows if valid is None else jnp.where(valid, rows, -jnp.inf), 0)
    number = jnp.maximum(_number(rows, valid), 2).astype(rows.dtype)
    some = total != -jnp.inf  # NaN stays NaN
    return jnp.where(some, jnp.where(some, total, 0.0) - jnp.log(number * (number - 1)), 0.0)


@dataclass(frozen=True)
class CrossUniformity(Uniformity):
  """`log mean_{i != j} exp(-t |a_i - b_j|^2)` (Fahim, Murphy and Fyshe 2024, arXiv:2405.18570)."""

  takes: ClassVar[int | None] = 2
  across: ClassVar[bool] = True

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    return self._potential(*embeddings, valid, matrix)


@dataclass(frozen=True)
class InModalConsistency(Function):
  """`N mean_ij (a_i.a_j - b_i.b_j)^2`: two examples are as alike in one modality as in the other.

  CyCLIP (Goel et al. 2022, arXiv:2205.14459), whose weight is 0.25.
  """

  takes: ClassVar[int | None] = 2
  across: ClassVar[bool] = False
  cells: ClassVar[int] = 2

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    return self._gap({"x": a, "y": b}, {"x": a, "y": b}, valid, matrix)

  def _gap(self, rows: Rows, columns: Rows, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    total = matrix(_squared_difference, {"total": Reduction("value", "all", "sum")}, rows, columns)["total"]
    return total / jnp.maximum(_number(rows["x"], valid), 1)


@dataclass(frozen=True)
class CrossModalConsistency(InModalConsistency):
  """`N mean_ij (a_i.b_j - a_j.b_i)^2`: the matrix of similarities is symmetric (CyCLIP, 0.25)."""

  across: ClassVar[bool] = True

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    return self._gap({"x": a, "y": b}, {"x": b, "y": a}, valid, matrix)


# ---- Redundancy ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class VicReg(Function):
  """Variance, invariance, covariance (Bardes et al. 2022, arXiv:2105.04906), of vectors as they are.

      sim * mean (a - b)^2 + std * (h(a) + h(b)) / 2 + cov * (c(a) + c(b))
      h(a) = mean_d relu(1 - sqrt(var_d + 1e-4)),  c(a) = sum_{d != e} C_de^2 / D,  of the unbiased covariance C

  sim: weight of the distance of the two.
  std: weight of the variance.
  cov: weight of the covariance.
  """

  sim: float = 25.0
  std: float = 25.0
  cov: float = 1.0
  examples: ClassVar[int] = 2

  def prepare(self, x: jax.Array) -> jax.Array:
    return widen(x)

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    a, b = embeddings
    invariance = jnp.sum(_kept((a - b) ** 2, valid)) / (jnp.maximum(_number(a, valid), 1) * a.shape[1])
    spread, redundant = zip(*(self._of_one(x, valid) for x in embeddings))
    return self.sim * invariance + self.std * sum(spread) / 2 + self.cov * sum(redundant)

  def _of_one(self, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    number, dim = jnp.maximum(_number(x, valid), 2), x.shape[1]
    x = _kept(x - jnp.sum(_kept(x, valid), 0) / number, valid)
    covariance = jnp.einsum("nd,ne->de", x, x, precision=lax.Precision.HIGHEST) / (number - 1)
    variance = jnp.diagonal(covariance)
    redundant = (jnp.sum(covariance**2) - jnp.sum(variance**2)) / dim
    return jnp.mean(jax.nn.relu(1.0 - jnp.sqrt(variance + 1e-4))), redundant


@dataclass(frozen=True)
class BarlowTwins(Function):
  """The correlation of two views' dimensions becomes the identity (Zbontar et al. 2021, arXiv:2103.03230).

      sum_d (1 - C_dd)^2 + off_diagonal * sum_{d != e} C_de^2,  C of vectors standardised over the batch

  off_diagonal: weight of what is off the diagonal.
  standardize: False takes vectors as they are, of heads that end in a batch norm (BarLIP, arXiv:2305.08675).
  """

  off_diagonal: float = 0.0051
  standardize: bool = True
  examples: ClassVar[int] = 2

  def prepare(self, x: jax.Array) -> jax.Array:
    return widen(x)

  def loss(self, embeddings: Embeddings, valid: jax.Array | None, matrix: Matrix) -> jax.Array:
    number = jnp.maximum(_number(embeddings[0], valid), 1)
    a, b = (self._standard(x, valid, number) if self.standardize else _kept(x, valid) for x in embeddings)
    correlation = jnp.einsum("nd,ne->de", a, b, precision=lax.Precision.HIGHEST) / number
    own = jnp.diagonal(correlation)
    return jnp.sum((1.0 - own) ** 2) + self.off_diagonal * (jnp.sum(correlation**2) - jnp.sum(own**2))

  @staticmethod
  def _standard(x: jax.Array, valid: jax.Array | None, number: jax.Array) -> jax.Array:
    x = _kept(x - jnp.sum(_kept(x, valid), 0) / number, valid)
    return x * lax.rsqrt(jnp.sum(x * x, 0) / number + 1e-5)


def _kept(x: jax.Array, valid: jax.Array | None) -> jax.Array:
  """[N, ...], zeros where an example does not take part."""
  return x if valid is None else jnp.where(valid[:, None], x, 0.0)


REGULARIZERS: dict[str, type[Function]] = {
  "vicreg": VicReg,
  "barlow_twins": BarlowTwins,
  "alignment": Alignment,
  "uniformity": Uniformity,
  "cross_uniformity": CrossUniformity,
  "in_modal_consistency": InModalConsistency,
  "cross_modal_consistency": CrossModalConsistency,
}


# ---- Over the matrix ----------------------------------------------------------------------------


def _minus_distance(t: float, rows: Rows, columns: Rows, shared) -> tuple[Values, jax.Array]:
  """`-t |x - x'|^2` of different examples."""
  return {"value": 2.0 * t * (products(rows["x"], columns["x"]) - 1.0)}, ~same(rows["position"], columns["position"])


def _squared_difference(rows: Rows, columns: Rows, shared) -> tuple[Values, None]:
  return {"value": (products(rows["x"], columns["x"]) - products(rows["y"], columns["y"])) ** 2}, None


def _number(x: jax.Array, valid: jax.Array | None) -> jax.Array:
  return jnp.asarray(x.shape[0]) if valid is None else jnp.sum(valid)


# ---- In the objective ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Regularizer(Term):
  """A kind of term that compares nothing: `function` of `embeddings`, of which some may have no gradient."""

  name: str
  names: tuple[str, ...]
  function: Function
  weight: Any
  fixed: tuple[str, ...] = ()

  @property
  def embeddings(self) -> tuple[str, ...]:
    return self.names

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    """Of the valid examples; none of "@momentum", or of `fixed`, has a gradient."""
    valid = taking_part(facts, self.reads)
    matrix = partial(reduce_tiles, row_mask=valid, column_mask=valid, cells=self.function.cells, **now.matrix)
    inputs = []
    for name in self.embeddings:
      x = self.function.prepare(nodes[name].pooled)
      inputs.append(lax.stop_gradient(x) if of_momentum(name) or name in self.fixed else x)
    metrics = {} if valid is None else {"anchors": jnp.sum(valid, dtype=jnp.float32)}
    return Outcome(self.function.loss(inputs, valid, matrix), metrics)

  def check(self, run: Run) -> None:
    where = f"objective.{self.name}"
    for name in self.embeddings:
      fields = run.fields(head := parse_embedding(name).head)
      if "pooled" not in fields:
        gives = "a vector for each token" if "tokens" in fields else " and ".join(sorted(fields))
        raise UserError(
          f"{where}.embeddings: head {head!r} gives {gives}, and a regularizer takes one for each "
          f"example; {nearest(head, [other for other in run.heads if 'pooled' in run.fields(other)])}"
        )
    if self.function.across:
      one_dim(self.name, self.embeddings, run.head_dims)
    if run.batch_size < self.function.examples:
      raise UserError(
        f"{where}.regularizer: a batch of {run.batch_size} is too small for its statistics; raise config.batch.size to "
        f"{self.function.examples} or more"
      )

  def matrices(self, nodes: Mapping[str, Encoded], size: int) -> list[LossMatrix]:
    if not self.function.cells:  # An alignment has no matrix.
      return []
    dim = max(nodes[name].pooled.shape[-1] for name in self.embeddings)
    return [LossMatrix(size, size, "regularizer", dim, self.function.cells)]


DEFAULTS = {
  "regularizer": REQUIRED,
  "embeddings": (),
  "stop_gradient": (),
  "matryoshka": (),
  "balance": False,
  "weight": 1.0,
}
"""The options of an entry and their defaults (`REQUIRED`: required)."""


def parse_regularizer(name: str, config: Mapping[str, Any]) -> Regularizer:
  """Makes a regularizer of its config; raises UserError naming entry, key and nearest choice."""
  where = f"objective.{name}"
  check_options(config, DEFAULTS, where)
  function = build(REGULARIZERS, config["regularizer"], f"{where}.regularizer")
  names = config.get("embeddings", ())
  embeddings = (names,) if isinstance(names, str) else tuple(names)
  for embedding in embeddings:
    parse_embedding(embedding, f"{where}.embeddings")
  if len(embeddings) != (function.takes or len(embeddings) or 1) or len(set(embeddings)) < len(embeddings):
    raise UserError(
      f"{where}.embeddings: {config['regularizer']} takes {function.takes or 'one or more'} different "
      f"embeddings, not {list(embeddings)}"
    )
  fixed = parse_names(config.get("stop_gradient", ()), f"{where}.stop_gradient", some=False)
  for path in fixed:
    choose(path, embeddings, f"{where}.stop_gradient")
  if len(fixed) == len(embeddings):
    raise UserError(f"{where}.stop_gradient: nothing would be trained; name fewer than {list(embeddings)}")
  return Regularizer(name, embeddings, function, config.get("weight", 1.0), fixed)
