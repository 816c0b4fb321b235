"""Which words follow each other: greedy, by beams, or drawn from the nucleus of their probabilities.

All are loops on the device over `step(cache, ids [B]) -> (logits [B, V], cache)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from mmcontrast.errors import UserError

Step = Callable[[Any, jax.Array], tuple[jax.Array, Any]]
NEVER = -1e30


class Search(NamedTuple):
  """How a caption is chosen.

  Attributes:
    beams: of one: the most probable word each time; of several, the most probable caption among so many that are
      followed (its log probability over length ** length_penalty).
    top_p: below 1, words are drawn from the smallest set of the most probable whose probabilities reach it (nucleus
      sampling, Holtzman et al., arXiv:1904.09751), and with `temperature` alone from all; 0 draws nothing.
    temperature: what logits are divided by before a word is drawn.
    length: the most tokens, start and end among them.
    least: the fewest words before an end.
    length_penalty: of beams; 0: the probability of the whole caption, 1: the mean of its tokens.
  """

  beams: int = 1
  top_p: float = 0.0
  temperature: float = 1.0
  length: int = 0
  least: int = 1
  length_penalty: float = 1.0


def check(search: Search, most: int, where: str = "caption") -> Search:
  """`search` with its length; raises UserError for what no caption can be written by. `most`: that the decoder has."""
  search = search._replace(length=search.length or most)
  if not isinstance(search.beams, int) or search.beams < 1:
    raise UserError(f"{where}: beams={search.beams!r} is no number of beams; give 1 (greedy) or more")
  if not 0 <= search.top_p <= 1:
    raise UserError(f"{where}: top_p={search.top_p!r} is no probability; give 0 (nothing is drawn) to 1 (of all words)")
  if not search.temperature > 0:
    raise UserError(f"{where}: temperature={search.temperature!r} is not above 0; for the most probable word top_p=0")
  if search.top_p and search.beams > 1:
    raise UserError(
      f"{where}: beams={search.beams} and top_p={search.top_p}; a search has beams or draws, leave one out"
    )
  if search.temperature != 1 and not search.top_p:
    raise UserError(f"{where}: temperature={search.temperature} is of words that are drawn; set top_p too, such as 0.9")
  if not 2 <= search.length <= most:
    raise UserError(
      f"{where}: length={search.length} tokens, start and end among them; this decoder writes from 2 to {most}"
    )
  if not 0 <= search.least <= search.length - 2:
    raise UserError(f"{where}: least={search.least} words do not fit between start and end of length={search.length}")
  return search


def write(
  step: Step, logits: jax.Array, cache: Any, search: Search, start: int, end: int, pad: int, keys: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
  """Captions of a batch, one token a turn until all have ended.

  Args:
    step: see above.
    logits, cache: [B, V] after the start token, and what goes on.
    keys: a PRNG key for each of the batch, for `top_p`.
  Returns:
    (ids int32 [B, length], start first, `pad` after the end; log probability float32 [B]).
  """
  batch = logits.shape[0]
  ids = jnp.full((batch, search.length), pad, jnp.int32).at[:, 0].set(start)

  def choose(logits, at):
    log_p = _log_p(logits, at, search, start, pad, end)
    if not search.top_p:
      return jnp.argmax(log_p, -1), log_p
    drawn = jax.vmap(lambda key, row: jax.random.categorical(jax.random.fold_in(key, at), row))(
      keys, nucleus(log_p / search.temperature, search.top_p)
    )
    return drawn, log_p

  def turn(state):
    at, ids, done, score, logits, cache = state
    word, log_p = choose(logits, at)
    word = jnp.where(done, pad, word).astype(jnp.int32)
    score = score + jnp.where(done, 0.0, jnp.take_along_axis(log_p, word[:, None], 1)[:, 0])
    ids = lax.dynamic_update_slice_in_dim(ids, word[:, None], at, 1)
    logits, cache = step(cache, word)
    return at + 1, ids, done | (word == end), score, logits, cache

  def going(state):
    return (state[0] < search.length) & ~jnp.all(state[2])

  state = (jnp.int32(1), ids, jnp.zeros(batch, bool), jnp.zeros(batch), logits, cache)
  _, ids, _, score, _, _ = lax.while_loop(going, turn, state)
  return ids, score


def write_by_beams(
  step: Step, rows_of: Callable, logits: jax.Array, cache: Any, search: Search, start: int, end: int, pad: int
) -> tuple[jax.Array, jax.Array]:
  """As `write`, the best of `search.beams` captions that are followed at once.

  Args:
    logits, cache: [B * beams, V] after the start token, the beams of one thing side by side.
    rows_of: (cache, rows [B * beams]) -> the cache of those rows.
  """
  beams, (rows, words) = search.beams, logits.shape
  batch = rows // beams
  ids = jnp.full((batch, beams, search.length), pad, jnp.int32).at[:, :, 0].set(start)
  only_pad = jnp.full(words, NEVER).at[pad].set(0.0)  # how a caption that has ended goes on
  offset = jnp.arange(batch)[:, None] * beams

  def turn(state):
    at, ids, done, score, logits, cache = state
    log_p = _log_p(logits, at, search, start, pad, end).reshape(batch, beams, words)
    log_p = jnp.where(done[..., None], only_pad, log_p)
    score, place = lax.top_k((score[..., None] + log_p).reshape(batch, -1), beams)
    of, word = place // words, (place % words).astype(jnp.int32)
    ids = jnp.take_along_axis(ids, of[..., None], 1)
    ids = lax.dynamic_update_slice_in_dim(ids, word[..., None], at, 2)
    done = jnp.take_along_axis(done, of, 1) | (word == end)
    logits, cache = step(rows_of(cache, (offset + of).reshape(-1)), word.reshape(-1))
    return at + 1, ids, done, score, logits, cache

  def going(state):
    return (state[0] < search.length) & ~jnp.all(state[2])

  first = jnp.where(jnp.arange(beams) == 0, 0.0, NEVER)  # at the start all beams are the same
  state = (jnp.int32(1), ids, jnp.zeros((batch, beams), bool), jnp.tile(first, (batch, 1)), logits, cache)
  _, ids, _, score, _, _ = lax.while_loop(going, turn, state)
  counted = jnp.argmax(ids == end, -1)  # tokens after the start, the end among them
  counted = jnp.where((ids == end).any(-1), counted, search.length - 1)
  best = jnp.argmax(score / counted.astype(jnp.float32) ** search.length_penalty, 1)[:, None]
  return jnp.take_along_axis(ids, best[..., None], 1)[:, 0], jnp.take_along_axis(score, best, 1)[:, 0]


def nucleus(logits: jax.Array, top_p: float) -> jax.Array:
  """[B, V] -> [B, V]: NEVER for words outside the smallest set of the most probable that reaches `top_p`."""
  order = jnp.argsort(-logits, -1)
  p = jnp.take_along_axis(jax.nn.softmax(logits), order, -1)
  kept = jnp.cumsum(p, -1) - p < top_p  # those before it do not reach it: the most probable always stays
  return jnp.where(jnp.take_along_axis(kept, jnp.argsort(order, -1), -1), logits, NEVER)


def _log_p(logits: jax.Array, at: jax.Array, search: Search, start: int, pad: int, end: int) -> jax.Array:
  """Log probabilities, NEVER of what cannot come: a start, padding, and an end before `least` words."""
  word = jnp.arange(logits.shape[-1])
  never = (word == start) | ((word == pad) & (pad != end)) | ((word == end) & (at <= search.least))
  return jnp.where(never, NEVER, jax.nn.log_softmax(logits))
