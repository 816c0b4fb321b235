"""Sides: the queries, keys and more that a term compares, with what must be known of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.objectives.edge import AXES, Edge
from mmcontrast.objectives.presence import taking_part
from mmcontrast.objectives.score import Score
from mmcontrast.objectives.targets import Facts
from mmcontrast.objectives.tokens import make_tokens
from mmcontrast.objectives.tuple_negatives import Combinations, permutations, permute
from mmcontrast.objectives.view_criteria import MultiView


class Side(NamedTuple):
  """Queries, keys or more of them: facts [n, ...] ("x" the embedding), and which count."""

  facts: Facts
  mask: jax.Array | None


class Sides(NamedTuple):
  """Everything a term compares: queries with keys, and `more` that only anchors meet.

  more: "row" -> columns beside the keys, for the queries; "column" -> rows beside the queries,
    for the keys: a queue, hard negatives, prototypes, tuples of different examples' keys.
  """

  rows: Side
  columns: Side
  more: dict[str, tuple[Side | Combinations, ...]]


def batch_side(term: Edge, names: tuple[str, ...], embeddings, info, each_token: bool = False) -> Side:
  """The views `names` of each example in turn, or with `each_token` their tokens: [N * views, ...]."""
  real: list[jax.Array] = []
  if each_token:
    tokens = [make_tokens(embeddings[name].tokens, embeddings[name].mask) for name in names]
    x = [_prepared(term.score, name, view.vectors) for name, view in zip(names, tokens)]
    x = [token for view in x for token in jnp.unstack(view, axis=1)]
    real = [token for view in tokens for token in jnp.unstack(view.mask, axis=1)]
  else:
    x = [_prepared(term.score, name, term.score.read(embeddings[name])) for name in names]
  if not each_token and _joined(term, names):
    x = [term.score.join(x)]
  views = len(x)
  facts = dict(term.target.facts(info))
  facts["position"] = jnp.arange(count_examples(embeddings[names[0]]), dtype=jnp.int32)
  facts = {name: jnp.repeat(x, views, 0) if views > 1 else x for name, x in facts.items()}
  facts["x"] = _interleave(x)
  if term.query == term.key or (term.negatives == "permuted" and names == term.query):
    facts["slot"] = jnp.arange(facts["position"].shape[0], dtype=jnp.int32)
  if isinstance(term.criterion, MultiView):
    facts["view"] = jnp.arange(facts["position"].shape[0], dtype=jnp.int32) % views
  valid = taking_part(info, (*term.reads, *names))
  valid = valid if valid is None or views == 1 else jnp.repeat(valid, views, 0)
  if each_token:
    present = _interleave(real)
    valid = present if valid is None else valid & present
  return Side(facts, valid)


def _joined(term: Edge, names: tuple[str, ...]) -> bool:
  return term.score.joins and names == term.key


def view_count(term: Edge, names: tuple[str, ...]) -> int:
  """How many rows or columns the embeddings `names` of an example make."""
  return 1 if _joined(term, names) else len(names)


def one_each(term: Edge) -> bool:
  """Whether an example is one row and one column."""
  return view_count(term, term.query) == view_count(term, term.key) == 1 and not term.token_keys


def more_sides(term: Edge, embeddings, info, queue, parameters) -> dict[str, tuple[Side | Combinations, ...]]:
  """`Sides.more`."""
  more: dict[str, tuple[Side | Combinations, ...]] = {"row": (), "column": ()}
  for axis, names in (("row", term.negative_keys), ("column", term.negative_queries)):
    if names:
      side = batch_side(term, names, embeddings, info)
      if term.negative_weights:
        side.facts["origin"] = side.facts["position"]
      side.facts["position"] = jnp.full_like(side.facts["position"], -1)
      side.facts["negative"] = jnp.ones(side.facts["position"].shape, bool)
      side.facts.pop("slot", None)
      more[axis] = (side,)
  if queue is not None:
    more[AXES[term.direction][0]] += (_queue_side(term, queue),)
  if term.prototypes:
    for axis in AXES[term.direction]:
      more[axis] += (_prototype_side(term, parameters["prototypes"], info),)
  if term.negatives in ("permuted", "combined"):
    mask = taking_part(info, term.reads)
    keys = [_prepared(term.score, name, term.score.read(embeddings[name])) for name in term.key]
    if term.negatives == "combined":
      more["row"] += (Combinations(tuple(keys), mask),)
    else:
      order = permutations(keys[0].shape[0], mask, len(keys))
      side = tuple_side(term, [permute(key, of) for key, of in zip(keys, order)], mask)
      side.facts["slot"] = jnp.arange(keys[0].shape[0], dtype=jnp.int32)
      more["row"] += (side,)
  return more


def tuple_side(term: Edge, keys: list[jax.Array], mask) -> Side:
  """Columns of keys that belong to no one."""
  return Side({"x": term.score.join(keys), "position": jnp.full(keys[0].shape[0], -1, jnp.int32)}, mask)


def _queue_side(term: Edge, queue: Mapping[str, Any]) -> Side:
  facts = dict(term.target.facts(queue))
  facts["x"] = queue["keys"]
  facts["position"] = jnp.full(queue["keys"].shape[0], -1, jnp.int32)
  return Side(lax.stop_gradient(facts), taking_part(queue, term.reads))


def _prototype_side(term: Edge, prototypes: jax.Array, info) -> Side:
  """Prototypes are of no example; prototype k is of class k."""
  count = len(prototypes)

  def unknown(fact: jax.Array) -> jax.Array:
    return jnp.full((count, *fact.shape[1:]), -1 if jnp.issubdtype(fact.dtype, jnp.signedinteger) else 0, fact.dtype)

  facts = {name: unknown(fact) for name, fact in term.target.facts(info).items()}
  if "label" in facts:
    facts["label"] = jnp.arange(count, dtype=facts["label"].dtype)
  facts |= {"x": term.score.prepare(prototypes), "position": jnp.full(count, -1, jnp.int32)}
  return Side(facts, None)


def _prepared(score: Score, name: str, x: Any) -> Any:
  x = score.prepare(x)
  return lax.stop_gradient(x) if name.endswith("@momentum") else x


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


def is_aligned(term: Edge) -> bool:
  """Whether each anchor's only positive is its own pair, so that no target weights are needed."""
  return term.target.kind == "own" and one_each(term)


