"""Heads that keep a feature map, or make slots of it: for terms that compare places of an image."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from mmcontrast.encoders.dense import Dense
from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError


class TokenPrototypes(nn.Module):
  """As `prototypes`, for every token: its cosines with `dim` learned prototypes (iBOT, arXiv:2111.07832; the groups of
  SlotCon, arXiv:2205.15288)."""

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, L, dim], cosines, and their mask."""
    del train
    return Encoded(None, cosines(tokens, table(self, tokens.shape[-1], self.dim)).astype(jnp.dtype(self.dtype)), mask)


class PixelPropagation(nn.Module):
  """Each place takes on what similar places say: PixPro's propagation module (Xie et al. 2021, arXiv:2011.10043).

      y_i = sum_j max(cos(f_i, f_j), 0)^power  g(f_j) / |g(f_j)|,  g one linear layer

  As zdaxie/PixPro@e390d6b: similarity is of unit vectors, g is of the vectors as they are. Padding says nothing.

  Attributes:
    power: 1 or more; the larger, the fewer places are listened to (released: 2).
  """

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES}

  power: float = 2.0
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if not self.power >= 1:
      raise UserError(f"power: {self.power!r} is below 1, where similarity 0 has no gradient; PixPro uses 2")

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, L, D], not normalised, and their mask."""
    del train
    dtype = jnp.dtype(self.dtype)
    values = unit(Dense(tokens.shape[-1], dtype=dtype, name="value")(tokens))
    return Encoded(None, propagate(tokens, values, mask, self.power).astype(dtype), mask)


class Slots(nn.Module):
  """Means of a feature map by learned groups (SlotCon, Wen et al. 2022, arXiv:2205.15288).

      A = softmax over groups of cos(prototype_k, f_i) / temperature, + 1e-6;   slot_k = sum_i A_ki f_i / sum_i A_ki

  The mask says which slots win a place, being the nearest to one at least. The groups are those of a head
  `token_prototypes` with `shared=dict(kernel=HEAD)`.

  Attributes:
    slots: how many.
    temperature: of the softmax (released: 0.07 in both branches).
  """

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask")
  KEEPS_PLACES: ClassVar = False
  CHOICES: ClassVar = {"dtype": DTYPES}

  slots: int
  temperature: float = 0.07
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.slots, bool) or not isinstance(self.slots, int) or self.slots < 2:
      raise UserError(f"slots: {self.slots!r} is not a number of slots; give 2 or more (SlotCon on COCO: 256)")
    if not self.temperature > 0:
      raise UserError(f"temperature: {self.temperature!r} is not above 0; SlotCon uses 0.07")

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, slots, D], not normalised, and which of them win a place, [B, slots]."""
    del train
    scores = cosines(tokens, table(self, tokens.shape[-1], self.slots))
    found, wins = grouped(tokens, scores, mask, self.temperature)
    return Encoded(None, found.astype(jnp.dtype(self.dtype)), wins)


def table(module: nn.Module, width: int, count: int) -> jax.Array:
  """The prototypes of a head, [width, count]; their length does not count."""
  return module.param("kernel", nn.initializers.lecun_normal(), (width, count), jnp.float32)


def unit(x: jax.Array, axis: int = -1) -> jax.Array:
  """Of unit length along an axis, float32 or wider; zeros stay zeros."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return x * lax.rsqrt(jnp.maximum(jnp.sum(x * x, axis, keepdims=True), 1e-24))


def cosines(tokens: jax.Array, prototypes: jax.Array) -> jax.Array:
  """[B, L, D] and [D, K] -> [B, L, K]."""
  return unit(tokens) @ unit(prototypes, 0)


def propagate(tokens: jax.Array, values: jax.Array, mask: jax.Array | None, power: float) -> jax.Array:
  """Tokens and their values [B, L, D], mask [B, L] -> [B, L, D]: values summed by similarity (see PixelPropagation)."""
  x = unit(tokens)
  similarity = jnp.maximum(jnp.einsum("bid,bjd->bij", x, x), 0.0) ** power
  similarity = similarity if mask is None else jnp.where(mask[:, None, :], similarity, 0.0)
  return jnp.einsum("bij,bjd->bid", similarity, values)


def grouped(
  tokens: jax.Array, scores: jax.Array, mask: jax.Array | None, temperature: float
) -> tuple[jax.Array, jax.Array]:
  """Tokens [B, L, D] and their scores [B, L, K] -> slots [B, K, D], and which win a token, bool [B, K]."""
  shares = jax.nn.softmax(scores / temperature, -1) + 1e-6
  shares = shares if mask is None else jnp.where(mask[..., None], shares, 0.0)
  total = jnp.maximum(jnp.sum(shares, 1), 1e-12)
  return jnp.einsum("blk,bld->bkd", shares, tokens) / total[..., None], winners(scores, mask)


def winners(scores: jax.Array, mask: jax.Array | None = None) -> jax.Array:
  """[B, L, K] -> bool [B, K]: which has the highest score of some token."""
  first = jax.nn.one_hot(jnp.argmax(scores, -1), scores.shape[-1], dtype=jnp.bool_)
  return jnp.any(first if mask is None else first & mask[..., None], 1)
