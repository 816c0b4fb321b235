"""Masked image modelling: the pixels of patches that the tower did not see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.encoders.tubelet_vit import tubelets_of
from mmcontrast.errors import UserError
from mmcontrast.objectives.means import mean_of_valid
from mmcontrast.objectives.module_loss import Facts, ModuleLoss

LOSSES = ("mse", "l1", "cross_entropy")


class MaskedPixels(ModuleLoss):
  """The error of each hidden patch, a mean over its pixels, over an image's hidden patches, then over images that have
  any.

      pixels = dict(module=dict(name="masked_pixels"), embeddings="decoder(image_masked[0])/pixels")

  The head gives a token of side x side x 3 numbers for each patch, row by row: dict(name="token_linear", dim=48,
  bias=True) of patches of 4 px; for each tubelet of a `video_masked` frames x side x side x 3, time first. One map of
  `image_maps` has one channel, and K logits where it says which of K classes a pixel is of. Targets are the pixels that
  the tower reads: data.facts=("masked", "pixels"). Several embeddings are averaged. Source: MAE (arXiv:2111.06377),
  SimMIM (arXiv:2111.09886; loss="l1", normalised=False); MultiMAE's criterion; VideoMAE (arXiv:2203.12602), but that
  there each channel of a tubelet is normalised by itself.

  Attributes:
    loss: "mse", "l1" of absolute errors, or "cross_entropy" of a map whose values are the numbers of classes.
    normalised: whether each patch has its mean taken off and is divided by its standard deviation (unbiased), as a
      target.
    hidden: who says which patches are hidden: "data" (config.data.masked or maps), or the "tower" that left them out of
      a whole view by itself, as an attentive_mask, so that they are not among the `places` of what it made.
    part: of `image_maps` the map that is the target: 0 the colours, 1 the first of config.data.maps.kinds, and so on.
  """

  TAKES = ("tokens", "grid")
  VIEW_FACTS = ("masked", "pixels")
  CHOICES: ClassVar = {"loss": LOSSES, "hidden": ("data", "tower")}

  loss: str = "mse"
  normalised: bool = True
  part: int = 0
  hidden: str = "data"

  def __post_init__(self):
    super().__post_init__()
    if self.loss == "cross_entropy" and self.normalised:
      raise UserError("normalised: True, and with loss='cross_entropy' pixels are classes; set normalised=False")

  def view_facts(self, name: str) -> tuple[str, ...]:
    return self.VIEW_FACTS if self.hidden == "data" else ("pixels",)

  def __call__(self, views: Sequence[Encoded], facts: Facts) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`views`: tokens [N, L, P * P * 3] each, a map."""
    if self.is_initializing():
      return jnp.float32(0), {}
    losses = [self._of(name, view, facts) for name, view in zip(facts.names, views)]
    return sum(losses) / len(losses), {}

  def _of(self, name: str, view: Encoded, facts: Facts) -> jax.Array:
    masked, pixels = self._target(name, view, facts)
    valid, target = facts.valid, patches_of(pixels, view.grid)
    of_classes = self.loss == "cross_entropy"
    count, size = view.tokens.shape[-1], target.shape[-1]
    if view.tokens.shape[:-1] != target.shape[:-1] or (count % size or count == size if of_classes else count != size):
      wanted = f"so many logits for each, dim={size} x classes" if of_classes else f"dim={size}"
      sides = "side x side" if pixels.ndim == 4 else "frames x side x side"
      raise UserError(
        f"masked_pixels: {name!r} gives {count} numbers a patch, and a patch has {size} ({sides} x "
        f"{pixels.shape[-1]}); set {wanted} of its head"
      )
    each = jnp.mean(self._errors(view.tokens, target), -1)
    hidden = jnp.sum(masked, 1)
    of_image = jnp.sum(jnp.where(masked & valid[:, None], each, 0.0), 1) / jnp.maximum(hidden, 1)
    return mean_of_valid(of_image, valid & (hidden > 0))

  def _target(self, name: str, view: Encoded, facts: Facts) -> tuple[jax.Array, jax.Array]:
    """(bool [N, L], which patches of the map are hidden; its pixels [N, H, W, channels])."""
    pixels = facts.of_view(name, "pixels")
    masked = facts.of_view(name, "masked") if self.hidden == "data" else _left_out(name, view)
    parts, channels = masked.shape[1] // math.prod(view.grid), pixels.shape[-1]
    if not 0 <= self.part < parts:
      raise UserError(f"masked_pixels: part={self.part}, and {name!r} is of {parts} maps; give 0 to {parts - 1}")
    if parts == 1:
      return masked, pixels
    colours = channels - parts + 1
    first, last = (0, colours) if not self.part else (colours + self.part - 1, colours + self.part)
    return masked.reshape(len(masked), parts, -1)[:, self.part], pixels[..., first:last]

  def _errors(self, found: jax.Array, target: jax.Array) -> jax.Array:
    """[N, L, P] of each pixel and channel; `found` is [N, L, P], or [N, L, P * K] logits."""
    if self.loss == "cross_entropy":
      logits = found.reshape(*target.shape, -1)
      log_p = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
      classes = jnp.round(target).astype(jnp.int32)
      return -jnp.take_along_axis(log_p, classes[..., None], -1)[..., 0]
    target = target.astype(jnp.promote_types(target.dtype, jnp.float32))
    if self.normalised:
      mean, variance = target.mean(-1, keepdims=True), target.var(-1, keepdims=True, ddof=1)
      target = (target - mean) / jnp.sqrt(variance + 1e-6)
    error = found.astype(target.dtype) - target
    return jnp.square(error) if self.loss == "mse" else jnp.abs(error)


def _left_out(name: str, view: Encoded) -> jax.Array:
  """Bool [N, L]: which places of a map were not seen. Raises UserError where all were."""
  if view.places is None:
    raise UserError(f"masked_pixels: hidden='tower', and {name!r} reads no tower that leaves patches out; name one")
  shown = jnp.zeros(view.tokens.shape[:2], bool)
  return ~shown.at[jnp.arange(len(shown))[:, None], view.places].set(True)


def patches_of(pixels: jax.Array, grid: tuple[int, ...]) -> jax.Array:
  """[N, H, W, C] -> [N, L, P * P * C]: the patches of a grid, row by row, each row by row; [N, T, H, W, C] -> [N, L,
  F * P * P * C]: tubelets of F frames, time first."""
  if len(grid) == 3:
    return tubelets_of(pixels, (pixels.shape[1] // grid[0], pixels.shape[2] // grid[1]))[0]
  (rows, columns), (count, height, width, channels) = grid, pixels.shape
  x = pixels.reshape(count, rows, height // rows, columns, width // columns, channels)
  return x.swapaxes(2, 3).reshape(count, rows * columns, -1)
