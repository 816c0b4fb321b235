"""Words of a text view as a bag: which tokens an example's text has, and how often examples have them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from mmcontrast.errors import UserError, choose
from mmcontrast.objectives.module_loss import Facts
from mmcontrast.objectives.term import Run


def who_has_words(facts: Facts) -> jax.Array:
  """Bool [N]: the examples that take part and have texts."""
  present = facts.batch.get("present", {}).get("text")
  return facts.valid if present is None else facts.valid & present


def words_of(facts: Facts, view: str, count: int, dtype: Any) -> jax.Array:
  """[N, count] of 0 and 1: which of the tokens 0 .. count - 1 a text view has, such as "text[0]"; padding is none."""
  ids = facts.batch["views"][view]["ids"]
  kept = (ids >= 0) & who_has_words(facts)[:, None]
  rows = jnp.arange(len(ids))[:, None]
  return jnp.zeros((len(ids), count), dtype).at[rows, jnp.where(kept, ids, count)].set(1, mode="drop")


def check_words(view: str, count: int, run: Run, option: str) -> None:
  """Raises UserError unless `view` is a view of texts whose tokens batches name, and `count` is enough for them."""
  views = [name for name in run.facts if name.startswith("text")]
  name, bracket, rest = view.partition("[")
  if not bracket or not rest.removesuffix("]").isdigit():
    raise UserError(f"{option}: {view!r} is no view of texts; write it as in 'text[0]'")
  choose(name, views, option)
  if "ids" not in run.facts[name]:
    raise UserError(f"{option}: {view!r} must say its tokens; add them to config.data.facts, ('ids',)")
  if int(rest[:-1]) >= run.views.get(name, 0):
    raise UserError(f"{option}: {view!r} does not exist; config.data.views.{name} is {run.views.get(name, 0)}")
  if run.words and count < run.words:
    raise UserError(f"{option}: the tokenizer has {run.words} pieces, and {count} are told apart; make it {run.words}")
