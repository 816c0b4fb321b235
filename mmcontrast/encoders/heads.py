"""Projections from a tower's pooled vector, or its tokens, into one named space.

Heads of more than one layer for towers that do not train are in projectors.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from mmcontrast.encoders.norm import BatchNorm
from mmcontrast.encoders.projectors import ResidualMlp, TokenProjector, UniversalProjection
from mmcontrast.encoders.registry import DTYPES, build
from mmcontrast.errors import UserError


class Linear(nn.Module):
  """One matrix, as CLIP projects."""

  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  bias: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> jax.Array:
    """[B, D] -> [B, dim], not normalised."""
    del train
    dtype = jnp.dtype(self.dtype)
    return nn.Dense(self.dim, use_bias=self.bias, dtype=dtype, name="fc1")(pooled)


class Mlp(nn.Module):
  """Linear layers with ReLU between; the defaults are MoCo v2's head (arXiv:2003.04297).

  Attributes:
    hidden: width of the inner layers; None: that of the input.
    depth: number of linear layers, at least one.
    batch_norm: after each inner layer, before its ReLU, as in SimCLR; its bias is dropped.
  """

  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  hidden: int | None = None
  depth: int = 2
  batch_norm: bool = False
  bn_momentum: float = 0.9
  bn_epsilon: float = 1e-5
  dtype: str = "float32"

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.depth, int) or self.depth < 1:
      raise UserError(f"depth={self.depth!r} is not a number of linear layers; give 1 or more (MoCo v2: 2)")
    if self.depth == 1 and self.batch_norm:
      raise UserError("batch_norm=True is after inner layers, and depth=1 has none; use depth=2, or leave one out")

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> jax.Array:
    """[B, D] -> [B, dim], not normalised."""
    dtype = jnp.dtype(self.dtype)
    hidden, x = self.hidden or pooled.shape[-1], pooled
    for i in range(1, self.depth):
      x = nn.Dense(hidden, use_bias=not self.batch_norm, dtype=dtype, name=f"fc{i}")(x)
      if self.batch_norm:
        norm = BatchNorm(self.bn_momentum, self.bn_epsilon, dtype, name=f"bn{i}")
        x = norm(x, train=train)
      x = nn.relu(x)
    return nn.Dense(self.dim, dtype=dtype, name=f"fc{self.depth}")(x)


class Identity(nn.Module):
  """The pooled vector itself."""

  @nn.compact
  def __call__(self, pooled: jax.Array, *, train: bool) -> jax.Array:
    """[B, D] -> [B, D]."""
    del train
    return pooled


class TokenLinear(nn.Module):
  """One matrix for every token, for scores that compare tokens (FILIP, arXiv:2111.07783)."""

  TAKES: ClassVar = ("tokens", "mask")
  GIVES_TOKENS: ClassVar = True
  CHOICES: ClassVar = {"dtype": DTYPES}

  dim: int
  bias: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    """[B, L, D], [B, L] -> [B, L, dim], zeros where there is no token."""
    del train
    found = nn.Dense(self.dim, use_bias=self.bias, dtype=jnp.dtype(self.dtype), name="fc1")(tokens)
    return found if mask is None else jnp.where(mask[..., None], found, 0)


class TokenWeighted(TokenLinear):
  """As `token_linear`, and a learned weight for each token, for score `token_weighted`.

  The logarithm of the weight comes from a layer of ReLU on the projected token, as in VALOR
  (arXiv:2304.08345) and HBI (arXiv:2303.14369).
  """

  GIVES_WEIGHTS: ClassVar = True

  @nn.compact
  def __call__(self, tokens: jax.Array, mask: jax.Array | None, *, train: bool) -> jax.Array:
    """[B, L, D], [B, L] -> [B, L, dim + 1], the weight's logarithm last, zeros where there is no token."""
    del train
    dtype = jnp.dtype(self.dtype)
    found = nn.Dense(self.dim, use_bias=self.bias, dtype=dtype, name="fc1")(tokens)
    hidden = nn.relu(nn.Dense(self.dim, dtype=dtype, name="weight1")(found))
    found = jnp.concatenate([found, nn.Dense(1, dtype=dtype, name="weight2")(hidden)], -1)
    return found if mask is None else jnp.where(mask[..., None], found, 0)


HEADS = {
  "linear": Linear,
  "mlp": Mlp,
  "identity": Identity,
  "token_linear": TokenLinear,
  "token_weighted": TokenWeighted,
  "residual_mlp": ResidualMlp,
  "token_projector": TokenProjector,
  "universal_projection": UniversalProjection,
}


def takes(head: nn.Module) -> tuple[str, ...]:
  """The fields of `Encoded` that a head is called with, in order."""
  return getattr(head, "TAKES", ("pooled",))


def gives_tokens(head: nn.Module) -> bool:
  """Whether a head gives [B, L, dim], an embedding for each token, instead of [B, dim]."""
  return getattr(head, "GIVES_TOKENS", False)


def gives_weights(head: nn.Module) -> bool:
  """Whether the last number of each token that a head gives is the logarithm of its weight."""
  return getattr(head, "GIVES_WEIGHTS", False)


def build_head(config: Mapping[str, Any], where: str = "heads") -> nn.Module:
  """Builds `HEADS[config["name"]]` with the rest of the config as options.

  The module maps what it `takes`, and `train`, to [B, dim] or [B, L, dim] (`gives_tokens`). Raises
  UserError for an unknown name or option, naming the nearest.
  """
  return build(HEADS, config, where)
