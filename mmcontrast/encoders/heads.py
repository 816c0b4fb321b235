"""Projections from the pooled vector, or the tokens, of a tower or of another head, into one named space.

Heads of more than one layer for towers that do not train are in projectors.py, those of feature maps in token_heads.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.dtypes import DTYPES
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.finite_tokens import FiniteTokens
from mmcontrast.encoders.norm import BatchNorm
from mmcontrast.encoders.projectors import ResidualMlp, TokenProjector, UniversalProjection
from mmcontrast.encoders.shared_queries import SharedQueries
from mmcontrast.encoders.sizes import check_sizes
from mmcontrast.encoders.token_heads import PixelPropagation, Slots, TokenPrototypes
from mmcontrast.encoders.token_merge import TokenMerge
from mmcontrast.encoders.words import Words
from mmcontrast.errors import UserError
from mmcontrast.registry import build


class Linear(nn.Module):
  """One matrix, as CLIP projects."""

  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  bias: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, D] -> pooled [B, dim], not normalised."""
    del train
    dtype = jnp.dtype(self.dtype)
    return Encoded(nn.Dense(self.dim, use_bias=self.bias, dtype=dtype, name="fc1")(pooled))


class Mlp(nn.Module):
  """Linear layers with ReLU between; the defaults are MoCo v2's head (arXiv:2003.04297).

  Attributes:
    hidden: width of the inner layers; None: that of the input.
    depth: number of linear layers, at least one.
    batch_norm: after each inner layer, before its ReLU, as in SimCLR; its bias is dropped.
    batch_norm_last: after the last layer too, without scale and bias, as in SimSiam and MoCo v3.
  """

  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  hidden: int | None = None
  depth: int = 2
  batch_norm: bool = False
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5
  dtype: str = "float32"
  batch_norm_last: bool = False

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.depth, int) or self.depth < 1:
      raise UserError(f"depth={self.depth!r} is not a number of linear layers; give 1 or more (MoCo v2: 2)")
    if self.depth == 1 and self.batch_norm:
      raise UserError("batch_norm=True is after inner layers, and depth=1 has none; use depth=2, or leave one out")

  @nn.compact
  def __call__(self, pooled: jax.Array, mask: jax.Array | None = None, *, train: bool) -> Encoded:
    """[..., D] -> pooled [..., dim], not normalised; batch norm is over what `mask` [...] lets pass."""
    dtype = jnp.dtype(self.dtype)
    hidden, x = self.hidden or pooled.shape[-1], pooled
    for i in range(1, self.depth):
      x = nn.Dense(hidden, use_bias=not self.batch_norm, dtype=dtype, name=f"fc{i}")(x)
      if self.batch_norm:
        norm = BatchNorm(self.bn_momentum, self.bn_epsilon, dtype, name=f"bn{i}")
        x = norm(x, mask, train=train)
      x = nn.relu(x)
    x = nn.Dense(self.dim, use_bias=not self.batch_norm_last, dtype=dtype, name=f"fc{self.depth}")(x)
    if self.batch_norm_last:
      norm = BatchNorm(self.bn_momentum, self.bn_epsilon, dtype, affine=False, name=f"bn{self.depth}")
      x = norm(x, mask, train=train)
    return Encoded(x)


class TokenMlp(Mlp):
  """As `mlp`, for every token: the 1x1 convolutions that PixPro and SlotCon put on a feature map.

  Batch norm is over all tokens that are real.
  """

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask")

  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, L, dim], not normalised, and their mask."""
    return Encoded(None, super().__call__(tokens, mask, train=train).pooled, mask)


class Identity(nn.Module):
  """The pooled vector itself."""

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, D] -> pooled [B, D]."""
    del train
    return Encoded(pooled)


class TokenIdentity(nn.Module):
  """The tokens themselves, with their mask."""

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask")

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, L, D] and their mask."""
    del train
    return Encoded(None, tokens, mask)


class TokenLinear(nn.Module):
  """One matrix for every token, for scores that compare tokens (FILIP, arXiv:2111.07783)."""

  TAKES: ClassVar = ("tokens", "mask")
  GIVES: ClassVar = ("tokens", "mask")
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  bias: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, L, dim] and their mask."""
    del train
    return Encoded(None, nn.Dense(self.dim, use_bias=self.bias, dtype=jnp.dtype(self.dtype), name="fc1")(tokens), mask)


