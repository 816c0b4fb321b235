"""One ViT at several sizes of its patches (FlexiViT, Beyer et al., arXiv:2212.08013).

The patch embedding and the positions are kept at one size, and are resized to the patches that a step has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError


def check_patches(patches: Sequence[int], used: int) -> None:
  """Raises UserError unless `patches` are different sizes in pixels, and `used` one of them, or 0."""
  whole = isinstance(patches, list | tuple) and all(isinstance(p, int) and not isinstance(p, bool) for p in patches)
  if not whole or any(p < 1 for p in patches) or len(set(patches)) < len(patches):
    raise UserError(f"patches={patches!r} is no list of different sizes in pixels, such as (8, 16, 32)")
  if used and used not in patches:
    near = f"the nearest is {min(patches, key=lambda p: abs(p - used))}" if patches else "give patches too"
    raise UserError(f"evaluation_patch={used} is not in patches={tuple(patches)}; {near}")


def resize_matrix(old: int, new: int) -> np.ndarray:
  """[new, old]: what makes `new` points of `old` by linear interpolation, the edges repeated, without smoothing."""
  at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
  low = np.minimum(at.astype(int), max(old - 2, 0))
  table = np.zeros((new, old))
  table[np.arange(new), low] = 1 - (at - low)
  if old > 1:
    table[np.arange(new), low + 1] += at - low
  return table


def resized_kernel(kernel: jax.Array, patch: int) -> jax.Array:
  """A patch embedding [P, P, C, D] for patches of another size, [patch, patch, C, D].

  Its product with a patch that is resized by B is as near as can be to that of the kernel with the patch itself: it is
  (B^T)^+ kernel, and equal where patches become larger. Source: FlexiViT (arXiv:2212.08013), section 3.4, eq. 3.
  """
  old = kernel.shape[0]
  if old == patch:
    return kernel
  inverse = jnp.asarray(np.linalg.pinv(resize_matrix(old, patch).T), kernel.dtype)  # of rows and of columns alike
  return jnp.einsum("iy,jx,yxcd->ijcd", inverse, inverse, kernel, precision="highest")


def resized_positions(position: jax.Array, rows: int, columns: int) -> jax.Array:
  """Learned positions [1, extra + n * n, D] for another grid, linearly and smoothed; the first `extra` stay."""
  side = math.isqrt(position.shape[1])
  extra = position.shape[1] - side * side
  square = position[0, extra:].reshape(side, side, -1)
  resized = jax.image.resize(square, (rows, columns, square.shape[-1]), "linear")
  return jnp.concatenate([position[:, :extra], resized.reshape(1, rows * columns, -1)], axis=1)


def of_patch(params: Mapping[str, Any], patch: int, size: tuple[int, int]) -> dict[str, Any]:
  """The parameters of a ViT for patches of another size, of images of `size`."""
  embed = params["patch_embed"]
  made = {**params, "patch_embed": {**embed, "kernel": resized_kernel(embed["kernel"], patch)}}
  if "pos_embed" in params:
    made["pos_embed"] = resized_positions(params["pos_embed"], size[0] // patch, size[1] // patch)
  return made


def encode(tower: nn.Module, images: jax.Array, *, train: bool, pooled_only: bool) -> Encoded:
  """Images [B, H, W, 3] through a ViT whose `patches` are given, which has its parameters.

  In training one of the sizes is drawn for all examples by the key of dropout, which is that of the step and the view:
  all are in one program, and one is computed. Tokens are padded to the most that there may be, with their mask. Else
  patches are of `evaluation_patch`.
  """
  size = images.shape[1:3]
  for patch in tower.patches:
    if (size[0] % patch or size[1] % patch) and not tower.cut_edges:
      raise UserError(
        f"patches={tuple(tower.patches)}: images of {size[0]}x{size[1]} do not split into patches of {patch} px; leave "
        f"{patch} out, or set cut_edges=True"
      )
  params = tower.variables["params"]

  def at(patch: int, params: Mapping[str, Any], images: jax.Array, **options: Any) -> Encoded:
    plain = tower.clone(patch=patch, patches=(), evaluation_patch=0, parent=None, name=None)
    return plain.apply({"params": of_patch(params, patch, size)}, images, pooled_only=pooled_only, **options)

  if not train or not tower.has_rng("dropout"):
    return at(tower.evaluation_patch or tower.patches[0], params, images, train=False)
  most = max((size[0] // patch) * (size[1] // patch) for patch in tower.patches)

  def padded(patch: int, params: Mapping[str, Any], images: jax.Array, key: jax.Array) -> Encoded:
    made = at(patch, params, images, train=True, rngs={"dropout": key})
    tokens = made.tokens
    if tokens is None:
      return Encoded(made.pooled, losses=made.losses)
    count = tokens.shape[1]
    mask = jnp.broadcast_to(jnp.arange(most) < count, (len(tokens), most))
    return Encoded(made.pooled, jnp.pad(tokens, ((0, 0), (0, most - count), (0, 0))), mask, losses=made.losses)

  drawn, key = jax.random.split(tower.make_rng("dropout"))
  branches = [lambda *operands, patch=patch: padded(patch, *operands) for patch in tower.patches]
  return jax.lax.switch(jax.random.randint(drawn, (), 0, len(branches)), branches, params, images, key)