def own_alone(term: Edge) -> bool:
  """Whether of the batch's pairs an anchor sees only its own."""
  return term.negatives in ("queue", "permuted")


def count_side(side: Side | Combinations) -> jax.Array | int:
  if isinstance(side, Combinations):
    return side.columns
  return side.facts["position"].shape[0] if side.mask is None else jnp.sum(side.mask)


def anchor_weights(term: Edge, names: tuple[str, ...], info) -> jax.Array | None:
  """The weight of each anchor, [N * views]; None when all weigh the same."""
  return jnp.repeat(info["weight"], view_count(term, names), 0) if "weight" in info else None


def shares_of(count: int, keep: jax.Array | None, weight: jax.Array | None = None) -> jax.Array:
  """What each of `count` entries counts in the mean of those kept, weighted or not, [count]; zeros for none."""
  weight = jnp.ones(count) if weight is None else weight
  weight = weight if keep is None else jnp.where(keep, weight, 0.0)
  total = jnp.sum(weight)
  return weight / jnp.where(total > 0, total, 1.0)


def mean_of(x: jax.Array, shares: jax.Array) -> jax.Array:
  """The mean of `x`; what has no share in it has no gradient either."""
  return jnp.sum(jnp.where(shares > 0, shares * x, 0.0))


def add_shares(term: Edge, rows: Side, columns: Side, info) -> None:
  """Gives anchors, as "in_mean", what they count in the term's loss."""
  axes = AXES[term.direction]
  for axis, side, names in (("row", rows, term.query), ("column", columns, term.key)):
    if axis in axes:
      shares = shares_of(len(side.facts["position"]), side.mask, anchor_weights(term, names, info))
      side.facts["in_mean"] = shares.astype(float_type(side.facts["x"])) / len(axes)
