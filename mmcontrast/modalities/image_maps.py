"""Views of images with maps that are computed of them, of all of which a tower sees few patches (MultiMAE).

image_maps[k] is image[k], its colours after the same augmentation, with one more channel for each of
config.data.maps.kinds, and a mask that the tower reads: of the patches of all maps together, which are seen.
Source: Bachmann et al., arXiv:2204.01678, section 3.3; generate_random_masks of EPFL-VILAB/MultiMAE@66910f5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mmcontrast.data.checks import check_counts
from mmcontrast.errors import UserError, choose

DEFAULTS = {"views": 0, "patch": 16, "kinds": ("silhouette", "edges"), "seen": 1 / 6, "alpha": 1.0}
_DOMAIN = 0x6D617073  # apart from what augmentations and other masks draw
_LUMINANCE = np.array([0.299, 0.587, 0.114])


def silhouette(pixels: jax.Array) -> jax.Array:
  """[..., H, W, 3] in [0, 1] -> [..., H, W]: 1 where something is drawn, 0 on white (all channels over 0.95)."""
  return (jnp.min(pixels, -1) <= 0.95).astype(pixels.dtype)


def edges(pixels: jax.Array) -> jax.Array:
  """[..., H, W, 3] in [0, 1] -> [..., H, W]: the length of the luminance's gradient by Sobel's kernels, over 4; at the
  borders the outermost pixels are repeated."""
  grey = pixels @ jnp.asarray(_LUMINANCE, pixels.dtype)
  grey = jnp.pad(grey, [(0, 0)] * (grey.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
  rows, columns = grey.shape[-2] - 2, grey.shape[-1] - 2

  def at(y, x):
    return grey[..., y : y + rows, x : x + columns]

  across = at(0, 2) + 2 * at(1, 2) + at(2, 2) - at(0, 0) - 2 * at(1, 0) - at(2, 0)
  down = at(2, 0) + 2 * at(2, 1) + at(2, 2) - at(0, 0) - 2 * at(0, 1) - at(0, 2)
  return jnp.sqrt(across**2 + down**2) / 4


KINDS = {"silhouette": silhouette, "edges": edges}


class Maps(NamedTuple):
  """What `config.data.maps` says; hashable.

  Attributes:
    views: image[0] to image[views - 1] have such a version.
    patch: side of a patch in pixels, the tower's.
    kinds: of KINDS, in the order of the channels after the colours.
    seen: share of the patches of all maps, the colours among them, that the tower sees.
    alpha: of the symmetric Dirichlet distribution of the maps' shares in these.
  """

  views: int
  patch: int
  kinds: tuple[str, ...]
  seen: float
  alpha: float

  def add_to(self, pixels: jax.Array) -> jax.Array:
    """[..., H, W, 3] in [0, 1] -> [..., H, W, len(kinds)]."""
    return jnp.stack([KINDS[kind](pixels) for kind in self.kinds], -1)

  def shown(self, seeds: jax.Array, view: int, size: int) -> jax.Array:
    """Bool [B, maps * L], map after map: the patches of a view of `size` pixels a side that are seen; of an example by
    its seed [B] only. Of each example equally many."""
    length, parts = (size // self.patch) ** 2, 1 + len(self.kinds)

    def of_example(seed):
      key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), view)
      of_shares, of_patches = jax.random.split(jax.random.fold_in(key, _DOMAIN))
      share = jax.random.dirichlet(of_shares, jnp.full(parts, self.alpha))
      noise = jax.random.uniform(of_patches, (2 * parts * length,))
      each = noise[: parts * length].reshape(parts, length)
      return seen_by_shares(share, tuple(each), noise[parts * length :], round(self.seen * parts * length))

    return jax.vmap(of_example)(seeds)


def seen_by_shares(share: jax.Array, noise: Sequence[jax.Array], again: jax.Array, kept: int) -> jax.Array:
  """Bool [sum of L_t]: `kept` patches of several maps, of map t about share_t * kept.

  These are rounded, and a map may be asked for more patches than it has, so that a second draw, of those that the first
  has chosen before all others, leaves out or fills up.

  Args:
    share: [T], which sum to 1. noise: of each map [L_t], in [0, 1). again: [sum of L_t], in [0, 1).
  """
  wanted = jnp.round(share * kept)
  chosen = jnp.concatenate([jnp.argsort(of_map) < wanted[number] for number, of_map in enumerate(noise)])
  return jnp.argsort(jnp.argsort(again + ~chosen)) < kept


NONE = Maps(**DEFAULTS)


def maps_of(settings: Mapping[str, Any]) -> Maps:
  """Those of resolved config.data."""
  given = settings["maps"]
  return Maps(given["views"], given["patch"], tuple(given["kinds"]), given["seen"], given["alpha"])


def check(settings: Mapping[str, Any]) -> None:
  """Raises UserError for bad values of config.data.maps."""
  given, views, size = settings["maps"], settings["views"]["image"], settings["image_size"]
  check_counts(given, {"views": 0, "patch": 1}, "data.maps")
  if isinstance(given["kinds"], str) or not given["kinds"] or len(set(given["kinds"])) < len(given["kinds"]):
    raise UserError(f"data.maps.kinds: {given['kinds']!r} is no list of different maps, such as {tuple(KINDS)}")
  for kind in given["kinds"]:
    choose(kind, KINDS, "data.maps.kinds")
  if not 0 < given["seen"] <= 1:
    raise UserError(f"data.maps.seen: {given['seen']!r}; give a share of the patches, over 0 and at most 1")
  if not given["alpha"] > 0:
    raise UserError(f"data.maps.alpha: {given['alpha']!r} is not above 0; MultiMAE's is 1")
  if given["views"] > views:
    raise UserError(
      f"data.maps.views: {given['views']} versions with maps of {views} image views; set data.views.image to "
      f"{given['views']}, or data.maps.views to {views} or fewer"
    )
  if given["views"] and size % given["patch"]:
    raise UserError(
      f"data.maps.patch: images of {size} px do not split into patches of {given['patch']} px; set it to the tower's "
      "patch, which divides data.image_size"
    )
