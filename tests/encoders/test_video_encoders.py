"""Video towers: the released blocks of X-CLIP and ILA by their numbers, and what averaging frames cannot tell."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcontrast.encoders import build_encoder
from mmcontrast.encoders.tubelet_vit import TubeletViT, sincos1d, tubelets_of
from mmcontrast.encoders.video_alignment import Alignment, pair_loss, point_mask
from mmcontrast.encoders.video_blocks import MessageBlock, TemporalTransformer
from mmcontrast.encoders.video_prompts import VideoPrompts
from mmcontrast.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASES = json.loads((GOLDEN / "addition.json").read_text())
MASKS = json.loads((GOLDEN / "multimodal.json").read_text())["ila_mask"]


def made(shape, start):
  return np.sin(0.7 * (np.arange(np.prod(shape)) + 1) + start).reshape(shape)


def parameters(case, start):
  """Name -> array: matrices over the root of their inputs, vectors a tenth, norms' weights round 1."""
  found = {}
  for number, (name, shape) in enumerate(CASES[case]["inputs"]["parameters"]):
    array = made(shape, start + number)
    array = array / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.1 * array
    is_norm = len(shape) == 1 and name.endswith("weight") and any(word in name for word in ("ln", "norm", "bn"))
    found[name] = array + is_norm
  return found


def applied(module, variables, *arrays):
  """Compiled as one: operation by operation takes longer."""
  return jax.jit(lambda *given: module.apply(*given, train=False))(variables, *map(jnp.asarray, arrays))


def norm(of, name):
  return {"scale": of[f"{name}.weight"], "bias": of[f"{name}.bias"]}


def dense(of, name, kind=""):
  return {
    "kernel": of[f"{name}.{kind}weight"].T,
    **({"bias": of[f"{name}.{kind}bias"]} if f"{name}.{kind}bias" in of else {}),
  }


def attention(of, name):
  return {
    "qkv": {"kernel": of[f"{name}.in_proj_weight"].T, "bias": of[f"{name}.in_proj_bias"]},
    "proj": dense(of, f"{name}.out_proj"),
  }


def block(of, at=""):
  return {
    "norm1": norm(of, f"{at}ln_1"),
    "attn": attention(of, f"{at}attn"),
    "norm2": norm(of, f"{at}ln_2"),
    "mlp": {"fc1": dense(of, f"{at}mlp.c_fc"), "fc2": dense(of, f"{at}mlp.c_proj")},
  }


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def test_xclip_block_is_the_released_one():
  of = parameters("xclip_block", 0.2)
  params = {
    **block(of),
    "message_fc": dense(of, "message_fc"),
    "message_norm": norm(of, "message_ln"),
    "message_attn": attention(of, "message_attn"),
  }
  x = made((5, 6, 8), 0.4).transpose(1, 0, 2).reshape(2, 3, 5, 8)
  out, _ = applied(MessageBlock(2, 32, dtype=jnp.float64), {"params": params}, x)
  expected = np.array(CASES["xclip_block"]["expected"]["out"])
  np.testing.assert_allclose(out.reshape(6, 5, 8).transpose(1, 0, 2), expected, atol=1e-6)


def test_xclip_temporal_transformer_is_the_released_one():
  of = parameters("xclip_mit", 0.5)
  params = {"pos_embed": of["positional_embedding"], "blocks_0": block(of, "resblocks.0.")}
  out = applied(TemporalTransformer(1, 2, dtype=jnp.float64), {"params": params}, made((2, 3, 8), 1.1))
  np.testing.assert_allclose(out.pooled, np.array(CASES["xclip_mit"]["expected"]["out"]), atol=1e-6)


