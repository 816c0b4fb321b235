"""Matryoshka representation learning: a term at several widths of its embeddings at once (arXiv:2205.13147).

    image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", matryoshka=(64, 128, 256, 512))
    matryoshka=dict(widths=(64, 512), weights=(0.5, 1.0))       # each width's weight in the sum; 1 unless it is given

    loss = sum_w weight_w * term(the first w numbers of each vector)

Vectors are cut first and brought to unit length afterwards, so that an embedding of D numbers has embeddings of 64 or
128 of them in it. Any kind of term can be trained so: it is called once for each width, and memory stays linear in the
batch. What it learns is shared by all widths: numbers (a temperature) as they are, arrays that are as wide as the
embeddings (prototypes, layers) by their first entries. What it remembers of the whole embedding (a queue, centres) it
sees the same part of, but for the rows of a table that its loss writes, which each width has for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.comparison import LossMatrix
from mmcontrast.objectives.embedding_path import parse_embedding
from mmcontrast.objectives.term import Memory, Now, Outcome, Parameters, Run, Term
from mmcontrast.objectives.wrapped_term import WrappedTerm
from mmcontrast.registry import check_options

OPTIONS: dict[str, Any] = {"widths": (), "weights": ()}
"""The options of `matryoshka` and their defaults; widths alone are short for them."""


def cut(x: Encoded, width: int) -> Encoded:
  """The first `width` numbers of each vector and of each token's vector; of shapes, their shapes."""
  if isinstance(x.pooled if x.tokens is None else x.tokens, jax.ShapeDtypeStruct):
    return jax.eval_shape(partial(cut, width=width), x)
  pooled, tokens = (None if part is None else part[..., :width] for part in (x.pooled, x.tokens))
  return x.replace(pooled=pooled, tokens=tokens)


