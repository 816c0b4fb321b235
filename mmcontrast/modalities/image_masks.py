"""Views of which patches are hidden, for towers that are to know what lies there (iBOT, Zhou et al., arXiv:2111.07832).

image_masked[k] is image[k], the same pixels, with a mask that the tower reads: False where its patch is hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mmcontrast.data.checks import check_counts, check_range
from mmcontrast.errors import UserError

DEFAULTS = {"views": 0, "patch": 16, "block": 1, "share": (0.1, 0.5), "probability": 0.5}
_DOMAIN = 0x6D61736B  # apart from what augmentations draw


class Masking(NamedTuple):
  """How patches are hidden, `config.data.masked`; hashable.

  Attributes:
    views: image[0] to image[views - 1] have a masked version.
    patch: side of a patch in pixels, the tower's.
    block: patches on a side of what is hidden at once; 1: each patch by itself.
    share: of an image's blocks, drawn from this range.
    probability: that an image has hidden patches at all.
  """

  views: int
  patch: int
  share: tuple[float, float]
  probability: float
  block: int = 1

  def hidden(self, seeds: jax.Array, view: int, size: int) -> jax.Array:
    """Bool [B, L]: the hidden patches of a view of `size` pixels a side; of an example by its seed [B] only."""
    side, (low, high) = size // (self.patch * self.block), self.share
    count = side**2

    def of_example(seed):
      key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), view)
      noise = jax.random.uniform(jax.random.fold_in(key, _DOMAIN), (count + 2,))
      share = jnp.where(noise[0] < self.probability, low + (high - low) * noise[1], 0.0)
      places = jnp.argsort(jnp.argsort(noise[2:]))  # the rank of each patch: no two are equal
      return places < jnp.round(share * count)

    blocks = jax.vmap(of_example)(seeds).reshape(-1, side, side)
    return blocks.repeat(self.block, 1).repeat(self.block, 2).reshape(len(blocks), -1)


NONE = Masking(**DEFAULTS)


def masking(settings: Mapping[str, Any]) -> Masking:
  """That of resolved config.data."""
  given = settings["masked"]
  return Masking(given["views"], given["patch"], tuple(given["share"]), given["probability"], given["block"])


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