def test_xclip_prompts_are_the_released_ones():
  of, at = parameters("xclip_prompt", 0.7), "decoder.0."
  layer = {
    "norm1": norm(of, f"{at}norm1"),
    "cross_attn": {
      "q": dense(of, f"{at}cross_attn.q_proj"),
      "kv": {"kernel": np.concatenate([of[f"{at}cross_attn.{name}_proj.weight"].T for name in "kv"], axis=1)},
      "proj": dense(of, f"{at}cross_attn.proj"),
    },
    "norm2": norm(of, f"{at}norm3"),
    "mlp": {"fc1": dense(of, f"{at}mlp.0"), "fc2": dense(of, f"{at}mlp.3")},
  }
  params = {"alpha": of["alpha"], "norm": norm(of, "norm"), "layers_0": layer}
  out = VideoPrompts(1, 2, dtype=jnp.float64).apply(
    {"params": params}, jnp.asarray(made((2, 4, 8), 0.2)), jnp.asarray(made((2, 5, 8), 1.7))
  )
  np.testing.assert_allclose(out, np.array(CASES["xclip_prompt"]["expected"]["out"]), atol=1e-6)


def test_ila_mask_is_the_released_one():
  points = jnp.array(MASKS["inputs"]["points"])
  np.testing.assert_allclose(point_mask(points, MASKS["inputs"]["resolution"]), MASKS["expected"]["mask"], atol=1e-6)


def test_ila_alignment_is_the_released_one():
  of, expected = parameters("ila_align", 0.1), CASES["ila_align"]["expected"]

  def conv(name):
    kernel = of[f"{name}.weight"]
    axes = (*range(2, kernel.ndim), 1, 0)
    return {"kernel": kernel.transpose(axes), "bias": of[f"{name}.bias"]}

  first, second, predict = (
    "interactive_block.0.depthwise_conv",
    "interactive_block.0.pointwise_conv",
    "prediction_block",
  )
  mix = conv("conv")
  params = {
    "interact": {
      "depth_conv": conv(f"{first}.0"),
      "depth_norm": norm(of, f"{first}.1"),
      "point_conv": conv(f"{second}.0"),
      "point_norm": norm(of, f"{second}.1"),
      "conv": conv("interactive_block.1"),
      "norm": norm(of, "interactive_block.2"),
    },
    "predict": {
      "conv1": conv(f"{predict}.0"),
      "norm1": norm(of, f"{predict}.1"),
      "conv2": conv(f"{predict}.4"),
      "norm2": norm(of, f"{predict}.5"),
      "fc1": conv(f"{predict}.10"),
      "fc2": conv(f"{predict}.12"),
    },
    "mix": {"kernel": mix["kernel"].reshape(3, 128, 128), "bias": mix["bias"]},
    "fc": dense(of, "fc"),
  }
  norms = [("interact", "depth_norm", 16), ("interact", "point_norm", 256), ("interact", "norm", 256)]
  norms += [("predict", "norm1", 128), ("predict", "norm2", 128)]
  statistics = {"interact": {}, "predict": {}}
  for of_module, name, width in norms:
    statistics[of_module][name] = {"mean": np.zeros(width), "var": np.ones(width)}
  before, after = made((2, 2, 17, 8), 0.3), made((2, 2, 17, 8), 1.9)
  frames = [jnp.asarray(x[:, :, 1:].reshape(2, 2, 4, 4, 8)) for x in (before, after)]
  out = applied(Alignment(dtype=jnp.float64), {"params": params, "batch_stats": statistics}, *frames)
  pair = np.array(expected["pair"]).transpose(1, 2, 0, 3).reshape(2, 2, 2, 8)
  np.testing.assert_allclose(out.pairs, pair, atol=1e-6)
  np.testing.assert_allclose(pair_loss(out.pairs).mean(), expected["aux_loss"], atol=1e-6)
  np.testing.assert_allclose(out.frames[0, 0].reshape(16, 8), np.array(expected["aligned_first"])[1:], atol=1e-6)
  fronts = [before[:, :1, 0], (before[:, 1:, 0] + after[:, :-1, 0]) / 2, after[:, -1:, 0]]
  total = out.frames.sum() + sum(front.sum() for front in fronts)
  np.testing.assert_allclose(total, expected["aligned_sum"], atol=1e-6)
  total = out.interactive.sum() + made((1, 2, 3, 8), 0.6).sum()
  np.testing.assert_allclose(total, expected["interactive_sum"], atol=1e-5)


