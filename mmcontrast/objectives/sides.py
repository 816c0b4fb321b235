"""The sides of a term: queries, keys and the rest that anchors see, from the embeddings of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.edge import Edge
from mmcontrast.objectives.embedding_path import of_momentum
from mmcontrast.objectives.mixing import mix_embedding
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.side import Side
from mmcontrast.objectives.tokens import make_tokens
from mmcontrast.objectives.tuple_negatives import Combinations, permutations, permute

Embeddings = Mapping[str, Encoded]


class Sides(NamedTuple):
  """Everything a term compares: queries with keys, and more that only anchors meet.

  rows, columns: queries and keys of the batch.
  more: "row" -> columns beside the keys, for the queries; "column" -> rows beside the queries, for the keys: a queue,
    hard negatives, prototypes, permuted tuples of different examples' keys.
  combinations: all tuples of different examples' keys, for the queries; None without.
  """

  rows: Side
  columns: Side
  more: dict[str, tuple[Side, ...]]
  combinations: Combinations | None = None

  def of(self, axis: str) -> Side:
    """The anchors of an axis."""
    return self.rows if axis == "row" else self.columns

  def scaled(self, scale: Any) -> Sides:
    """With scores `scale` times as large: rows are longer by it."""
    more = self.more | {"column": tuple(_scaled(side, scale) for side in self.more["column"])}
    return self._replace(rows=_scaled(self.rows, scale), more=more)

  def with_anchors(self, changes: Mapping[str, Mapping[str, Any]]) -> Sides:
    """With fields of the anchors replaced: axis -> field -> value."""
    rows, columns = self.rows.replace(**changes.get("row", {})), self.columns.replace(**changes.get("column", {}))
    return self._replace(rows=rows, columns=columns)


def make_sides(
  term: Edge,
  embeddings: Embeddings,
  facts: Mapping[str, Any],
  queue: Mapping[str, Any] | None,
  parameters: Mapping[str, jax.Array],
) -> Sides:
  """The sides of a term.

  Args:
    facts: of the batch (terms.evaluate).
    queue: of `term.queued`.
    parameters: of the term, prototypes among them.
  """
  mix = term.target.mix({**facts, "valid": taking_part(facts, term.reads)})
  queries = embeddings
  if mix is not None:
    facts, queries = {**facts, "mix": mix}, {name: mix_embedding(embeddings[name], mix) for name in term.query}
  rows = _batch_side(term, term.query, queries, facts)
  columns = _token_side(term, embeddings, facts) if term.token_keys else _batch_side(term, term.key, embeddings, facts)
  if term.is_paired:
    columns = columns.replace(x=term.score.columns(rows.x, columns.x))
  more = _more_sides(term, embeddings, facts, queue, parameters)
  combinations = None
  if term.negatives == "combined":
    combinations = Combinations(tuple(_keys(term, embeddings)), taking_part(facts, term.reads))
  return Sides(rows, columns, more, combinations)


def _scaled(side: Side, scale: Any) -> Side:
  return side.replace(x=scale * side.x)


def _batch_side(term: Edge, names: tuple[str, ...], embeddings: Embeddings, facts: Mapping[str, Any]) -> Side:
  """The views `names` of each example in turn: [N * views, ...]."""
  prepare = term.score.prepare_key if term.joins(names) else term.score.prepare
  x = [_prepared(prepare, name, term.score.read(embeddings[name])) for name in names]
  if term.joins(names):
    x = [term.score.join(x)]
  return _make_side(term, names, x, embeddings, facts)


def _token_side(term: Edge, embeddings: Embeddings, facts: Mapping[str, Any]) -> Side:
  """The tokens of each example's keys, each a column: [N * keys * L, D]."""
  tokens = [make_tokens(embeddings[name].tokens, embeddings[name].mask) for name in term.key]
  x = [_prepared(term.score.prepare, name, view.vectors) for name, view in zip(term.key, tokens)]
  x = [token for view in x for token in jnp.unstack(view, axis=1)]
  side = _make_side(term, term.key, x, embeddings, facts)
  real = _interleave([token for view in tokens for token in jnp.unstack(view.mask, axis=1)])
  return side.replace(mask=real if side.mask is None else side.mask & real)


