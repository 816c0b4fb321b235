"""Images of any ratio in one batch: positions of each one's grid, and the same outputs one by one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.data import native
from mmcontrast.encoders import build_encoder, grids
from mmcontrast.encoders.positions import rope2d, sincos2d
from mmcontrast.errors import UserError

GRIDS, LENGTH = np.array([[2, 3], [1, 5], [4, 2], [3, 3]]), 9
SMALL = {"name": "vit", "width": 8, "depth": 2, "heads": 2, "patch": 2, "position_side": 3}


def test_fixed_positions_and_angles_are_those_of_each_grid():
  fixed, angles = grids.fixed(jnp.asarray(GRIDS), LENGTH, 8), grids.angles(jnp.asarray(GRIDS), LENGTH, 8)
  for number, (rows, columns) in enumerate(GRIDS):
    count = rows * columns
    np.testing.assert_allclose(fixed[number, :count], sincos2d(rows, columns, 8), atol=1e-6)
    np.testing.assert_allclose(angles[number, :count], rope2d(rows, columns, 8), atol=2e-5)
  assert np.isfinite(fixed).all() and np.isfinite(angles).all()


def test_learned_positions_are_resized_linearly_and_smoothed():
  """By the formula, one point after the other; of their own grid they are themselves."""
  position = np.random.default_rng(0).standard_normal((9, 4), np.float32)
  found = np.asarray(grids.resized_to(jnp.asarray(position), jnp.asarray(GRIDS), LENGTH))

  def weights(count):
    scale = 3 / count
    table = np.array([[max(0, 1 - abs(j + 0.5 - (i + 0.5) * scale) / max(scale, 1)) for j in range(3)]
                      for i in range(count)])  # fmt: skip
    return table / table.sum(1, keepdims=True)

  for number, (rows, columns) in enumerate(GRIDS):
    expected = np.einsum("ry,cx,yxd->rcd", weights(rows), weights(columns), position.reshape(3, 3, 4)).reshape(-1, 4)
    np.testing.assert_allclose(found[number, : rows * columns], expected, atol=1e-6)
  np.testing.assert_allclose(found[3], position, atol=1e-6)
  assert np.isfinite(found).all()
  with pytest.raises(UserError, match=r"8 learned positions are not a square of patches"):
    grids.resized_to(jnp.zeros((8, 4)), jnp.asarray(GRIDS), LENGTH)


def batch():
  """Patches [4, LENGTH, 12] of images of GRIDS, and which are real; what pads them is noise."""
  patches = np.random.default_rng(0).standard_normal((4, LENGTH, 12), np.float32)
  return patches, np.arange(LENGTH) < GRIDS.prod(1)[:, None]


@pytest.mark.parametrize("options", [
  {"pool": "map"}, {"pool": "cls", "positions": "rope", "width": 16, "registers": 1, "pre_norm": True},
  {"pool": "gap", "positions": "sincos2d", "norm_after_pool": True},
], ids=str)  # fmt: skip
def test_padded_is_one_by_one(options):
  """The batch beside one image alone without padding, and padding that is other noise."""
  tower, (patches, real) = build_encoder(SMALL | options), batch()
  weights = jax.jit(lambda key: tower.init(key, patches, real, GRIDS, train=False))(jax.random.key(0))
  apply = jax.jit(lambda *inputs: tower.apply(weights, *inputs, train=False))
  out = apply(patches, real, GRIDS)
  assert np.std(out.pooled) > 0.1 and np.array_equal(out.mask, real)
  np.testing.assert_allclose(apply(np.where(real[..., None], patches, 9), real, GRIDS).pooled, out.pooled, atol=1e-5)
  alone = apply(patches[:1, :6], real[:1, :6], GRIDS[:1])
  np.testing.assert_allclose(alone.pooled, out.pooled[:1], atol=1e-5)
  np.testing.assert_allclose(alone.tokens, out.tokens[:1, :6], atol=1e-5)


def test_patches_of_a_whole_image_are_the_image():
  image = np.random.default_rng(0).standard_normal((1, 4, 6, 3), np.float32)
  patches = np.zeros((1, 7, 12), np.float32)
  assert native.cut(image[0], patches[0]) == (2, 3)
  tower = build_encoder(SMALL | {"positions": "sincos2d", "depth": 1})
  weights = jax.jit(lambda key: tower.init(key, image, train=False))(jax.random.key(0))
  apply = jax.jit(lambda *inputs: tower.apply(weights, *inputs, train=False).pooled)
  padded = apply(patches, np.arange(7)[None] < 6, np.array([[2, 3]]))
  np.testing.assert_allclose(padded, apply(image), atol=1e-5)


@pytest.mark.parametrize("options, message", [
  ({"patch_drop": 0.5}, r"patch_drop=0\.5: images that keep their ratio keep all patches; set it to 0"),
  ({"patch": 4}, r"patches of 2 px do not go with a tower of patch=4; set config\.data\.native\.patch to 4"),
], ids=str)  # fmt: skip
def test_what_does_not_fit_is_said(options, message):
  with pytest.raises(UserError, match=message):
    jax.eval_shape(lambda: build_encoder(SMALL | options).init(jax.random.key(0), *batch(), GRIDS, train=False))