TINY = dict(width=16, depth=1, heads=2, patch=4)
CLIP = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 16, 16, 3)), jnp.float32)


def pooled_both_ways(**options):
  """What a tower makes of clips, and of them backwards; its zeros set to other numbers."""
  tower = build_encoder({"name": "video_vit", **TINY, **options})

  @jax.jit
  def of(clip):
    variables = tower.init(jax.random.key(0), clip, train=False)
    variables = jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), variables)
    return [tower.apply(variables, x, train=False) for x in (clip, clip[:, ::-1])]

  return of(CLIP)


@pytest.mark.parametrize("temporal", ["mean", "transformer", "xclip", "divided", "ila"])
def test_only_a_mean_of_frames_cannot_tell_their_order(temporal):
  with jax.enable_x64(False):
    there, back = pooled_both_ways(temporal=temporal)
  assert there.pooled.shape == (2, 16) and there.tokens.shape == (2, 4, 16)
  far = float(jnp.abs(there.pooled - back.pooled).max())
  assert far < 1e-5 if temporal == "mean" else far > 1e-4
  assert (there.losses.keys() == {"alignment"}) == (temporal == "ila")


def test_a_tubelet_vit_sees_what_is_not_hidden():
  with jax.enable_x64(False):
    tower = TubeletViT(width=16, depth=1, heads=2, tubelet=(2, 4), leave_out=0.5)
    mask = jnp.tile(jnp.arange(16) % 4 < 2, (2, 2))
    variables = jax.jit(functools.partial(tower.init, train=False))(jax.random.key(0), CLIP)
    apply = jax.jit(tower.apply, static_argnames="train")
    other = CLIP.reshape(2, 4, 16, 4, 4, 3).at[:, :, :, 2:].add(9.0).reshape(CLIP.shape)
    out, same = (apply(variables, clip, mask, train=True) for clip in (CLIP, other))
    np.testing.assert_array_equal(out.places, np.tile(np.flatnonzero(mask[0]), (2, 1)))
    np.testing.assert_allclose(out.pooled, same.pooled, atol=1e-6)
    assert out.tokens.shape == (2, 16, 16) and out.grid is None and out.whole == (2, 4, 4)
    whole = apply(variables, CLIP, train=False)
    assert whole.tokens.shape == (2, 32, 16) and whole.grid == (2, 4, 4)


def test_tubelets_are_in_order_of_time():
  numbers = jnp.arange(2 * 4 * 4).reshape(1, 2, 4, 4, 1)
  cut, grid = tubelets_of(numbers, (1, 2))
  assert grid == (2, 2, 2) and cut[0, :, 0].tolist() == [0, 2, 8, 10, 16, 18, 24, 26]
  assert cut[0, 0].tolist() == [0, 1, 4, 5] and sincos1d(3, 4).shape == (3, 4)


@pytest.mark.parametrize(
  ("name", "options", "shape", "message"),
  [
    ("video_vit", {"patch": 5}, (1, 2, 16, 16, 3), "16x16 do not split into patches of 5 px; .* to 15 or 20"),
    ("video_vit", {"temporal": "ila"}, (1, 1, 16, 16, 3), "there are 1 frames of 4 x 4; set config.data.video.frames"),
    ("video_vit", {"temporal": "transfomer"}, None, "temporal: no such choice 'transfomer'.*transformer"),
    ("tubelet_vit", {"tubelet": (3, 4)}, (1, 4, 16, 16, 3), "tubelets of 3 frames of 4 px; .*video.frames to 3 or 6"),
    ("tubelet_vit", {"tubelet": (3,)}, None, "tubelet: .* is not a list of 2"),
  ],
)
def test_wrong_options_and_shapes(name, options, shape, message):
  tiny = {key: value for key, value in TINY.items() if name == "video_vit" or key != "patch"}
  with jax.enable_x64(False), pytest.raises(UserError, match=message):
    tower = build_encoder({"name": name, **tiny, **options})
    jax.eval_shape(lambda x: tower.init(jax.random.key(0), x, train=False), jnp.zeros(shape))
