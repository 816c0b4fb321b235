"""Rules of names: every array of both sides accounted for, shapes, and the inverse of every layout."""

import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.interop import naming
from mmcontrast.interop.naming import Rule, to_ours, to_theirs, under

RULES = under(
  [
    Rule("conv1.weight", "patch_embed/kernel", naming.CONV),
    Rule("class_embedding", "cls_token", naming.LEADING2),
    Rule("positional_embedding", "pos_embed", naming.LEADING),
    Rule("blocks.{i}.in_proj_weight", "blocks_{i}/attn/qkv/kernel", naming.STACKED_LINEAR),
    Rule(("h.{i}.q.bias", "h.{i}.k.bias", "h.{i}.v.bias"), "blocks_{i}/attn/qkv/bias", naming.STACKED),
    Rule("blocks.{i}.fc.weight", "blocks_{i}/mlp/fc1/kernel", naming.LINEAR),
    Rule("pool.in_proj_weight", ("attn_pool/q/kernel", "attn_pool/kv/kernel"), naming.STACKED_LINEAR),
    Rule("pool.in_proj_bias", ("attn_pool/q/bias", "attn_pool/kv/bias"), naming.STACKED),
    Rule("bn.running_mean", "batch_stats/bn/mean"),
  ],
  "visual.",
  "towers/image",
)
SHAPES = {
  "patch_embed/kernel": (2, 2, 3, 4),
  "cls_token": (1, 1, 4),
  "pos_embed": (1, 5, 4),
  **{f"blocks_{i}/attn/qkv/kernel": (4, 12) for i in range(12)},
  **{f"blocks_{i}/attn/qkv/bias": (12,) for i in range(12)},
  **{f"blocks_{i}/mlp/fc1/kernel": (4, 8) for i in range(12)},
  "attn_pool/q/kernel": (4, 4),
  "attn_pool/kv/kernel": (4, 8),
  "attn_pool/q/bias": (4,),
  "attn_pool/kv/bias": (8,),
}
WANTED = {f"params/towers/image/{name}": shape for name, shape in SHAPES.items()}
WANTED["batch_stats/towers/image/bn/mean"] = (4,)


@pytest.fixture
def theirs():
  """A file of the made-up format, of distinct numbers."""
  draw = np.random.default_rng(0)
  return to_theirs(RULES, {path: draw.normal(size=shape).astype(np.float32) for path, shape in WANTED.items()}, "x")


def test_their_layout_is_what_the_names_say(theirs):
  ours = to_ours(RULES, theirs, WANTED, "x")
  assert {path: array.shape for path, array in ours.items()} == WANTED
  image = {path.removeprefix("params/towers/image/"): array for path, array in ours.items()}
  assert theirs["visual.conv1.weight"].shape == (4, 3, 2, 2)
  assert theirs["visual.conv1.weight"][3, 2, 0, 1] == image["patch_embed/kernel"][0, 1, 2, 3]
  assert theirs["visual.blocks.11.fc.weight"].shape == (8, 4)
  assert np.array_equal(theirs["visual.h.10.k.bias"], image["blocks_10/attn/qkv/bias"][4:8])
  x = np.ones(4, np.float32)
  q, k, v = np.split(theirs["visual.pool.in_proj_weight"] @ x, 3)
  np.testing.assert_allclose(x @ image["attn_pool/q/kernel"], q, rtol=1e-6)
  np.testing.assert_allclose(x @ image["attn_pool/kv/kernel"], np.concatenate([k, v]), rtol=1e-6)
  assert np.array_equal(theirs["visual.positional_embedding"], image["pos_embed"][0])
  assert np.array_equal(theirs["visual.class_embedding"], image["cls_token"][0, 0])


def test_in_and_out_is_bit_equal(theirs):
  again = to_theirs(RULES, to_ours(RULES, theirs, WANTED, "x"), "x")
  assert again.keys() == theirs.keys()
  for name, array in theirs.items():
    assert again[name].tobytes() == array.tobytes() and again[name].flags.c_contiguous, name


def test_an_array_of_theirs_that_nothing_takes_is_an_error_unless_it_is_named(theirs):
  theirs["text_decoder.fc.weight"] = np.zeros(3)
  with pytest.raises(UserError, match=r"file\.x: 1 of \d+ arrays are not used, the first is 'text_decoder\.fc"):
    to_ours(RULES, theirs, WANTED, "file.x")
  assert to_ours(RULES, theirs, WANTED, "file.x", ignored=[r"text_decoder\..*"]).keys() == WANTED.keys()


def test_a_misnamed_array_is_named_with_the_one_that_is_missing(theirs):
  theirs["visual.blocks.7.fc.wait"] = theirs.pop("visual.blocks.7.fc.weight")
  with pytest.raises(UserError, match=r"'visual\.blocks\.7\.fc\.wait'; did you mean 'visual\.blocks\.7\.fc\.weight'"):
    to_ours(RULES, theirs, WANTED, "x")


def test_a_missing_array_is_named_with_what_it_is_for(theirs):
  del theirs["visual.h.3.v.bias"]
  with pytest.raises(UserError, match=r"no array 'visual\.h\.3\.v\.bias', which 'towers/image/blocks_3/attn/qkv/bias'"):
    to_ours(RULES, theirs, WANTED, "x")


@pytest.mark.parametrize(
  "name, shape",
  [("visual.blocks.2.fc.weight", (8, 5)), ("visual.conv1.weight", (4, 3)), ("visual.pool.in_proj_weight", (15, 4))],
)
def test_another_shape_is_an_error(theirs, name, shape):
  theirs[name] = np.zeros(shape, np.float32)
  with pytest.raises(UserError, match=rf"'{name}' has the shape .*another architecture"):
    to_ours(RULES, theirs, WANTED, "x")


def test_what_the_format_cannot_name_is_an_error(theirs):
  extra = {**WANTED, "params/towers/image/reg_token": (1, 4, 4)}
  with pytest.raises(UserError, match="x: the format has no name for 'towers/image/reg_token'"):
    to_ours(RULES, theirs, extra, "x")
  with pytest.raises(UserError, match="out: the format has no name for 'towers/image/reg_token'"):
    to_theirs(RULES, {"params/towers/image/reg_token": np.zeros((1, 4, 4))}, "out")
