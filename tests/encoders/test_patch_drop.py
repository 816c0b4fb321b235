"""Random patches left out of a step: how many, whose, and none in evaluation (FLIP)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.dropout import PatchDrop, per_example
from mmcontrast.errors import UserError

TOKENS = jnp.broadcast_to(jnp.arange(1.0, 11)[None, :, None], (64, 10, 3))  # a token is its place
SEEDS = np.arange(100, 164, dtype=np.uint32)


def kept(rate, seeds=SEEDS, key=0, tokens=TOKENS):
  """[B, kept] places."""
  with per_example(seeds):
    out = PatchDrop(rate).apply({}, tokens, train=True, rngs={"dropout": jax.random.key(key)})
  assert (out == out[..., :1]).all()
  return np.asarray(out[..., 0]) - 1


@pytest.mark.parametrize("rate, count", [(0.0, 10), (0.25, 7), (0.5, 5), (0.75, 2), (0.9, 1)])
@pytest.mark.parametrize("seeds", [SEEDS, None])
def test_it_keeps_so_many_in_their_order_each_at_most_once(rate, count, seeds):
  places = kept(rate, seeds)
  assert places.shape == (64, count) and (np.diff(places, axis=1) > 0).all()


def test_every_patch_is_kept_equally_often_and_independently():
  tokens = jnp.tile(TOKENS, (32, 1, 1))
  counts = np.bincount(kept(0.5, np.arange(2048, dtype=np.uint32), tokens=tokens).astype(int).ravel(), minlength=10)
  assert np.abs(counts / 2048 - 0.5).max() < 0.05  # four standard deviations
  assert len({tuple(row) for row in kept(0.5)}) > 50  # of 252 choices


def test_what_is_kept_belongs_to_the_seed_and_the_key():
  whole = kept(0.5)
  np.testing.assert_array_equal(kept(0.5, SEEDS[::-1]), whole[::-1])
  np.testing.assert_array_equal(kept(0.5, SEEDS[:8], tokens=TOKENS[:8]), whole[:8])
  assert (kept(0.5, key=1) != whole).any()


def test_a_tower_drops_in_training_only_and_its_class_token_never():
  tower = build_encoder(dict(name="vit", patch=4, width=16, depth=1, heads=2, pool="cls", patch_drop=0.75))
  images = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))
  variables = tower.init(jax.random.key(1), images, train=False)
  plain = build_encoder(dict(name="vit", patch=4, width=16, depth=1, heads=2, pool="cls"))
  trained = tower.apply(variables, images, train=True, rngs={"dropout": jax.random.key(2)})
  assert trained.tokens.shape == (3, 4, 16) and trained.pooled.shape == (3, 16)
  evaluated, expected = tower.apply(variables, images, train=False), plain.apply(variables, images, train=True)
  np.testing.assert_array_equal(evaluated.pooled, expected.pooled)
  np.testing.assert_array_equal(evaluated.tokens, expected.tokens)


def test_positions_are_added_before_patches_are_dropped():
  """Equal patches: what is left of them tells where they were."""
  tower = build_encoder(dict(name="vit", patch=4, width=16, depth=0, heads=2, patch_drop=0.5))
  images = jnp.ones((2, 16, 16, 3))
  variables = tower.init(jax.random.key(1), images, train=False)
  whole = tower.apply(variables, images, train=False).tokens
  with per_example(SEEDS[:2]):
    left = tower.apply(variables, images, train=True, rngs={"dropout": jax.random.key(0)}).tokens
  distances = np.abs(np.asarray(left)[:, :, None] - np.asarray(whole)[:, None]).max(-1)
  places = distances.argmin(-1)
  assert (distances.min(-1) < 1e-6).all() and (np.diff(places, axis=1) > 0).all() and (places[0] != places[1]).any()


@pytest.mark.parametrize("rate", [-0.1, 0.95, 1.0])
def test_a_share_that_leaves_nothing(rate):
  with pytest.raises(UserError, match=r"patch_drop=\S+: keeps 1 to 4 of 4 patches.* at most 0\.75"):
    PatchDrop(rate).init(jax.random.key(0), TOKENS[:, :4], train=False)
