"""Tokens of several towers as one sequence: side by side in NumPy, padding in blocks, wrong options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError

DRAW = np.random.default_rng(0)
IMAGE, SOUND = DRAW.normal(size=(3, 4, 5)).astype(np.float32), DRAW.normal(size=(3, 6, 7)).astype(np.float32)
REAL = np.arange(6) < np.array([6, 2, 4])[:, None]


def encoded(sound=SOUND):
  return Encoded(IMAGE[:, 0], IMAGE, grid=(2, 2)), Encoded(sound[:, 0], sound, REAL)


def test_side_by_side_in_numpy():
  tower = build_encoder(dict(name="joint_transformer", width=8, depth=0, heads=2))
  made, variables = tower.init_with_output(jax.random.key(0), *encoded(), train=True)
  layers = variables["params"]
  assert set(layers) == {"embed_0", "embed_1"}
  parts = [x @ layers[f"embed_{i}"]["kernel"] + layers[f"embed_{i}"]["bias"] for i, x in enumerate((IMAGE, SOUND))]
  np.testing.assert_allclose(made.tokens, np.concatenate(parts, 1), rtol=1e-4, atol=1e-5)
  mask = np.concatenate([np.ones((3, 4), bool), REAL], 1)
  np.testing.assert_array_equal(made.mask, mask)
  mean = np.sum(np.where(mask[..., None], made.tokens, 0), 1) / mask.sum(1, keepdims=True)
  np.testing.assert_allclose(made.pooled, mean, rtol=1e-4, atol=1e-5)
  assert made.grid is None


def test_what_is_padding_changes_nothing_and_tokens_attend_across():
  tower = build_encoder(dict(name="joint_transformer", width=8, depth=1, heads=2))
  variables = tower.init(jax.random.key(0), *encoded(), train=True)

  @jax.jit
  def pooled(image, sound):
    return tower.apply(variables, Encoded(None, image), Encoded(None, sound, REAL), train=True)

  made, broken = pooled(IMAGE, SOUND), pooled(IMAGE, np.where(REAL[..., None], SOUND, 9.0))
  np.testing.assert_allclose(broken.pooled, made.pooled, atol=1e-6)
  np.testing.assert_allclose(broken.tokens[:, :4], made.tokens[:, :4], atol=1e-6)
  moved = pooled(IMAGE, SOUND + np.arange(3)[:, None, None])  # the first example's sound stays
  np.testing.assert_allclose(moved.tokens[0], made.tokens[0], atol=1e-6)
  assert float(jnp.abs(moved.tokens[1:, :4] - made.tokens[1:, :4]).min(-1).max()) > 1e-4
  shape = variables["params"]["type_embed"].shape
  assert shape == (2, 8)


@pytest.mark.parametrize(("options", "message"), [
  (dict(depth=-1), "depth: -1 is not a whole number of 0 or more"), (dict(width=10, heads=4), "heads"),
  (dict(widht=8), "did you mean 'width'"),
])  # fmt: skip
def test_wrong_options_are_one_line(options, message):
  with pytest.raises(UserError, match=message):
    build_encoder(dict(name="joint_transformer", **options))