class TokenWeighted(TokenLinear):
  """As `token_linear`, and a learned weight for each token, for score `token_weighted`.

  The logarithm of the weight comes from a layer of ReLU on the projected token, as in VALOR
  (arXiv:2304.08345) and HBI (arXiv:2303.14369).
  """

  GIVES: ClassVar = ("tokens", "mask", "weights")

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> Encoded:
    """[B, L, D], [B, L] -> tokens [B, L, dim], their mask, and weights [B, L], as logarithms."""
    del train
    dtype = jnp.dtype(self.dtype)
    found = nn.Dense(self.dim, use_bias=self.bias, dtype=dtype, name="fc1")(tokens)
    hidden = nn.relu(nn.Dense(self.dim, dtype=dtype, name="weight1")(found))
    return Encoded(None, found, mask, nn.Dense(1, dtype=dtype, name="weight2")(hidden)[..., 0])


class Prototypes(nn.Module):
  """Cosines with `dim` learned prototypes: DINO's last layer, a linear one whose weights have unit length
  (arXiv:2104.14294)."""

  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, D] -> pooled [B, dim], logits."""
    del train
    kernel = self.param("kernel", nn.initializers.lecun_normal(), (pooled.shape[-1], self.dim), jnp.float32)
    kernel = kernel / jnp.maximum(jnp.linalg.norm(kernel, axis=0, keepdims=True), 1e-12)
    wide = pooled.astype(jnp.promote_types(pooled.dtype, jnp.float32))
    unit = wide * jax.lax.rsqrt(jnp.maximum(jnp.sum(wide * wide, -1, keepdims=True), 1e-24))
    return Encoded(unit.astype(jnp.dtype(self.dtype)) @ kernel.astype(jnp.dtype(self.dtype)))


class Match(nn.Module):
  """Logits from the pooled vector of a tower that reads others: whether a text and an image belong together.

  ALBEF's (arXiv:2107.07651) is one linear layer on the first token of the fusion encoder, with the classes
  "mismatched" 0 and "matched" 1.

  Attributes:
    dim: how many logits.
  """

  GIVES: ClassVar = ("logits",)
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int = 2
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if isinstance(self.dim, bool) or not isinstance(self.dim, int) or self.dim < 2:
      raise UserError(f"dim: {self.dim!r} is not a number of classes; give 2 or more")

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> Encoded:
    """[B, D] -> logits [B, dim]."""
    del train
    return Encoded(logits=nn.Dense(self.dim, dtype=jnp.dtype(self.dtype), name="fc1")(pooled))


HEADS = {
  "prototypes": Prototypes,
  "linear": Linear,
  "mlp": Mlp,
  "identity": Identity,
  "token_identity": TokenIdentity,
  "token_linear": TokenLinear,
  "token_weighted": TokenWeighted,
  "token_mlp": TokenMlp,
  "token_prototypes": TokenPrototypes,
  "pixel_propagation": PixelPropagation,
  "slots": Slots,
  "residual_mlp": ResidualMlp,
  "token_projector": TokenProjector,
  "universal_projection": UniversalProjection,
  "finite_tokens": FiniteTokens,
  "match": Match,
  "words": Words,
  "shared_queries": SharedQueries,
  "token_merge": TokenMerge,
}


def gives(head: nn.Module) -> frozenset[str]:
  """The fields of `Encoded` that a head fills."""
  return frozenset(getattr(head, "GIVES", ("pooled",)))


def keeps_places(head: nn.Module) -> bool:
  """Whether the tokens that a head gives are those that it reads, one for each, and so in the same grid."""
  return gives_tokens(head) and keeps_tokens(head)


def keeps_tokens(head: nn.Module) -> bool:
  """Whether a head makes something of each token that it reads, for each by itself."""
  return "tokens" in takes(head) and getattr(head, "KEEPS_PLACES", True)


def takes(head: nn.Module) -> tuple[str, ...]:
  """The fields of `Encoded` that a head is called with, in order."""
  return getattr(head, "TAKES", ("pooled",))


def gives_tokens(head: nn.Module) -> bool:
  """Whether a head gives tokens [B, L, dim] instead of a pooled vector [B, dim]."""
  return "tokens" in gives(head)


def gives_weights(head: nn.Module) -> bool:
  """Whether a head gives a weight for each of its tokens."""
  return "weights" in gives(head)


def build_head(config: Mapping[str, Any], where: str = "heads") -> nn.Module:
  """Builds `HEADS[config["name"]]` with the rest of the config as options.

  The module maps what it `takes`, and `train`, to an `Encoded` of the fields that it `gives`. Raises
  UserError for an unknown name or option, naming the nearest.
  """
  check_sizes(config, where)
  return build(HEADS, config, where)
