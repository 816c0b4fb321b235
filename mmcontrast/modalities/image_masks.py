"""Views of which patches are hidden, for towers that are to know what lies there (iBOT, Zhou et al., arXiv:2111.07832).

image_masked[k] is image[k], the same pixels, with a mask that the tower reads: False where its patch is hidden. Where
they are one square, image_region[k] shows what lies there, as large as a view (ALPRO, arXiv:2112.09583).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmcontrast.data.checks import check_counts, check_range
from mmcontrast.errors import UserError, choose

DEFAULTS = {"views": 0, "patch": 16, "block": 1, "shape": "patches", "share": (0.1, 0.5), "probability": 0.5}
SHAPES = ("patches", "square")
_DOMAIN = 0x6D61736B  # apart from what augmentations draw


class Masking(NamedTuple):
  """How patches are hidden, `config.data.masked`; hashable.

  Attributes:
    views: image[0] to image[views - 1] have a masked version.
    patch: side of a patch in pixels, the tower's.
    share: of an image's patches, or blocks of them, drawn from this range.
    probability: that an image has hidden patches at all.
    block: patches on a side of what is hidden at once; 1: each patch by itself.
    shape: "patches", anywhere, or "square", all of them one square at a place that is drawn.
  """

  views: int
  patch: int
  share: tuple[float, float]
  probability: float
  block: int = 1
  shape: str = "patches"

  def hidden(self, seeds: jax.Array, view: int, size: int) -> jax.Array:
    """Bool [B, L]: the hidden patches of a view of `size` pixels a side; of an example by its seed [B] only."""
    if self.shape == "square":
      row, column, side = self.square(seeds, view, size)
      at = jnp.arange(size // self.patch)
      rows, columns = ((at >= first[:, None]) & (at < (first + side)[:, None]) for first in (row, column))
      return (rows[:, :, None] & columns[:, None]).reshape(len(seeds), -1)
    side = size // (self.patch * self.block)
    count = side**2

    def of_example(seed):
      noise = self._noise(seed, view, count + 2)
      places = jnp.argsort(jnp.argsort(noise[2:]))  # the rank of each patch: no two are equal
      return places < jnp.round(self._share(noise) * count)

    blocks = jax.vmap(of_example)(seeds).reshape(-1, side, side)
    return blocks.repeat(self.block, 1).repeat(self.block, 2).reshape(len(blocks), -1)

  def square(self, seeds: jax.Array, view: int, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(row, column, side), int32 [B], in patches, of the square that is hidden; side 0 where nothing is."""
    grid = size // self.patch

    def of_example(seed):
      noise = self._noise(seed, view, 4)
      share = self._share(noise)
      side = jnp.where(share > 0, jnp.clip(jnp.round(jnp.sqrt(share) * grid), 1, grid), 0)
      row, column = jnp.floor(noise[2:] * (grid - side + 1))
      return tuple(x.astype(jnp.int32) for x in (row, column, side))

    return jax.vmap(of_example)(seeds)

  def regions(self, pixels: jax.Array, seeds: jax.Array, view: int) -> jax.Array:
    """[B, H, W, C] -> the same shape: the square that is hidden, as large as the view; all of it where nothing is."""
    size = pixels.shape[1]
    row, column, side = (x * self.patch for x in self.square(seeds, view, size))

    def of_example(image, row, column, side):
      scale = size / jnp.where(side > 0, side, size).astype(jnp.float32)
      shift = -jnp.stack([row, column]).astype(jnp.float32) * scale * (side > 0)
      return jax.image.scale_and_translate(
        image, image.shape, (0, 1), jnp.stack([scale, scale]), shift, "linear", antialias=False
      )

    return jax.vmap(of_example)(pixels, row, column, side)

  def _noise(self, seed: jax.Array, view: int, count: int) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), view)
    return jax.random.uniform(jax.random.fold_in(key, _DOMAIN), (count,))

  def _share(self, noise: jax.Array) -> jax.Array:
    low, high = self.share
    return jnp.where(noise[0] < self.probability, low + (high - low) * noise[1], 0.0)


NONE = Masking(**DEFAULTS)


def masking(settings: Mapping[str, Any]) -> Masking:
  """That of resolved config.data."""
  given = settings["masked"]
  return Masking(**{**given, "share": tuple(given["share"])})


def check(settings: Mapping[str, Any]) -> None:
  """Raises UserError for bad values of config.data.masked."""
  given, views, size = settings["masked"], settings["views"]["image"], settings["image_size"]
  check_counts(given, {"views": 0, "patch": 1, "block": 1}, "data.masked")
  if given["views"] > views:
    raise UserError(
      f"data.masked.views: {given['views']} masked versions of {views} image views; set data.views.image to "
      f"{given['views']}, or data.masked.views to {views} or fewer"
    )
  check_range(given["share"], "data.masked.share", most=1)
  choose(given["shape"], SHAPES, "data.masked.shape")
  if given["shape"] == "square" and given["block"] != 1:
    raise UserError(f"data.masked.block: {given['block']}, and shape='square' hides one square anyway; set block to 1")
  if not 0 < given["probability"] <= 1:
    raise UserError(f"data.masked.probability: {given['probability']!r}; give a number over 0 and at most 1")
  if given["views"] and size % given["patch"]:
    raise UserError(
      f"data.masked.patch: images of {size} px do not split into patches of {given['patch']} px; set it to the "
      "tower's patch, which divides data.image_size"
    )
  if given["views"] and size // given["patch"] % given["block"]:
    side = size // given["patch"]
    fitting = [block for block in range(1, side + 1) if side % block == 0]
    near = min(fitting, key=lambda block: abs(block - given["block"]))
    raise UserError(
      f"data.masked.block: {side} patches on a side do not split into blocks of {given['block']}; the nearest is {near}"
    )
