"""Update rules: how the gradients of several terms become one.

    config.update_rule = dict(name="sum")                                   # of the weighted losses
    config.update_rule = dict(name="project_conflicts", on="towers/.*")     # where terms share parameters
    config.update_rule = dict(name="adversarial", views=("image[0]",))      # views moved against it: adversarial.py

A rule is called in the train step:

    rule(embed, loss, params, terms, step, seeds) -> (loss, auxiliary, embeddings, statistics), gradients, metrics

with `embed(params) -> (embeddings, statistics)` and `loss(embeddings, own, names) -> (weighted sum of the terms
`names`, auxiliary mappings by term or metric)`, `own` being those of `params` that terms read themselves (`OWN`).
`embed(params, moved)` adds to views what `moved` says: "image[0]" -> [B, ...]. Embeddings are any tree; of its leaves
those of numbers are differentiated, not masks. `step`: steps done; `seeds`: [B], of
the examples.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.errors import UserError, nearest
from mmcontrast.optimization.adversarial import Adversarial
from mmcontrast.optimization.schedules import make_schedule
from mmcontrast.parameter_paths import parameter_paths, path_name
from mmcontrast.registry import build

Tree = Any
OWN = ("terms", "lora")  # what a term reads without an embedding between: numbers, modules, what adapts these


@dataclass(frozen=True)
class Sum:
  """The gradient of the sum: one backward pass for all terms."""

  def check(self, paths: Sequence[str], terms: Sequence[str], where: str) -> None:
    """Nothing can be wrong."""

  def planned(self, steps: int, steps_per_epoch: int | None, where: str) -> Sum:
    """The rule of a run of so many steps."""
    return self

  def __call__(
    self, embed: Callable, loss: Callable, params: Tree, terms: Sequence[str], step: Any = 0, seeds: Any = None
  ):
    def total(params):
      embeddings, statistics = embed(params)
      value, auxiliary = loss(embeddings, _own(params), terms)
      return value, (auxiliary, embeddings, statistics)

    (value, found), gradients = jax.value_and_grad(total, has_aux=True)(params)
    return (value, *found), gradients, {}


@dataclass(frozen=True)
class ProjectConflicts:
  """What a term's gradient has against another term's is taken out of it, on shared parameters.

  For each term i, its gradient g_i' starts as g_i; for every other term j, in the order of the
  config: if <g_i', g_j> < 0, then g_i' <- g_i' - <g_i', g_j> / |g_j|^2 g_j, with the other's own
  gradient on the right. The step takes the sum of all g_i'. That is PCGrad (Yu et al. 2020,
  arXiv:2001.06782) in a fixed order instead of a random one; for two terms no order matters. After
  CM-GradHarm (Wu et al. 2022), whose paper could not be read: our option, not a reproduction.

  One dot product is over all parameters that `on` matches, of the gradients of the weighted losses.
  Elsewhere gradients are summed. Costs one backward pass through the encoders, and one more set of
  gradients, a term.

  With `drop_below` there is a curriculum of examples besides, ours in its granularity: an example
  whose gradients of two terms with respect to the embeddings that both read have a cosine below it
  is left out of all terms' gradients, before the encoders, and the others count for it. Losses and
  what terms learn themselves (temperatures) keep all examples.

  on: a regex, or several: parameters whose whole path one of them matches.
  drop_below: a cosine, or a schedule of one, such as from -1 to 0; None: no example is left out.
  """

  on: str | tuple[str, ...] = "towers/.*"
  drop_below: Any = None

  @property
  def patterns(self) -> tuple[str, ...]:
    """`on` as a tuple."""
    return (self.on,) if isinstance(self.on, str) else tuple(self.on)

  def check(self, paths: Sequence[str], terms: Sequence[str], where: str) -> None:
    """Raises UserError unless there are parameters to project on, and terms to conflict."""
    if len(terms) < 2:
      raise UserError(f"{where}: {list(terms)} cannot conflict; give config.objective two terms, or use name='sum'")
    for pattern in self.patterns:
      try:
        found = any(re.fullmatch(pattern, path) for path in paths if not path.startswith("terms/"))
      except (re.error, TypeError) as error:
        raise UserError(f"{where}.on: {pattern!r} is not a regex: {error}") from None
      if not found:
        raise UserError(f"{where}.on: {pattern!r} matches no parameter that terms can share; {nearest(pattern, paths)}")

  def planned(self, steps: int, steps_per_epoch: int | None, where: str) -> ProjectConflicts:
    """The rule of a run of so many steps: its schedule made a function. UserError for one that leaves [-1, 1]."""
    if self.drop_below is None:
      return self
    schedule = make_schedule(self.drop_below, steps, steps_per_epoch, f"{where}.drop_below", within=(-1, 1))
    return dataclasses.replace(self, drop_below=schedule)

  def __call__(
    self, embed: Callable, loss: Callable, params: Tree, terms: Sequence[str], step: Any = 0, seeds: Any = None
  ):
    def numbers_of(params):
      embeddings, statistics = embed(params)
      numbers, rest = _numbers(embeddings)
      return numbers, (rest, statistics)

    numbers, pull, (rest, statistics) = jax.vjp(numbers_of, params, has_aux=True)
    embeddings = _joined(numbers, rest)
    values, auxiliaries, cotangents, owned = [], [], [], []
    for name in terms:
      differentiated = jax.value_and_grad(lambda x, own, name=name: loss(_joined(x, rest), own, (name,)), (0, 1), True)
      (value, auxiliary), (by_embedding, own) = differentiated(numbers, _own(params))
      for found, new in zip((values, auxiliaries, cotangents, owned), (value, auxiliary, by_embedding, own)):
        found.append(new)
    metrics = {}
    if self.drop_below is not None:
      least = self.drop_below(step) if callable(self.drop_below) else self.drop_below
      kept, share = agreeing(cotangents, least)
      cotangents = [[scaled_examples(leaf, kept) for leaf in of_term] for of_term in cotangents]
      metrics = {"update_rule/dropped": share, "update_rule/drop_below": jnp.asarray(least, jnp.float32)}
    # One term after the other: compiled once, and the residuals of the encoders are kept once.
    gradients = lax.map(lambda cotangent: pull(cotangent)[0], jax.tree.map(lambda *x: jnp.stack(x), *cotangents))
    shared = [leaf for path, leaf in jax.tree_util.tree_flatten_with_path(gradients)[0] if self._matches(path)]
    gram = sum(_products(leaf) for leaf in shared)
    weights = projected(gram)

    def combine(path, leaf):
      if self._matches(path):
        return jnp.tensordot(weights.astype(leaf.dtype), leaf, 1, precision=lax.Precision.HIGHEST)
      return jnp.sum(leaf, 0)

    gradients = jax.tree_util.tree_map_with_path(combine, gradients)
    direct = jax.tree.map(lambda *x: sum(x), *owned)
    gradients = {**gradients, **{part: jax.tree.map(jnp.add, gradients[part], direct[part]) for part in direct}}
    auxiliary = tuple({key: value for part in parts for key, value in part.items()} for parts in zip(*auxiliaries))
    metrics["update_rule/conflicts"] = _conflicts(gram)
    return (sum(values), auxiliary, embeddings, statistics), gradients, metrics

  def _matches(self, path: Sequence[Any]) -> bool:
    name = path_name(path)
    return not name.startswith("terms/") and any(re.fullmatch(pattern, name) for pattern in self.patterns)


def agreeing(cotangents: Sequence[Sequence[jax.Array]], least: jax.Array | float) -> tuple[jax.Array, jax.Array]:
  """What each example counts, [N], by its terms' gradients: 0 where two of them have a cosine below `least`, and as
  much more for the rest; and the share of the examples with a gradient that is left out.

  Args:
    cotangents: of each term, leaves [N, ...]: its gradient with respect to embeddings. A pair of terms is compared on
      the leaves that both have a gradient of.
  """
  kept, some = True, False
  for i, ours in enumerate(cotangents):
    some = some | (sum(_per_example(a, a) for a in ours) > 0)
    for theirs in cotangents[:i]:
      dot = own = other = 0.0
      for a, b in zip(ours, theirs):
        both = jnp.any(a != 0) & jnp.any(b != 0)
        dot, own, other = (
          total + jnp.where(both, part, 0.0)
          for total, part in ((dot, _per_example(a, b)), (own, _per_example(a, a)), (other, _per_example(b, b)))
        )
      length = jnp.sqrt(own) * jnp.sqrt(other)
      kept &= ~((length > 0) & (dot < least * length))
  count, left = jnp.sum(some), jnp.sum(some & kept)
  weight = jnp.where(kept, count / jnp.maximum(left, 1), 0.0)
  return weight, 1 - left / jnp.maximum(count, 1)


def scaled_examples(leaf: jax.Array, weight: jax.Array) -> jax.Array:
  """[N, ...] times [N]."""
  return leaf * weight.astype(leaf.dtype).reshape(-1, *(1,) * (leaf.ndim - 1))


def _per_example(a: jax.Array, b: jax.Array) -> jax.Array:
  """[N, ...], [N, ...] -> the products of examples, [N]."""
  return jnp.sum((a * b).reshape(len(a), -1), -1)


def _own(params: Tree) -> Tree:
  """What terms read themselves."""
  return {part: params[part] for part in OWN if part in params}


def _numbers(tree: Tree) -> tuple[list[jax.Array], Tree]:
  """The floating leaves of a tree, and the tree with None in their places."""
  leaves = jax.tree.leaves(tree)
  return [x for x in leaves if _is_number(x)], jax.tree.map(lambda x: _Number() if _is_number(x) else x, tree)


def _joined(numbers: Sequence[jax.Array], rest: Tree) -> Tree:
  """What `_numbers` took apart."""
  left = iter(numbers)
  return jax.tree.map(
    lambda x: next(left) if isinstance(x, _Number) else x, rest, is_leaf=lambda x: isinstance(x, _Number)
  )


def _is_number(x: jax.Array) -> bool:
  return jnp.issubdtype(x.dtype, jnp.floating)


@jax.tree_util.register_static
@dataclass(frozen=True)
class _Number:
  """The place of a floating leaf."""


def projected(gram: jax.Array) -> jax.Array:
  """How much of each term's gradient is in the step, from the [T, T] products of the gradients.

  Every g_i' is a combination of the terms' gradients, so that their products say everything.
  """
  own = jnp.eye(len(gram), dtype=gram.dtype)
  mixed = own  # row i: g_i' in terms of all g
  for j in range(len(gram)):
    product = mixed @ gram[:, j]
    conflicting = (product < 0) & (own[j] == 0)
    length = jnp.where(gram[j, j] > 0, gram[j, j], 1.0)
    mixed = mixed - jnp.where(conflicting, product / length, 0.0)[:, None] * own[j]
  return jnp.sum(mixed, 0)


def _products(leaf: jax.Array) -> jax.Array:
  """[T, ...] -> [T, T]."""
  axes = tuple(range(1, leaf.ndim))
  return jnp.tensordot(leaf, leaf, (axes, axes), precision=lax.Precision.HIGHEST)


def _conflicts(gram: jax.Array) -> jax.Array:
  """Share of the pairs of terms whose gradients point against each other."""
  pairs = jnp.triu(jnp.ones_like(gram), 1)
  return jnp.sum(pairs * (gram < 0)) / jnp.sum(pairs)


UpdateRule = Sum | ProjectConflicts | Adversarial
RULES: dict[str, type[UpdateRule]] = {"sum": Sum, "project_conflicts": ProjectConflicts, "adversarial": Adversarial}


def make_update_rule(
  config: str | Mapping[str, Any],
  params: Tree,
  terms: Sequence[str],
  steps: int = 1,
  steps_per_epoch: int | None = None,
) -> UpdateRule:
  """The rule of `config.update_rule` in a run of `steps`; raises UserError where it cannot apply to `params` and
  `terms`."""
  where = "config.update_rule"
  rule = build(RULES, config, where)
  rule.check(parameter_paths(params), tuple(terms), where)
  return rule.planned(steps, steps_per_epoch, where)
