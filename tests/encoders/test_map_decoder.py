"""The decoder of one map from the seen patches of all, against MultiMAE's; and the tower that sees them."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from mmcontrast.encoders import Encoded, map_decoder
from mmcontrast.encoders.map_decoder import MapDecoder
from mmcontrast.encoders.map_vit import MapViT
from mmcontrast.errors import UserError

CASE = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "addition.json").read_text())["multimae_decoder"]
NAMES = {
  "query_norm": "norm_query", "context_norm": "norm_context", "out_norm": "norm_mlp", "proj_context": "embed",
  "decoder.q": "cross_attn/q", "decoder.kv": "cross_attn/kv", "decoder.proj": "cross_attn/proj",
  "mlp.fc1": "mlp/fc1", "mlp.fc2": "mlp/fc2", "decoder_transformer.0": "blocks_0",
}  # fmt: skip


def made_up(shape, shift):
  return np.sin(0.7 * (np.arange(np.prod(shape)) + 1) + shift).reshape(shape)


def of_case():
  """(the arrays of the case by torch's names, those of the decoder as the module has them)."""
  given, flat = {}, {}
  for number, (name, shape) in enumerate(CASE["inputs"]["parameters"]):
    x = made_up(shape, 0.2 + number)
    is_norm = "norm" in name and name.endswith("weight")
    given[name] = x / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * x + is_norm
  for name, x in given.items():
    for theirs, ours in NAMES.items():
      if name.startswith(f"{theirs}."):
        path = f"{ours}{name.removeprefix(theirs).replace('.', '/')}"
        kind = "bias" if path.endswith("bias") else "kernel" if x.ndim == 2 else "scale"
        flat[(*path.split("/")[:-1], kind)] = x.T
  flat[("mask_token",)] = given["mask_token"][0, 0]
  flat[("part_embed",)] = np.concatenate([given[f"task_embeddings.{name}"][0] for name in ("rgb", "depth")])
  return given, unflatten_dict(flat)


def test_it_is_multimaes(monkeypatch):
  position = np.asarray(CASE["inputs"]["pos_emb"]).reshape(8, 4).T
  monkeypatch.setattr(map_decoder, "sincos2d", lambda *arguments: position)  # theirs has its axes exchanged
  given, parameters = of_case()
  with jax.enable_x64(True):
    seen = Encoded(
      tokens=jnp.asarray(made_up((2, 4, 6), 0.9)), places=jnp.asarray(CASE["inputs"]["ids_keep"]), whole=(2, 2, 2)
    )
    found = {}
    for part in range(2):
      decoder = MapDecoder(part=part, width=8, depth=1, heads=2)
      shapes = jax.eval_shape(lambda decoder=decoder: decoder.init(jax.random.key(0), seen, train=False))["params"]
      assert jax.tree.map(np.shape, parameters) == jax.tree.map(np.shape, shapes)
      made = jax.jit(lambda seen, decoder=decoder: decoder.apply({"params": parameters}, seen, train=True))(seen)
      assert made.grid == (2, 2) and made.tokens.shape == (2, 4, 8)
      pixels = made.tokens @ given["out_proj.weight"].T + given["out_proj.bias"]  # (channel, y, x) of each patch
      found[part] = pixels.reshape(2, 2, 2, 2, 2, 2).transpose(0, 3, 1, 4, 2, 5).reshape(2, 2, 4, 4)
  np.testing.assert_allclose(found[0], CASE["expected"]["out"], atol=1e-6)
  assert np.abs(found[1] - found[0]).max() > 0.1


def test_what_is_not_seen_has_no_say():
  draw = np.random.default_rng(0)
  images = draw.normal(size=(2, 8, 8, 5)).astype(np.float32)
  mask = np.zeros((2, 12), bool)
  mask[0, [0, 5, 11]] = mask[1, [1, 2, 3]] = True
  tower = MapViT(width=16, depth=1, heads=2, patch=4, seen=0.25)
  variables = jax.jit(lambda x: tower.init(jax.random.key(0), x, train=False))(images[..., :3])
  assert {"patch_embed", "patch_embed_1", "patch_embed_2", "global_token"} <= set(variables["params"])
  run = jax.jit(lambda x: tower.apply(variables, x, mask, train=True))
  made = run(images)
  np.testing.assert_array_equal(made.places, [[0, 5, 11], [1, 2, 3]])
  assert made.tokens.shape == (2, 4, 16) and made.whole == (3, 2, 2) and made.grid is None
  other = images.copy()
  other[1, ..., 3:] = 9.0  # of the second only colours are seen
  other[0, 4:, :, :4] = 9.0  # of the first: colour 0, silhouette 1, edges 3
  np.testing.assert_array_equal(run(other).tokens, made.tokens)
  whole = jax.jit(lambda x: tower.apply(variables, x, train=False))(images[..., :3])
  assert whole.grid == (2, 2) and whole.tokens.shape == (2, 4, 16)
  decoder = MapDecoder(part=2, width=16, depth=1, heads=2)
  of_decoder = jax.jit(lambda x: decoder.init(jax.random.key(1), x, train=False))(whole)
  paint = jax.jit(lambda x: decoder.apply(of_decoder, x, train=True).tokens)
  order = np.array([2, 0, 1])  # the order in which patches come does not matter, only their places
  tokens = jnp.concatenate([made.tokens[:, order], made.tokens[:, 3:]], 1)
  turned = made.replace(tokens=tokens, places=made.places[:, order])
  np.testing.assert_allclose(paint(turned), paint(made), atol=1e-5)


def test_what_it_cannot_read():
  with pytest.raises(UserError, match=r"reads patches of several maps, and these tokens are of one; .*'map_vit'"):
    MapDecoder(width=8, depth=1, heads=2).init(
      jax.random.key(0), Encoded(tokens=np.zeros((1, 4, 8), np.float32), grid=(2, 2)), train=False
    )
  with pytest.raises(UserError, match=r"views of colours and 1 maps do not go with maps=2"):
    MapViT(width=8, depth=1, heads=2, patch=4).init(jax.random.key(0), np.zeros((1, 8, 8, 4), np.float32), train=False)
