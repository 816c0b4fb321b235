"""Words of a text taken away, to be guessed from the others: BERT's masked language modelling (arXiv:1810.04805)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

_STREAM = 0x3A5C  # apart from what else an example's seed draws


@dataclasses.dataclass(frozen=True)
class Masking:
  """Which words are taken, and what stands in their places.

  Attributes:
    share: probability of each word to be chosen.
    mask, random: shares of the chosen that the mask token, or any other word, stands for; the rest stay as they are.
    at_least_one: a text of which no word is chosen by chance loses one.
    mask_id: of the mask token.
    special: ids that are never chosen and never drawn, the mask token among them, ascending.
    vocab_size: ids are below it.
  """

  share: float
  mask: float
  random: float
  at_least_one: bool
  mask_id: int
  special: tuple[int, ...]
  vocab_size: int

  def __call__(self, ids: jax.Array, real: jax.Array, seeds: jax.Array, view: int) -> tuple[jax.Array, jax.Array]:
    """(ids with masked words [B, L], bool [B, L] where words were chosen), by the examples' own seeds.

    Args:
      ids: int32 [B, L], real: bool [B, L], which of them are not padding.
      seeds: uint32 [B].
      view: the number of the view; each draws for itself.
    """
    words = real & ~jnp.isin(ids, jnp.array(self.special))
    which, how, other = jax.vmap(lambda seed: self._draw(seed, view, ids.shape[1]))(seeds)
    chosen = words & (which < self.share)
    if self.at_least_one:
      which = jnp.where(words, which, 2.0)
      chosen |= words & (which == jnp.min(which, 1, keepdims=True))
    for special in self.special:  # ascending, so that each is stepped over
      other = other + (other >= special)
    instead = jnp.where(how < self.mask, self.mask_id, jnp.where(how < self.mask + self.random, other, ids))
    return jnp.where(chosen, instead, ids).astype(ids.dtype), chosen

  def _draw(self, seed: jax.Array, view: int, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """[L] each: which word, what becomes of it, and the number of another one among those that are not special."""
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), view)
    which, how, other = jax.random.split(jax.random.fold_in(key, _STREAM), 3)
    uniform = jax.random.uniform
    return (
      uniform(which, (length,)),
      uniform(how, (length,)),
      jax.random.randint(other, (length,), 0, self.vocab_size - len(self.special)),
    )