def _make_side(term: Edge, names: tuple[str, ...], x: list[Any], embeddings: Embeddings, facts) -> Side:
  """The side of prepared embeddings `x`, [N, ...] each, of the views `names`."""
  views = len(x)
  position = jnp.arange(count_examples(embeddings[names[0]]), dtype=jnp.int32)
  known = {**term.target.facts(facts), "position": position}
  known = {name: jnp.repeat(fact, views, 0) if views > 1 else fact for name, fact in known.items()}
  position = known.pop("position")
  number = jnp.arange(position.shape[0], dtype=jnp.int32)
  mask = taking_part(facts, (*term.reads, *names))
  return Side(
    x=_interleave(x),
    position=position,
    facts=known,
    mask=mask if mask is None or views == 1 else jnp.repeat(mask, views, 0),
    slot=number if term.query == term.key or (term.negatives == "permuted" and names == term.query) else None,
    view=number % views if term.criterion.joins_views else None,
  )


def _more_sides(term: Edge, embeddings: Embeddings, facts, queue, parameters) -> dict[str, tuple[Side, ...]]:
  """`Sides.more`."""
  more: dict[str, tuple[Side, ...]] = {"row": (), "column": ()}
  for axis, names in (("row", term.negative_keys), ("column", term.negative_queries)):
    if names:
      more[axis] = (_hard_side(term, names, embeddings, facts),)
  if queue is not None:
    more[term.axes[0]] += (_queue_side(term, queue),)
  if term.prototypes:
    for axis in term.axes:
      more[axis] += (_prototype_side(term, parameters["prototypes"], facts),)
  if term.negatives == "permuted":
    mask, keys = taking_part(facts, term.reads), _keys(term, embeddings)
    order = permutations(keys[0].shape[0], mask, len(keys))
    side = tuple_side(term, [permute(key, of) for key, of in zip(keys, order)], mask)
    more["row"] += (side.replace(slot=jnp.arange(side.length, dtype=jnp.int32)),)
  return more


def _hard_side(term: Edge, names: tuple[str, ...], embeddings: Embeddings, facts) -> Side:
  """Hard negatives: of no example of the batch, but for the weight that they have in their example's denominator."""
  side = _batch_side(term, names, embeddings, facts)
  return side.replace(
    origin=side.position if term.negative_weights else None,
    position=jnp.full_like(side.position, -1),
    negative=jnp.ones(side.length, bool),
    slot=None,
  )


def _queue_side(term: Edge, queue: Mapping[str, Any]) -> Side:
  x, facts = lax.stop_gradient((queue["keys"], dict(term.target.facts(queue))))
  return Side(x, _no_position(queue["keys"].shape[0]), facts, taking_part(queue, term.reads))


def _prototype_side(term: Edge, prototypes: jax.Array, facts: Mapping[str, Any]) -> Side:
  """Prototypes are of no example; prototype k is of class k."""
  count = len(prototypes)

  def unknown(fact: jax.Array) -> jax.Array:
    return jnp.full((count, *fact.shape[1:]), -1 if jnp.issubdtype(fact.dtype, jnp.signedinteger) else 0, fact.dtype)

  known = {name: unknown(fact) for name, fact in term.target.facts(facts).items()}
  if "label" in known:
    known["label"] = jnp.arange(count, dtype=known["label"].dtype)
  return Side(term.score.prepare(prototypes), _no_position(count), known)


def tuple_side(term: Edge, keys: list[jax.Array], mask: jax.Array | None) -> Side:
  """Columns of keys that are of different examples, and so of none."""
  return Side(term.score.join(keys), _no_position(keys[0].shape[0]), mask=mask)


def _no_position(count: int) -> jax.Array:
  return jnp.full(count, -1, jnp.int32)


def _keys(term: Edge, embeddings: Embeddings) -> list[jax.Array]:
  return [_prepared(term.score.prepare_key, name, term.score.read(embeddings[name])) for name in term.key]


def _prepared(prepare: Callable[[Any], Any], name: str, x: Any) -> Any:
  x = prepare(x)
  return lax.stop_gradient(x) if of_momentum(name) else x


def _interleave(views: list[Any]) -> Any:
  """Trees of [N, ...] each -> [N * views, ...], an example's views together, so that a sharded N stays so."""
  if len(views) == 1:
    return views[0]
  return jax.tree.map(lambda *x: jnp.stack(x, 1).reshape(-1, *x[0].shape[1:]), *views)


def count_examples(x: Encoded) -> int:
  """N, of an embedding of N examples."""
  return jax.tree.leaves(x)[0].shape[0]


def float_type(x: Any) -> Any:
  """The type of the numbers of a prepared embedding."""
  return jnp.result_type(*(leaf for leaf in jax.tree.leaves(x) if jnp.issubdtype(leaf.dtype, jnp.floating)))
