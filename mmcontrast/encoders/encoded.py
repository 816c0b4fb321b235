"""What every tower and every head returns."""

from __future__ import annotations

from collections.abc import Mapping

import flax.struct
import jax


@flax.struct.dataclass
class Encoded:
  """One encoded view; a tower or a head fills what it has.

  Attributes:
    pooled: [B, D], one vector an example, not normalised; None of a head that gives tokens.
    tokens: [B, L, D], the positions that were pooled (patches, words, feature-map cells).
    mask: [B, L] bool, True where a token is real; None when all are.
    weights: [B, L], the logarithm of each token's weight; None when all weigh the same.
    logits: [B, ..., K], scores of K classes or words.
    losses: name -> [B], what a node asks of itself beside what terms ask of it (a balance of experts, a
      reconstruction): terms with `auxiliary` add them to the objective by name. "routing" is none but what the module
      `expert_balance` reads: [B, 2 E + 1], where its tokens went among E experts.
    parallel: [B] bool, the examples whose words are all hidden and predicted at once (CapPa); None: none is.
    places: [B, L], where on the grid `whole` each token is, of an image of which patches were left out; None: all are.
      Of a cloud: the number of the point that each token is about.
    hidden: [B, L] bool, the tokens that were hidden from the tower, which terms ask for; None: it hid none.
    boxes: [B, R, 4], where regions of the image are in the view that a tower encoded (modalities/boxes.py); None: not
      known.
    beside: what the other of two towers that read each other became; None where nobody asks.
    grid: the rows and columns that the tokens of an image are in, which make them a map; None for words, or where
      patches were dropped.
  """

  pooled: jax.Array | None = None
  tokens: jax.Array | None = None
  mask: jax.Array | None = None
  weights: jax.Array | None = None
  logits: jax.Array | None = None
  parallel: jax.Array | None = None
  places: jax.Array | None = None
  hidden: jax.Array | None = None
  boxes: jax.Array | None = None
  beside: Encoded | None = None
  losses: Mapping[str, jax.Array] = flax.struct.field(default_factory=dict)
  grid: tuple[int, ...] | None = flax.struct.field(pytree_node=False, default=None)
  whole: tuple[int, ...] | None = flax.struct.field(pytree_node=False, default=None)

  @property
  def map(self) -> jax.Array | None:
    """[B, rows, columns, D]: the tokens where they are on the grid; None without one."""
    if self.tokens is None or self.grid is None:
      return None
    return self.tokens.reshape(len(self.tokens), *self.grid, self.tokens.shape[-1])

  @property
  def fields(self) -> frozenset[str]:
    """What it makes: of "pooled", "tokens", "mask", "weights", "logits", "grid", and "losses/NAME"."""
    made = {
      name for name in ("pooled", "tokens", "mask", "weights", "logits", "grid") if getattr(self, name) is not None
    }
    return frozenset(made | {f"losses/{name}" for name in self.losses})
