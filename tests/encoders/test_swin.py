"""The Swin tower, of which tests/interop/test_hugging_face_clap.py compares the numbers: small maps, masks of sounds,
gradients, training, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.attention import attend
from mmcontrast.encoders.folded_spectrogram import folded, unfolded
from mmcontrast.encoders.lowering import lowered_for
from mmcontrast.encoders.swin_blocks import WindowBlock, distances, same_region
from mmcontrast.errors import UserError

SOUNDS = {"name": "swin", "stages": (1, 2), "width": 8, "heads": (2, 4), "patch": 2, "window": 4, "fold": 32}
RANDOM = np.random.default_rng(0)
SPECTROGRAMS = RANDOM.standard_normal((4, 50, 16)).astype(np.float32)
MASK = np.arange(50) < np.array([50, 25, 1, 0])[:, None]


def random_variables(module, x):
  """Those of a module, none of which is 0 or 1."""
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
  random = np.random.default_rng(1)
  return jax.tree.map(lambda leaf: (0.5 + 0.3 * random.standard_normal(leaf.shape)).astype(np.float32), shapes)


def test_padded_frames_are_zeros_that_are_not_pooled_and_training_moves_statistics_of_real_ones():
  module = build_encoder(SOUNDS | {"drop_path": 0.2, "dropout": 0.1})
  variables = random_variables(module, SPECTROGRAMS)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def run(params, x, mask):
    made, state = module.apply(
      {**variables, "params": params}, x, mask, train=True, rngs={"dropout": jax.random.key(2)}, mutable="batch_stats"
    )
    return jnp.sin(made.pooled).sum(), (made, state["batch_stats"])

  (_, (made, moved)), (weights, inputs) = run(variables["params"], SPECTROGRAMS, MASK)
  (_, (again, _)), _ = run(variables["params"], np.where(MASK[..., None], SPECTROGRAMS, 1e6), MASK)
  np.testing.assert_array_equal(made.pooled, again.pooled)
  # 2 strips of 8 places, 4 filters high: 16 moments, of 50 frames.
  assert made.grid == (16, 4) and made.tokens.shape == (4, 64, 16)
  assert np.asarray(made.mask.sum(1)).tolist() == [64, 32, 4, 0]
  for row, count in enumerate((64, 32, 4)):
    np.testing.assert_allclose(made.pooled[row], made.tokens[row, :count].mean(0), atol=1e-5)
  assert not np.any(made.pooled[3]) and not np.asarray(inputs)[~MASK].any()
  flat = traverse_util.flatten_dict(weights, sep="/")
  assert all(np.isfinite(leaf).all() for leaf in flat.values())
  assert not [name for name, leaf in flat.items() if not np.any(leaf)]
  assert flat["stages_1/blocks_1/position_bias"].shape == (49, 4)

  before, real = variables["batch_stats"]["input_norm"]["mean"], SPECTROGRAMS[MASK]
  np.testing.assert_allclose(moved["input_norm"]["mean"], 0.9 * before + 0.1 * real.mean(0), atol=1e-5)


def test_a_spectrogram_is_folded_in_strips_and_back():
  x = SPECTROGRAMS[:, :32]
  square = folded(x, 32)[..., 0]  # two strips of 32 frames, stretched from 32 to 64
  assert square.shape == (4, 32, 32)
  np.testing.assert_allclose(square[:, :16, 0], x[:, 0], atol=1e-6)
  np.testing.assert_allclose(square[:, 16:, -1], x[:, -1], atol=1e-5)
  whole = np.asarray(folded(SPECTROGRAMS[:, :16, :4], 8))  # nothing is stretched
  np.testing.assert_array_equal(whole[:, 4:, 3, 0], SPECTROGRAMS[:, 11, :4])
  np.testing.assert_array_equal(unfolded(whole, 2)[..., 0], SPECTROGRAMS[:, :16, :4])


def test_a_map_no_larger_than_the_window_is_one_window():
  """As with a smaller window, whose table is the middle of the larger one's."""
  x = RANDOM.standard_normal((2, 3, 3, 8)).astype(np.float32)
  options = dict(activation="gelu", qkv_bias=True, dropout=0.0, drop_path=0.0, norm_epsilon=1e-5, dtype=None)
  large, small = (WindowBlock(2, 16, window, shifted=window == 5, **options) for window in (5, 3))
  params = random_variables(large, x)["params"]
  table = RANDOM.standard_normal((9, 9, 2)).astype(np.float32)
  run = lambda block, table: block.apply({"params": {**params, "position_bias": table.reshape(-1, 2)}}, x, train=False)  # noqa: E731
  np.testing.assert_allclose(
    jax.jit(lambda: run(large, table))(), jax.jit(lambda: run(small, table[2:7, 2:7]))(), atol=1e-5
  )


def test_distances_and_regions():
  """In a window of two by two cells; of a map of 4 x 4 in windows of 2, rolled by 1."""
  assert distances(2, 2).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
  seen = same_region(4, 4, 2, 1)
  assert seen.shape == (4, 4, 4) and seen[0].all()
  assert seen[1].tolist() == [[i % 2 == j % 2 for j in range(4)] for i in range(4)]  # its columns were at two ends
  np.testing.assert_array_equal(seen[3], np.eye(4, dtype=bool))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_attention_adds_a_bias_to_its_scores(platform):
  q, k, v = RANDOM.standard_normal((3, 2, 4, 2, 8)).astype(np.float32)
  bias, mask = RANDOM.standard_normal((2, 4, 4)).astype(np.float32), RANDOM.random((2, 4, 4)) < 0.7
  mask |= np.eye(4, dtype=bool)
  scores = np.where(mask[:, None], np.einsum("blhd,bshd->bhls", q, k) / 8**0.5 + bias, -np.inf)
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  expected = np.einsum("bhls,bshd->blhd", weights / weights.sum(-1, keepdims=True), v).reshape(2, 4, 16)
  with lowered_for(platform):
    np.testing.assert_allclose(attend(q, k, v, mask, False, bias=bias), expected, atol=1e-5)


@pytest.mark.parametrize("options, shape, message", [
  ({"heads": (2,)}, None, r"stages=\(1, 2\), heads=\(2,\): give the blocks, 1 or more, and the heads of each stage"),
  ({"heads": (2, 3)}, None, "width 16 does not split into 3 heads"),
  ({"window": 1}, None, "window=1: attention within windows of one cell; give 2 or more"),
  ({"stride": 3}, None, "stride=3 leaves pixels out between patches of 2"),
  ({"fold": 0}, (1, 50, 16), "fold=0 is a tower of images, and these are spectrograms; set fold"),
  ({}, (1, 32, 32, 3), "fold=32 is a tower of spectrograms, and these are images; leave it out"),
  ({"fold": 0}, (1, 33, 32, 3), "images of 33x32 do not split into patches of 2 px"),
  ({}, (1, 50, 40), r"fold=32: spectrograms of 40 filters .* set data\.audio\.log_mel\.mels to 32"),
  ({}, (1, 65, 16), r"fold=32: spectrograms of 65 frames do not fit 2 strips of 32; set fold to 64"),
  ({}, (1, 50, 2), "a last map of 8 rows does not split into the 16 strips"),
], ids=str)  # fmt: skip
def test_what_does_not_go_is_refused(options, shape, message):
  with pytest.raises(UserError, match=message) as error:
    module = build_encoder(SOUNDS | options)
    jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape), train=False))
  assert "\n" not in str(error.value)
