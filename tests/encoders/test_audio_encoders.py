"""Towers for spectrograms: shapes, masks that are as if what they hide were not there, gradients, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError

TRANSFORMER = {"name": "audio_transformer", "width": 16, "depth": 2, "heads": 2, "patch": (8, 8), "stride": (5, 6)}
CONVNET = {"name": "audio_convnet", "width": 4, "stages": 3}
TOWERS = {
  "transformer": TRANSFORMER,
  "transformer_cls": TRANSFORMER | {"pool": "cls", "positions": "learned", "scan": True},
  "transformer_apart": TRANSFORMER | {"patch": [4, 16], "stride": [4, 16], "positions": "none"},
  "speech": {"name": "speech_transformer", "width": 16, "depth": 2, "heads": 2},
  "convnet": CONVNET,
  "convnet_deep": CONVNET | {"stem": 1, "stages": 2},
  "convnet_patches": CONVNET | {"stem": 4, "stages": 1},
}
SPECTROGRAMS = np.random.default_rng(0).standard_normal((5, 37, 20)).astype(np.float32)
LENGTHS = np.array([37, 24, 9, 1, 0])
MASK = np.arange(37) < LENGTHS[:, None]


def built(config, spectrograms=SPECTROGRAMS):
  module = build_encoder(config)
  variables = jax.jit(lambda: module.init(jax.random.key(0), spectrograms, None, train=False))()
  # Biases too: what starts at zero would hide a leak.
  noise = jax.random.normal(jax.random.key(1), (100,))
  variables = jax.tree.map(lambda leaf: leaf + 0.3 * noise[: leaf.shape[-1]], variables)
  return variables, jax.jit(lambda *inputs: module.apply(variables, *inputs, train=False))


@pytest.mark.parametrize("config", TOWERS.values(), ids=TOWERS)
def test_padded_frames_change_nothing(config):
  _, apply = built(config)
  whole = apply(np.where(MASK[..., None], SPECTROGRAMS, 1e6), MASK)
  assert np.isfinite(whole.pooled).all() and whole.tokens.shape[:2] == whole.mask.shape
  for row, length in enumerate(LENGTHS[:-1]):
    alone = apply(SPECTROGRAMS[row : row + 1, :length], None)  # as long as it is
    assert alone.mask is None
    real = int(whole.mask[row].sum())
    assert alone.tokens.shape[1] == real and bool(whole.mask[row, :real].all())
    np.testing.assert_allclose(whole.tokens[row, :real], alone.tokens[0], rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(whole.pooled[row], alone.pooled[0], rtol=2e-4, atol=2e-4)
  assert not whole.mask[-1].any()


@pytest.mark.parametrize("config", TOWERS.values(), ids=TOWERS)
def test_what_is_real_changes_something_and_gradients_are_finite(config):
  variables, _ = built(config)
  module = build_encoder(config)

  @jax.jit
  def slopes(spectrograms):
    def total(variables, spectrograms):
      return jnp.sum(jnp.sin(module.apply(variables, spectrograms, MASK, train=False).pooled))

    return jax.grad(total, argnums=(0, 1))(variables, spectrograms)

  weights, inputs = slopes(SPECTROGRAMS)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((weights, inputs)))
  unused = {name for name, leaf in traverse_util.flatten_dict(weights["params"], sep="/").items() if not np.any(leaf)}
  assert not unused
  inputs = np.asarray(inputs)
  assert not inputs[~MASK].any() and inputs[:4, 0].any((1,)).all()
  assert (np.abs(inputs[0]).sum(1) > 0).all() and (np.abs(inputs[0]).sum(0) > 0).all()  # every frame and filter is seen


@pytest.mark.parametrize(
  "config, frames, filters, grid",
  [
    ({"name": "audio_transformer"}, 101, 64, (10, 6)),  # 16 + 9 * 10 >= 101, 16 + 5 * 10 >= 64
    ({"name": "audio_transformer", "stride": (16, 16)}, 101, 64, (7, 4)),
    ({"name": "audio_transformer"}, 5, 8, (1, 1)),
    ({"name": "audio_convnet"}, 101, 64, (7, 4)),
    ({"name": "audio_convnet", "stem": 1}, 101, 64, (13, 8)),
  ],
)
def test_grid(config, frames, filters, grid):
  module = build_encoder(config | ({"depth": 1} if "transformer" in config["name"] else {"width": 4}))
  inputs = jnp.zeros((2, frames, filters))
  encoded = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), inputs, train=False)[0])
  width = module.width * 8 if config["name"] == "audio_convnet" else module.width
  assert encoded.grid == grid and encoded.tokens.shape == (2, grid[0] * grid[1], width)
  assert encoded.pooled.shape == (2, width)


def test_patches_are_cut_where_they_should_be():
  config = TRANSFORMER | {"depth": 1, "positions": "none"}
  variables, _ = built(config)
  module = build_encoder(config)
  _, kept = module.apply(variables, SPECTROGRAMS, train=False, capture_intermediates=True)
  embedded = kept["intermediates"]["patch_embed"]["__call__"][0]
  kernel, bias = (variables["params"]["patch_embed"][name] for name in ("kernel", "bias"))
  padded = np.pad(SPECTROGRAMS, ((0, 0), (0, 10), (0, 10)))
  for i, j in ((0, 0), (2, 1), (6, 2)):
    patch = padded[:, 5 * i : 5 * i + 8, 6 * j : 6 * j + 8].reshape(5, -1)
    np.testing.assert_allclose(embedded[:, i, j], patch @ kernel + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", [TRANSFORMER, CONVNET], ids=["transformer", "convnet"])
def test_sixteen_bits(config):
  _, apply = built(config)
  _, rough = built(config | {"dtype": "bfloat16"})
  assert rough(SPECTROGRAMS, MASK).tokens.dtype == jnp.bfloat16
  np.testing.assert_allclose(rough(SPECTROGRAMS, MASK).pooled.astype(np.float32), apply(SPECTROGRAMS, MASK).pooled,
                             atol=0.2)  # fmt: skip


@pytest.mark.parametrize(
  "config, message",
  [
    (TRANSFORMER | {"patch": 16}, r"towers\.patch: 16 is not a list of 2"),
    (TRANSFORMER | {"stride": (0, 4)}, r"towers\.stride: 0 in \(0, 4\) is not a whole number of 1 or more"),
    (TRANSFORMER | {"stride": (4, 4, 4)}, r"stride"),
    (TRANSFORMER | {"stride": (4, 9)}, r"stride=\(4, 9\) leaves cells out between patches of \(8, 8\)"),
    (TRANSFORMER | {"heads": 3}, "width 16 does not split into 3 heads"),
    (CONVNET | {"stages": 0}, "stages=0: give a whole number over 0"),
    (CONVNET | {"pool": "cls"}, r"towers\.pool: no such choice 'cls'"),
  ],
)
def test_wrong_options_are_refused(config, message):
  with pytest.raises(UserError, match=message):
    build_encoder(config)


def test_learned_positions_end_with_the_length_of_training():
  _, apply = built(TOWERS["transformer_cls"])
  apply(SPECTROGRAMS[:, :20], None)
  with pytest.raises(UserError, match=r"spectrograms of 9 patches, and 7 places were learned; cut sounds"):
    apply(np.zeros((1, 48, 20), np.float32), None)