@dataclass(frozen=True)
class Matryoshka(WrappedTerm):
  """A term at several widths.

  Attributes:
    all_widths: ascending; the last is that of the whole embedding.
    weights: of each width; those of weight 0 are not computed, and not trained.
  """

  all_widths: tuple[int, ...]
  weights: tuple[float, ...]

  @property
  def widths(self) -> tuple[int, ...]:
    return tuple(width for width, weight in zip(self.all_widths, self.weights) if weight)

  @property
  def table(self) -> Mapping[str, float]:
    """The whole embedding's columns by their names, a narrower width's as "query_64"."""
    own = self.term.table
    narrower = self.widths[:-1] if self.writes_table else ()
    return {**own, **{f"{name}_{width}": unseen for width in narrower for name, unseen in own.items()}}

  @property
  def spaces(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*self.term.spaces, *self.compared)))

  def init(self, key: jax.Array | None, shapes: Mapping[str, Encoded]) -> tuple[dict[str, Any], dict[str, Any]]:
    for path in self.compared:
      if path in shapes:
        self._check_width(path, _width_of(shapes[path]))
    return self.term.init(key, shapes)

  def loss(
    self, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory, facts: Mapping[str, Any], now: Now
  ) -> Outcome:
    """The weighted sum over widths. Metrics: those of the whole embedding, and of each width "64/loss", "64/top1"."""
    total, metrics, rows = 0.0, {}, {}
    for width, weight in zip(self.all_widths, self.weights):
      if not weight:
        continue
      whole = width == self.all_widths[-1]
      given = (nodes, parameters, memory) if whole else self._narrowed(width, nodes, parameters, memory)
      found = self.term.loss(*given, facts, now)
      total = total + weight * found.loss
      each = {"loss": found.loss, **found.metrics}
      metrics |= {f"{width}/{name}": each[name] for name in ("loss", "top1") if name in each}
      if whole:
        metrics, rows = {**metrics, **found.metrics}, {**rows, **found.rows}
      elif self.writes_table:
        rows |= {f"{name}_{width}": value for name, value in found.rows.items()}
    return Outcome(total, metrics, rows, found.state)

  def check(self, run: Run) -> None:
    heads = {parse_embedding(path).head: path for path in self.compared}
    for head, path in heads.items():
      if not run.fields(head) & {"pooled", "tokens"}:
        raise UserError(
          f"{self._where}: head {head!r} gives {' and '.join(sorted(run.fields(head)))}, no vectors that could be cut; "
          "leave it out"
        )
      if head in run.head_dims:
        self._check_width(path, run.head_dims[head])
    self.term.check(run)
    for width in self.widths[:-1]:
      try:
        self.term.check(dataclasses.replace(run, head_dims={**run.head_dims, **dict.fromkeys(heads, width)}))
      except UserError as error:
        raise UserError(f"{self._where}: at width {width}: {error}") from None

  def matrices(self, nodes: Mapping[str, Encoded], size: int) -> list[LossMatrix]:
    return [one for width in self.widths for one in self.term.matrices(self._cut(width, nodes), size)]

  @property
  def _where(self) -> str:
    return f"objective.{self.name}.matryoshka"

  def _check_width(self, path: str, width: int) -> None:
    if width != self.all_widths[-1]:
      raise UserError(
        f"{self._where}: the vectors of {path!r} have {width} numbers, and the last width is {self.all_widths[-1]}; "
        f"end with {width}, as in {(*(one for one in self.all_widths if one < width), width)}"
      )

  def _cut(self, width: int, nodes: Mapping[str, Encoded]) -> dict[str, Encoded]:
    """Embeddings of the heads that are compared, as far as `width`; those of others, a teacher's, as they are."""
    heads = {parse_embedding(path).head for path in self.compared}
    return {
      path: cut(nodes[path], width) if parse_embedding(path).head in heads else nodes[path] for path in self.embeddings
    }

  def _narrowed(
    self, width: int, nodes: Mapping[str, Encoded], parameters: Parameters, memory: Memory
  ) -> tuple[dict[str, Encoded], Parameters, Memory]:
    """What the term is given at a width: embeddings, what terms have learned, what it remembers."""
    nodes = self._cut(width, nodes)
    queue, rows, state = memory
    if queue is not None:
      queue = {**queue, "keys": self.term.new_keys({self.queued: Encoded(queue["keys"][:, :width])})}
    if self.writes_table:
      rows = {name: rows[f"{name}_{width}"] for name in self.term.table}
    if self.term.spaces:
      learned = parameters.get(self.name, {})
      shapes = jax.eval_shape(self.term.init, jax.random.key(0), {name: nodes[name] for name in self.term.spaces})
      parts, state = (
        {name: _first(whole[name], of[name]) for name in whole} for whole, of in zip((learned, state), shapes)
      )
      moved = self.term.after_step(parts)
      parts = jax.tree.map(lambda x, part, to: part if part is x else to, learned, parts, dict(moved))
      parameters, state = {**parameters, self.name: parts}, self.term.after_cut(state)
    return nodes, parameters, Memory(queue, rows, state)


def _width_of(x: Encoded) -> int:
  return (x.pooled if x.tokens is None else x.tokens).shape[-1]


def _first(tree: Any, shapes: Any) -> Any:
  """The first entries of each array along each axis, as far as `shapes` go."""
  return jax.tree.map(lambda x, of: x if x.shape == of.shape else x[tuple(map(slice, of.shape))], tree, shapes)


def wrapped(term: Term, config: Any) -> Term:
  """The term at the widths of its option `matryoshka`, or itself where it names none; raises UserError."""
  where = f"objective.{term.name}.matryoshka"
  options = {**OPTIONS, **(config if isinstance(config, dict) else {"widths": config})}
  check_options(options, OPTIONS, where)
  widths, weights = options["widths"], options["weights"]
  if widths == () and weights == ():
    return term
  if (
    not isinstance(widths, tuple) or not widths or not all(map(_is_width, widths)) or list(widths) != sorted({*widths})
  ):
    raise UserError(f"{where}: {widths!r} are not widths in ascending order, such as (64, 128, 256, 512)")
  weights = weights or (1.0,) * len(widths)
  numbers = isinstance(weights, tuple) and all(isinstance(one, int | float) and one >= 0 for one in weights)
  if not numbers or len(weights) != len(widths):
    raise UserError(f"{where}.weights: {weights!r} are not {len(widths)} numbers of 0 or more, one for each width")
  if not weights[-1]:
    raise UserError(f"{where}.weights: the last is 0, and the whole embedding would not be trained; make it above 0")
  return Matryoshka(term, widths, weights)


def _is_width(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and value > 0
