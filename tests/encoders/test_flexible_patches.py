"""One ViT at several sizes of patches: the pseudo-inverse, what is drawn in training, and what evaluation has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.dropout import per_example
from mmcontrast.encoders.flexible_patches import of_patch, resize_matrix, resized_kernel, resized_positions
from mmcontrast.errors import UserError

SMALL = {"name": "vit", "width": 8, "depth": 1, "heads": 2, "patch": 4, "position_side": 3}
IMAGES = np.random.default_rng(0).standard_normal((2, 12, 12, 3), np.float32)


def test_a_kernel_of_enlarged_patches_gives_the_same():
  """<x, w> = <B x, (B^T)^+ w>, eq. 3, where B makes patches larger; for smaller ones the nearest in squares."""
  rng = np.random.default_rng(0)
  kernel, patch = rng.standard_normal((4, 4, 3, 5)), rng.standard_normal((4, 4, 3))
  with jax.enable_x64(True):
    larger, smaller = (np.asarray(resized_kernel(jnp.asarray(kernel), size)) for size in (7, 3))
    assert (resized_kernel(jnp.asarray(kernel), 4) == kernel).all()
  rows = resize_matrix(4, 7)
  enlarged = np.einsum("iy,jx,yxc->ijc", rows, rows, patch)
  np.testing.assert_allclose(np.einsum("ijc,ijcd->d", enlarged, larger),
                             np.einsum("yxc,yxcd->d", patch, kernel), atol=1e-9)  # fmt: skip
  both = np.kron(resize_matrix(4, 3), resize_matrix(4, 3))  # [9, 16]: the same of whole patches
  expected = np.linalg.pinv(both.T) @ kernel.reshape(16, -1)
  np.testing.assert_allclose(smaller.reshape(9, -1), expected, atol=1e-9)


def test_patches_are_resized_linearly():
  np.testing.assert_allclose(resize_matrix(2, 4), [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
  np.testing.assert_allclose(resize_matrix(3, 1), [[0, 1, 0]])
  np.testing.assert_allclose(resize_matrix(1, 2), [[1], [1]])
  position = jnp.asarray(np.random.default_rng(0).standard_normal((1, 10, 2)), jnp.float32)
  assert resized_positions(position, 3, 3).tolist() == position.tolist()
  assert (resized_positions(position, 6, 2)[:, 0] == position[:, 0]).all()


@pytest.fixture(scope="module")
def tower():
  """A tower and its variables, and one of each size alone."""
  flexible = build_encoder(SMALL | {"patches": (2, 6), "evaluation_patch": 6})
  variables = jax.jit(lambda key: flexible.init(key, IMAGES, train=False))(jax.random.key(0))
  alone = {}
  for patch in (2, 6):
    plain = build_encoder(SMALL | {"patch": patch})
    params = of_patch(variables["params"], patch, (12, 12))
    alone[patch] = jax.jit(lambda params, plain=plain: plain.apply({"params": params}, IMAGES, train=False))(params)
  return flexible, variables, alone


def test_parameters_are_of_one_size_and_evaluation_has_its_own(tower):
  flexible, variables, alone = tower
  params = variables["params"]
  assert params["patch_embed"]["kernel"].shape == (4, 4, 3, 8) and params["pos_embed"].shape == (1, 9, 8)
  out = jax.jit(lambda: flexible.apply(variables, IMAGES, train=False))()
  np.testing.assert_allclose(out.pooled, alone[6].pooled, atol=1e-6)
  assert out.grid == (2, 2) and out.mask is None


def test_each_step_has_one_of_the_sizes_for_all_examples(tower):
  """And the same whatever the order of examples; its gradient reaches what is kept."""
  flexible, variables, alone = tower

  @jax.jit
  def step(key, images, seeds):
    def loss(variables):
      with per_example(seeds):
        out = flexible.apply(variables, images, train=True, rngs={"dropout": key})
      return (out.pooled**2).sum(), out

    gradient, out = jax.grad(loss, has_aux=True)(variables)
    return out, gradient["params"]["patch_embed"]["kernel"]

  drawn, seeds = set(), np.arange(2, dtype=np.uint32)
  for number in range(12):
    out, gradient = step(jax.random.key(number), IMAGES, seeds)
    patch = next(patch for patch in (2, 6) if np.allclose(out.pooled, alone[patch].pooled, atol=1e-5))
    count = (12 // patch) ** 2
    assert out.tokens.shape == (2, 36, 8) and np.asarray(out.mask).sum(1).tolist() == [count] * 2
    np.testing.assert_allclose(out.tokens[:, :count], alone[patch].tokens, atol=1e-5)
    turned, _ = step(jax.random.key(number), IMAGES[::-1], seeds[::-1])
    np.testing.assert_allclose(turned.pooled[::-1], out.pooled, atol=1e-5)
    assert np.abs(gradient).sum() > 0
    drawn.add(patch)
  assert drawn == {2, 6} and step._cache_size() == 1  # all sizes are one program


@pytest.mark.parametrize("options, message", [
  ({"patches": (2, 6), "evaluation_patch": 4}, r"evaluation_patch=4 is not in patches=\(2, 6\); the nearest is 2"),
  ({"patches": (), "evaluation_patch": 4}, r"evaluation_patch=4 is not in patches=\(\); give patches too"),
  ({"patches": (2, 2)}, r"patches=\(2, 2\) is no list of different sizes in pixels, such as \(8, 16, 32\)"),
  ({"patches": (2, 5)}, r"images of 12x12 do not split into patches of 5 px; leave 5 out, or set cut_edges=True"),
], ids=str)  # fmt: skip
def test_what_does_not_fit_is_said(options, message):
  with pytest.raises(UserError, match=message) as error:
    module = build_encoder(SMALL | options)
    jax.eval_shape(lambda: module.init(jax.random.key(0), IMAGES, train=False))
  assert "\n" not in str(error.value)
