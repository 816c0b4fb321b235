"""Options of the ViT: which parameters each has, what each does, and that loops and remat change nothing."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.attention import attend
from mmcontrast.encoders.dropout import PatchDrop, per_example
from mmcontrast.encoders.layers import layers_as, stack_layers, unstack_layers
from mmcontrast.encoders.positions import rope1d, rope2d, rotate
from mmcontrast.errors import UserError
from mmcontrast.parameter_paths import path_name

SMALL = {"name": "vit", "width": 16, "depth": 2, "heads": 2, "patch": 4}
IMAGES = np.random.default_rng(0).standard_normal((3, 8, 12, 3), np.float32)


def made(seed=0, size=(8, 12), **options):
  """A tower and random variables by path: biases, norms and factors too."""
  tower = build_encoder(SMALL | options)
  shapes = jax.eval_shape(lambda: tower.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False))
  rng = np.random.default_rng(seed)
  return tower, jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape, np.float32) * 0.5, shapes)


def flat(tree):
  return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def nested(arrays):
  tree = {}
  for path, leaf in arrays.items():
    *inner, last = path.split("/")
    functools.reduce(lambda node, key: node.setdefault(key, {}), inner, tree)[last] = leaf
  return tree


@pytest.mark.parametrize("options, added, gone", [
  ({"pool": "cls"}, {"cls_token": (1, 1, 16), "pos_embed": (1, 7, 16)}, ()),
  ({"pool": "cls", "cls_position": False, "registers": 3},
   {"cls_token": (1, 1, 16), "reg_token": (1, 3, 16), "pos_embed": (1, 6, 16)}, ()),
  ({"positions": "rope"}, {}, ("pos_embed",)),
  ({"positions": "none"}, {}, ("pos_embed",)),
  ({"pre_norm": True, "patch_bias": False}, {"norm_pre/scale": (16,), "norm_pre/bias": (16,)}, ("patch_embed/bias",)),
  ({"norm_after_pool": True}, {"fc_norm/scale": (16,), "fc_norm/bias": (16,)}, ("norm/scale", "norm/bias")),
  ({"layer_scale": 0.1}, {f"blocks_{i}/ls{j}/gamma": (16,) for i in (0, 1) for j in (1, 2)}, ()),
  ({"qk_norm": True}, {f"blocks_{i}/attn/{x}_norm/{n}": (8,) for i in (0, 1) for x in "qk" for n in ("scale", "bias")},
   ()),
  ({"qkv_bias": False}, {}, ("blocks_0/attn/qkv/bias", "blocks_1/attn/qkv/bias")),
  ({"mlp": "swiglu", "mlp_ratio": 3.0}, {f"blocks_{i}/mlp/{name}": shape for i in (0, 1) for name, shape in (
    ("fc1/kernel", (16, 96)), ("fc1/bias", (96,)), ("fc2/kernel", (48, 16)))}, ()),
], ids=str)  # fmt: skip
def test_parameters_of_each_option(options, added, gone):
  shapes = [{path: leaf.shape for path, leaf in flat(made(**x)[1]["params"]).items()} for x in ({}, options)]
  plain, found = shapes
  assert found == {path: shape for path, shape in (plain | added).items() if path not in gone}


@pytest.mark.parametrize("options", [
  {"pool": "cls"}, {"pool": "map", "registers": 1, "positions": "rope", "layer_scale": 1.0},
  {"registers": 2, "mlp": "swiglu", "qk_norm": True, "pre_norm": True, "norm_after_pool": True},
], ids=str)  # fmt: skip
def test_tokens_are_those_of_the_patches(options):
  """What each option computes is tested beside other packages, in tests/interop."""
  tower, variables = made(**options)
  out = jax.eval_shape(lambda v: tower.apply(v, IMAGES, train=False), variables)
  assert out.pooled.shape == (3, 16) and out.tokens.shape == (3, 6, 16) and out.mask is None


def test_a_norm_after_the_pool_leaves_the_tokens():
  tower, variables = made(norm_after_pool=True)
  out = tower.apply(variables, IMAGES, train=False)
  mean, norm = out.tokens.mean(1), variables["params"]["fc_norm"]
  expected = (mean - mean.mean(-1, keepdims=True)) / np.sqrt(mean.var(-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(out.pooled, expected * norm["scale"] + norm["bias"], atol=1e-5)


def test_a_loop_and_remat_change_neither_outputs_nor_gradients():
  plain, variables = made(layer_scale=0.1)

  def run(tower, params):
    total = lambda p: jnp.square(tower.apply({"params": p}, IMAGES, train=True).pooled).sum()  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(total))(params)
    return value, unstack_layers(flat(gradient))

  value, gradient = run(plain, variables["params"])
  for scan, remat in ((False, "full"), (True, "dots_saveable"), (True, "keep_products"), (False, "keep_products")):
    tower = build_encoder(SMALL | {"layer_scale": 0.1, "scan": scan, "remat": remat})
    params = nested(stack_layers(flat(variables["params"]))) if scan else variables["params"]
    shapes = jax.eval_shape(lambda tower=tower: tower.init(jax.random.key(0), IMAGES, train=False))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes["params"])
    found, gradients = run(tower, params)
    np.testing.assert_allclose(found, value, rtol=1e-5)
    assert gradients.keys() == gradient.keys()
    for path in gradient:
      largest = np.abs(gradient[path]).max()
      np.testing.assert_allclose(gradients[path], gradient[path], atol=1e-5 * largest, err_msg=path)


def test_remat_keeps_less_for_the_backward_pass():
  """Numbers kept between the passes, counted in the traced program."""

  def kept(**options):
    tower, variables = made(**options)
    passes = jax.eval_shape(lambda v: jax.vjp(lambda v: tower.apply(v, IMAGES, train=True).pooled, v)[1], variables)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(passes))

  assert kept(remat="full") < 0.5 * kept()


def test_a_loop_initialises_its_layers_differently():
  tower = build_encoder(SMALL | {"scan": True})
  kernel = tower.init(jax.random.key(0), IMAGES, train=False)["params"]["blocks"]["mlp"]["fc1"]["kernel"]
  assert kernel.shape == (2, 16, 64) and not np.allclose(kernel[0], kernel[1])
  assert kernel.std() == pytest.approx(math.sqrt(2 / (16 + 64)), rel=0.1)  # the fans are those of one layer


def test_layers_stacked_and_unstacked_are_the_same():
  arrays = flat(made(depth=3)[1])
  stacked = stack_layers(arrays)
  assert stacked["params/blocks/mlp/fc2/bias"].shape == (3, 16) and "params/pos_embed" in stacked
  assert not any("blocks_" in path for path in stacked)
  for back in (unstack_layers(stacked), layers_as(arrays, stacked), layers_as(arrays, arrays)):
    assert back.keys() == arrays.keys() and all((back[path] == arrays[path]).all() for path in arrays)
  assert layers_as(stacked, arrays).keys() == stacked.keys() == layers_as(stacked, stacked).keys()
  twelve = {f"blocks_{i}/x": np.full(1, i) for i in (10, 9, 0, 1, 2, 3, 11, 4, 5, 6, 7, 8)}
  np.testing.assert_array_equal(stack_layers(twelve)["blocks/x"][:, 0], range(12))
  shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in arrays.items()}
  assert unstack_layers(stack_layers(shapes)) == shapes


@pytest.mark.parametrize("scan", [False, True])
def test_drop_path_rises_to_the_last_block(scan):
  """Block i adds 1 to channel i of an example, or more where it is kept by chance, so that the mean stays."""
  tower, variables = made(positions="none", drop_path=0.5, depth=3, scan=scan, norm_after_pool=True)
  arrays = {path: np.zeros_like(leaf) for path, leaf in unstack_layers(flat(variables)).items()}
  for i in range(3):
    arrays[f"params/blocks_{i}/mlp/fc2/bias"] = np.eye(16, dtype=np.float32)[i]
  params = nested(stack_layers(arrays) if scan else arrays)
  images = np.zeros((400, 4, 4, 3), np.float32)
  added = tower.apply(params, images, train=True, rngs={"dropout": jax.random.key(0)}).tokens[:, 0, :3]
  for i, keep in enumerate((1.0, 0.75, 0.5)):
    assert {round(float(x), 3) for x in added[:, i]} <= {0.0, round(1 / keep, 3)}
    assert abs((added[:, i] > 0).mean() - keep) < 0.1  # four standard deviations


@pytest.mark.parametrize("scan", [False, True])
def test_which_examples_skip_a_branch_belongs_to_their_seeds(scan):
  tower, variables = made(drop_path=0.9, scan=scan)
  images, seeds = np.tile(IMAGES[:1], (16, 1, 1, 1)), np.arange(16, dtype=np.uint32)

  @jax.jit
  def pooled(seeds):
    with per_example(seeds):
      return tower.apply(variables, images, train=True, rngs={"dropout": jax.random.key(0)}).pooled

  out = np.asarray(pooled(seeds))
  np.testing.assert_allclose(pooled(seeds[::-1].copy())[::-1], out, rtol=1e-4, atol=1e-5)
  assert len(np.unique(out.round(3), axis=0)) > 1


def test_rope_knows_how_far_and_in_which_direction():
  """A product of a turned query and key depends on their distance alone."""
  rng = np.random.default_rng(0)
  q, k = (jnp.asarray(rng.standard_normal(8), jnp.float32) for _ in range(2))
  line = rope1d(6, 8)
  turned = [rotate(jnp.broadcast_to(x, (1, 6, 1, 8)), line[None])[0, :, 0] for x in (q, k)]
  products = np.asarray(turned[0] @ turned[1].T)
  for distance in range(-3, 3):
    np.testing.assert_allclose(np.diagonal(products, distance), products[3, 3 + distance], atol=1e-5)
  assert abs(products[0, 1] - products[0, 2]) > 1e-3
  assert np.abs(turned[0][0] - q).max() == 0  # the first place is not turned
  grid = rope2d(4, 5, 8).reshape(4, 5, 4)
  assert (grid[:, :, :2] == grid[:, :1, :2]).all() and (grid[:, :, 2:] == grid[:1, :, 2:]).all()
  np.testing.assert_allclose(grid, -grid[::-1, ::-1], atol=1e-6)  # from -1 to 1
  np.testing.assert_allclose(grid[0, 0], np.array([-0.75, -0.075, -0.8, -0.08]) * 2 * np.pi, atol=1e-5)


def test_patches_left_out_take_their_angles_along():
  tower, variables = made(positions="rope", pool="cls", patch_drop=0.5, depth=1)
  out = jax.eval_shape(lambda: tower.apply(variables, IMAGES, train=True, rngs={"dropout": jax.random.key(0)}))
  assert out.tokens.shape == (3, 3, 16)
  places, angles = jnp.tile(jnp.arange(6.0)[None, :, None], (3, 1, 1)), rope2d(2, 3, 8)
  kept, turned = PatchDrop(0.5).apply({}, places, angles[None], train=True, rngs={"dropout": jax.random.key(0)})
  np.testing.assert_array_equal(turned, angles[np.asarray(kept[..., 0]).astype(int)])


def test_registers_and_the_class_token_are_not_turned_nor_pooled():
  tower, variables = made(positions="rope", registers=2, depth=0)
  other = jax.tree.map(np.copy, variables)
  other["params"]["reg_token"] += 1
  one, two = (tower.apply(v, IMAGES, train=False).pooled for v in (variables, other))
  np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("positions, same", [("learned", False), ("rope", False), ("sincos2d", False), ("none", True)])
def test_positions_tell_places_apart(positions, same):
  tower, variables = made(positions=positions)
  turned = tower.apply(variables, IMAGES.reshape(3, 2, 4, 3, 4, 3)[:, ::-1].reshape(IMAGES.shape), train=False)
  pooled = tower.apply(variables, IMAGES, train=False).pooled
  assert np.allclose(turned.pooled, pooled, atol=1e-4) == same


def test_learned_positions_are_resized_at_the_call():
  tower, variables = made(size=(8, 8), pool="cls", registers=1)
  images = np.zeros((1, 16, 12, 3), np.float32)
  assert jax.eval_shape(lambda: tower.apply(variables, images, train=False)).tokens.shape == (1, 12, 16)


def test_cudnn_where_it_cannot_run_is_an_error_before_compilation():
  tower = build_encoder(SMALL | {"attention": "cudnn"}, "towers.image")
  if jax.default_backend() == "cpu":
    with pytest.raises(UserError, match="needs an NVIDIA GPU and this program is for cpu; set attention='xla'"):
      jax.eval_shape(lambda: tower.init(jax.random.key(0), IMAGES, train=False))


def test_cudnn_in_float32_is_an_error(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  q = jnp.zeros((1, 2, 1, 8))
  with pytest.raises(UserError, match="not in float32; set dtype='bfloat16'"):
    attend(q, q, q, None, False, "cudnn")


@pytest.mark.parametrize(
  "options, message",
  [
    ({"remat": "dots_savable"}, r"towers.image.remat: .*did you mean 'dots_saveable'"),
    ({"positions": "rop"}, r"towers.image.positions: .*did you mean 'rope'"),
    ({"mlp": "swiglue"}, r"towers.image.mlp: .*did you mean 'swiglu'"),
    ({"attention": "cuda"}, r"towers.image.attention: .*'cuda'"),
  ],
)
def test_wrong_options(options, message):
  with pytest.raises(UserError, match=message):
    build_encoder(SMALL | options, "towers.image")


def test_rope_needs_heads_that_split_into_two_axes():
  with pytest.raises(UserError, match="heads of a multiple of 4, not 2"):
    made(positions="rope", heads=8)


def test_pixels_after_the_last_whole_patch_are_an_error_or_not_seen():
  images = np.random.default_rng(1).standard_normal((1, 11, 14, 3)).astype(np.float32)
  with pytest.raises(UserError, match=r"images of 11x14 do not split into patches of 4 px; .* set cut_edges=True"):
    made(size=(11, 14))
  tower, variables = made(size=(11, 14), cut_edges=True, depth=0)
  whole = build_encoder(SMALL | {"depth": 0})
  out, expected = (t.apply(variables, x, train=False) for t, x in ((tower, images), (whole, images[:, :8, :12])))
  np.testing.assert_array_equal(out.tokens, expected.tokens)
