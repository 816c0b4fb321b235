"""What each layer of a tower makes: all of them, in order, as one vector; of loops over blocks too; padding is none."""

import importlib
import pkgutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_inference

from mmcontrast import encoders
from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.encoded import Encoded
from mmcontrast.errors import UserError
from mmcontrast.inference.layers import check_finite, layer_rows
from mmcontrast.models.layer_outputs import Made, check_pool, kept_layers, vectors_of

SMALL = dict(width=8, depth=2, heads=2)
IMAGE, VIDEO, SOUND = (2, 16, 16, 3), (2, 2, 16, 16, 3), (2, 32, 16)
TOWERS = {  # -> options, shape of what goes in, the names of its layers
  "vit": (SMALL | dict(patch=8, pool="cls", registers=1), IMAGE, ("blocks_0", "blocks_1")),
  "resnet18": (dict(stages=(1, 2), width=8, stem="patch4"), IMAGE, ("layer1_0", "layer2_0", "layer2_1")),
  "convnext_tiny": (
    dict(stages=(1, 2), width=8),
    IMAGE,
    ("stages_0/blocks_0", "stages_1/blocks_0", "stages_1/blocks_1"),
  ),
  "text_transformer": (SMALL | dict(vocab_size=9, max_length=4), (2, 4), ("blocks_0", "blocks_1")),
  "modern_bert": (SMALL | dict(vocab_size=9), (2, 4), ("blocks_0", "blocks_1")),
  "audio_convnet": (dict(stages=2, width=8), SOUND, ("stages_0", "stages_1")),
  "video_vit": (SMALL | dict(patch=8, temporal="transformer"), VIDEO, ("blocks_0", "blocks_1", "mit/blocks_0")),
  "graph_transformer": (SMALL, (2, 4, 3), ("blocks_0", "blocks_1")),
  "gcn": (dict(width=8, depth=2), (2, 4, 3), ("layers_0", "layers_1")),
}


@pytest.mark.parametrize("name", TOWERS)
def test_all_layers_by_name(name):
  """Traced alone."""
  options, shape, names = TOWERS[name]
  tower = build_encoder({"name": name, **options})
  values = jnp.zeros(shape, jnp.int32 if "vocab_size" in options else jnp.float32)

  def made(key):
    with kept_layers() as layers:
      encoded = tower.apply(tower.init(key, values, train=False), values, train=False)
    return vectors_of(layers, encoded)

  found = jax.eval_shape(made, jax.random.key(0))
  assert set(found) == {*names, "pooled"}
  assert all(one.shape[0] == 2 and one.ndim == 2 and one.dtype == jnp.float32 for one in found.values())


def test_every_block_of_an_encoder_is_a_layer():
  modules = [
    importlib.import_module(f"mmcontrast.encoders.{one.name}") for one in pkgutil.iter_modules(encoders.__path__)
  ]
  classes = {of for module in modules for of in vars(module).values() if isinstance(of, type)}
  blocks = {of for of in classes if issubclass(of, nn.Module) and of.__name__.endswith("Block")}
  assert len(blocks) >= 9 and not {of for of in blocks if not getattr(of, "IS_LAYER", False)}


def test_the_last_layer_is_what_the_tower_pools():
  """Of a run: a norm of the mean of the last block's positions; scanned and one by one the same."""
  model = tiny_inference(towers={"image": dict(depth=2, norm_after_pool=True), "text": dict(depth=2)})
  images = np.random.default_rng(0).integers(0, 255, (7, 16, 16, 3), np.uint8)
  found = layer_rows(model, "image", images)
  assert list(found) == ["blocks_0", "blocks_1", "pooled"]
  norm = model.variables["params"]["towers"]["image"]["fc_norm"]
  last = found["blocks_1"]
  expected = (last - last.mean(1, keepdims=True)) / np.sqrt(last.var(1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(found["pooled"], expected * norm["scale"] + norm["bias"], rtol=1e-4, atol=1e-5)

  scanned = tiny_inference(towers={"image": dict(depth=2, norm_after_pool=True, scan=True, remat="full")})
  blocks = model.variables["params"]["towers"]["image"]
  stacked = jax.tree.map(lambda *of: jnp.stack(of), blocks["blocks_0"], blocks["blocks_1"])
  scanned.variables["params"]["towers"]["image"] = {
    **{key: of for key, of in blocks.items() if not key.startswith("blocks_")}, "blocks": stacked
  }  # fmt: skip
  again = layer_rows(scanned, "image", images)
  assert list(again) == list(found)
  for name, rows in found.items():
    np.testing.assert_allclose(again[name], rows, rtol=1e-5, atol=1e-6)


def test_positions_that_are_not_real_do_not_count():
  draw = np.random.default_rng(0)
  x, mask = draw.normal(size=(2, 3, 4)).astype(np.float32), np.array([[True, True, False], [True, False, False]])
  pooled = jnp.zeros((2, 5))
  by_hand = np.stack([x[0, :2].mean(0), x[1, 0]])
  of_tokens = vectors_of({"a": Made(jnp.asarray(x), None)}, Encoded(pooled, mask=jnp.asarray(mask)))
  np.testing.assert_allclose(of_tokens["a"], by_hand, rtol=1e-6)
  told = vectors_of({"a": Made(jnp.asarray(x), jnp.asarray(mask))}, Encoded(pooled))
  np.testing.assert_allclose(told["a"], by_hand, rtol=1e-6)
  maps = Made(jnp.asarray(x)[:, :, None], jnp.asarray(mask)[:, :, None, None])
  np.testing.assert_allclose(vectors_of({"a": maps}, Encoded(pooled))["a"], by_hand, rtol=1e-6)
  frames = vectors_of({"a": Made(jnp.asarray(x).reshape(4, 3, 2), None)}, Encoded(jnp.zeros((2, 5))))
  np.testing.assert_allclose(frames["a"], x.reshape(2, 6, 2).mean(1), rtol=1e-6)  # frames of clips stand together
  first = vectors_of({"a": Made(jnp.asarray(x), None)}, Encoded(pooled), "first")
  np.testing.assert_array_equal(first["a"], x[:, 0])


@pytest.mark.parametrize(
  ("tower", "pool", "message"),
  [
    ("img", "mean", "layers: no such choice 'img'; did you mean 'image'"),
    ("image", "men", "layers: pool: no such choice 'men'; did you mean 'mean'"),
    ("image", "first", "pool 'first' is of towers with a learned token in front, and 'image' has pool='gap'"),
  ],
)
def test_wrong_towers_and_pools(tower, pool, message):
  with pytest.raises(UserError, match=message):
    layer_rows(tiny_inference(), tower, np.zeros((2, 16, 16, 3), np.uint8), pool)


def test_rows_that_are_not_finite_name_the_layer():
  rows = {"blocks_0": np.ones((2, 3)), "blocks_1": np.array([[1, np.inf, np.nan], [1, 2, 3]])}
  with pytest.raises(UserError, match=r"here: layer blocks_1 of tower 'image' is NaN or infinite for 1 of 2 examples"):
    check_finite(rows, "image", "here")
  check_pool(build_encoder(dict(name="vit", pool="cls", **SMALL)), "image", "first", "")
