"""Masked image modelling: the pixels of patches that the tower did not see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.objectives.means import mean_of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss

LOSSES = ("mse", "l1")


class MaskedPixels(ModuleLoss):
  """The error of each hidden patch, a mean over its pixels, over an image's hidden patches, then over images that have
  any.

      pixels = dict(module=dict(name="masked_pixels"), embeddings="decoder(image_masked[0])/pixels")

  The head gives a token of side x side x 3 numbers for each patch, row by row: dict(name="token_linear", dim=48,
  bias=True) of patches of 4 px. Targets are the pixels that the tower reads: data.facts=("masked", "pixels"). Several
  embeddings are averaged. Source: MAE (arXiv:2111.06377), SimMIM (arXiv:2111.09886; loss="l1", normalised=False);
  MultiMAE's criterion.

  Attributes:
    loss: "mse", or "l1" of absolute errors.
    normalised: whether each patch has its mean taken off and is divided by its standard deviation (unbiased), as a
      target.
  """

  TAKES = ("tokens", "grid")
  VIEW_FACTS = ("masked", "pixels")
  CHOICES: ClassVar = {"loss": LOSSES}

  loss: str = "mse"
  normalised: bool = True

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, P * P * 3] each, a map."""
    if self.is_initializing():
      return jnp.float32(0), {}
    losses = [self._of(name, view, facts) for name, view in zip(facts.names, views)]
    return sum(losses) / len(losses), {}

  def _of(self, name: str, view: Encoded, facts: Facts) -> jax.Array:
    masked, pixels = (facts.of_view(name, fact) for fact in self.VIEW_FACTS)
    valid = facts.valid
    target = patches_of(pixels, view.grid)
    if view.tokens.shape != target.shape:
      raise UserError(
        f"masked_pixels: {name!r} gives {view.tokens.shape[-1]} numbers a patch, and a patch has {target.shape[-1]} "
        f"(side x side x 3); set dim={target.shape[-1]} of its head"
      )
    target = target.astype(jnp.promote_types(target.dtype, jnp.float32))
    if self.normalised:
      mean, variance = target.mean(-1, keepdims=True), target.var(-1, keepdims=True, ddof=1)
      target = (target - mean) / jnp.sqrt(variance + 1e-6)
    error = view.tokens.astype(target.dtype) - target
    each = jnp.mean(jnp.square(error) if self.loss == "mse" else jnp.abs(error), -1)
    count = jnp.sum(masked, 1)
    of_image = jnp.sum(jnp.where(masked & valid[:, None], each, 0.0), 1) / jnp.maximum(count, 1)
    return mean_of_valid(of_image, valid & (count > 0))


def patches_of(pixels: jax.Array, grid: tuple[int, int]) -> jax.Array:
  """[N, H, W, C] -> [N, L, P * P * C]: the patches of a grid, row by row, each row by row."""
  (rows, columns), (count, height, width, channels) = grid, pixels.shape
  x = pixels.reshape(count, rows, height // rows, columns, width // columns, channels)
  return x.swapaxes(2, 3).reshape(count, rows * columns, -1)
