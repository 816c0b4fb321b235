"""An image tower applied to each frame: what it makes of equal frames and of other orders, its start from pictures."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from jax.sharding import NamedSharding, PartitionSpec
from tiny import tiny_config

from mmcontrast.config import load_config
from mmcontrast.encoders import build_encoder, complete
from mmcontrast.encoders.dropout import per_example
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import read
from mmcontrast.interop.program import check_expressible
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.layer_outputs import kept_layers, one_by_one, vectors_of
from mmcontrast.models.model import build_model
from mmcontrast.optimization.layer_decay import layer_multipliers
from mmcontrast.parallel import sharding
from mmcontrast.parameter_paths import path_name
from mmcontrast.training.initialization import initial_arrays

VIT = dict(name="vit", width=8, depth=2, heads=2, patch=8)
IMAGE_TOWERS = {
  "resnet18": dict(name="resnet18", stages=(1, 1), width=8, stem="patch4"),
  "convnext_tiny": dict(name="convnext_tiny", stages=(1, 1), width=8),
  "clip_resnet50": dict(name="clip_resnet50", stages=(1,), width=8, head_width=16),
  "swin": dict(name="swin", stages=(1,), heads=(2,), width=8, window=2),
  "vit": VIT | dict(pool="cls"),
}
ORDERED = dict(temporal="transformer", temporal_heads=2, temporal_positions=0.5)
CLIPS = np.random.default_rng(0).standard_normal((3, 4, 16, 16, 3), np.float32)
HF_VIT = pathlib.Path(__file__).parents[1] / "golden" / "interop" / "hf_vit"


def frames(of=IMAGE_TOWERS["resnet18"], **options):
  return build_encoder(dict(name="frames", of=of, **options), "config.towers.video")


def variables_of(tower, clips=CLIPS):
  return jax.jit(lambda x: tower.init(jax.random.key(0), x, train=False))(clips)


@pytest.mark.parametrize("name", IMAGE_TOWERS)
def test_a_mean_of_equal_frames_is_the_image_towers_vector(name):
  tower, image = frames(IMAGE_TOWERS[name]), build_encoder(IMAGE_TOWERS[name])
  still = np.repeat(CLIPS[:, :1], 4, axis=1)
  variables = variables_of(tower)
  inner = {collection: tree["of"] for collection, tree in variables.items()}
  made = jax.jit(lambda v, x: tower.apply(v, x, train=False))(variables, still)
  expected = jax.jit(lambda v, x: image.apply(v, x, train=False))(inner, still[:, 0]).pooled
  np.testing.assert_allclose(made.pooled, expected, rtol=1e-5, atol=1e-6)
  assert made.tokens.shape == (3, 4, expected.shape[1]) and made.grid is None


@pytest.mark.parametrize("temporal", ["mean", "transformer"])
def test_only_blocks_between_frames_see_their_order(temporal):
  tower = frames(**ORDERED | dict(temporal=temporal))
  variables = variables_of(tower)
  apply = jax.jit(lambda x: tower.apply(variables, x, train=False))
  there, back = (apply(x) for x in (CLIPS, CLIPS[:, ::-1]))
  far = float(jnp.abs(there.pooled - back.pooled).max())
  assert far < 1e-5 if temporal == "mean" else far > 1e-2
  assert ("mit" in variables["params"]) == (temporal == "transformer")


def test_gradients_reach_every_parameter_of_both_and_statistics_are_those_of_all_frames():
  tower = frames(**ORDERED)
  variables = variables_of(tower)

  @jax.jit
  def of(params):
    def loss(params):
      variables_now = {**variables, "params": params}
      made, new = tower.apply(variables_now, CLIPS, train=True, mutable=["batch_stats"])
      return (made.pooled * jnp.cos(jnp.arange(made.pooled.size)).reshape(made.pooled.shape)).sum(), new

    return jax.grad(loss, has_aux=True)(params)

  gradients, new = of(variables["params"])
  found = traverse_util.flatten_dict(gradients, sep="/")
  assert {path.split("/")[0] for path in found} == {"of", "mit"}
  assert not [path for path, leaf in found.items() if not float(jnp.abs(leaf).max()) > 0]
  image = build_encoder(IMAGE_TOWERS["resnet18"])
  inner = {collection: tree["of"] for collection, tree in variables.items()}
  all_frames = CLIPS.reshape(-1, *CLIPS.shape[2:])
  _, expected = image.apply(inner, all_frames, train=True, mutable=["batch_stats"])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    new["batch_stats"]["of"],
    expected["batch_stats"],
  )


def test_eight_devices_make_what_one_does():
  """Statistics of all frames of the global batch among it."""
  tower, clips = frames(**ORDERED), np.repeat(CLIPS, 3, axis=0)[:8] * np.arange(1, 9)[:, None, None, None, None] / 4
  variables = variables_of(tower)
  apply = jax.jit(lambda x: tower.apply(variables, x, train=True, mutable=["batch_stats"]))
  mesh = sharding.make_mesh({"data": -1}, jax.devices()[:8])
  cut = jax.device_put(clips, NamedSharding(mesh, PartitionSpec("data")))
  assert len(cut.addressable_shards) == 8
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5), apply(clips), apply(cut))


def test_what_is_dropped_belongs_to_the_clip_and_differs_between_its_frames():
  tower = frames(VIT | dict(dropout=0.5, drop_path=0.5))
  variables, seeds = variables_of(tower), np.array([3, 1, 4], np.uint32)

  @jax.jit
  def tokens(clips, seeds):
    with per_example(seeds):
      return tower.apply(variables, clips, train=True, rngs={"dropout": jax.random.key(0)}).tokens

  whole, order = tokens(CLIPS, seeds), np.array([2, 0])
  np.testing.assert_allclose(tokens(CLIPS[order], seeds[order]), whole[order], rtol=1e-5, atol=1e-6)
  still = tokens(np.repeat(CLIPS[:, :1], 4, axis=1), seeds)
  assert float(jnp.abs(still[:, 1:] - still[:, :1]).max(-1).min()) > 1e-3


def test_what_an_image_tower_asks_of_itself_is_the_mean_over_frames():
  tower = frames(VIT | dict(experts=2))
  variables = variables_of(tower)
  routing = tower.apply(variables, CLIPS, train=False).losses["routing"]
  image = build_encoder(VIT | dict(experts=2))
  each = image.apply({"params": variables["params"]["of"]}, CLIPS[1], train=False).losses["routing"]
  np.testing.assert_allclose(routing[1], each.mean(0), rtol=1e-5)


def config_of(of, init):
  c = tiny_config(objective={}, init=init)
  c["data"] |= dict(views=dict(video=1), video=c["data"]["video"] | dict(frames=4, size=16))
  c["towers"] = dict(video=dict(name="frames", of=of, **ORDERED))
  c["heads"] = dict(video_joint=dict(tower="video", name="linear", dim=4))
  return c


@pytest.mark.parametrize("scan", [False, True])
def test_it_starts_from_an_image_tower_of_a_file(scan):
  theirs = read(f"hf:{HF_VIT}")
  c = config_of(theirs.towers["image"] | dict(scan=scan), {"towers/video/of": f"hf:{HF_VIT}:towers/image"})
  c["normalize"] = dict(mean=theirs.image.mean, std=theirs.image.std)
  model = build_model(c)
  shapes = jax.eval_shape(model.init, jax.random.key(0), {"video": Inputs(jnp.asarray(CLIPS))})
  found = initial_arrays(c, shapes, {})
  wanted = {path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(shapes["params"]["towers"])[0]}
  inside = {name for name in wanted if name.startswith("video/of/")}
  assert found.keys() == {f"params/towers/{name}" for name in inside} and any("/blocks/" in x for x in inside) == scan
  name = "patch_embed/kernel"
  np.testing.assert_array_equal(found[f"params/towers/video/of/{name}"], theirs.arrays[f"params/towers/image/{name}"])
  for part, source, message in (
    ("towers/video/of", f"hf:{HF_VIT}", r"say which tower of the file it is, such as 'hf:.*:towers/image'"),
    ("towers/video/to", f"hf:{HF_VIT}:towers/image", r"this run has no parameters under 'towers/video/to'"),
    ("towers/video/mit", f"hf:{HF_VIT}:towers/image", r"a file gives a whole tower or head"),
  ):
    with pytest.raises(UserError, match=message):
      initial_arrays(c | dict(init={part: source}), shapes, {})
  c["towers"]["video"]["of"] |= dict(width=2 * theirs.towers["image"]["width"])
  with pytest.raises(UserError, match=r"config\.towers\.video\.of\.width is \d+, and \d+ is needed"):
    initial_arrays(c, shapes, {})


def test_it_starts_from_the_image_tower_of_an_earlier_stage():
  """Statistics of batch norms too."""
  c = config_of(IMAGE_TOWERS["resnet18"], {"towers/video/of": "pictures:towers/image"})
  image = build_encoder(IMAGE_TOWERS["resnet18"]).init(jax.random.key(5), CLIPS[0], train=False)
  stage = {collection: {"towers": {"image": tree}, "heads": {}} for collection, tree in image.items()}
  shapes = jax.eval_shape(build_model(c).init, jax.random.key(0), {"video": Inputs(jnp.asarray(CLIPS))})
  found = initial_arrays(c, shapes, {"pictures": lambda: stage})
  assert "batch_stats/towers/video/of/bn1/mean" in found
  np.testing.assert_array_equal(found["params/towers/video/of/conv1/kernel"], image["params"]["conv1"]["kernel"])


def test_layers_are_those_of_both_and_loops_are_undone():
  c = config_of(VIT | dict(scan=True, remat="full"), {})
  model = build_model(c)
  variables = jax.jit(model.init)(jax.random.key(0), {"video": Inputs(jnp.asarray(CLIPS))})
  plain, unrolled = one_by_one(model, variables, "video")
  with kept_layers() as layers:
    made = plain.towers["video"].apply({"params": unrolled["params"]["towers"]["video"]}, CLIPS, train=False)
  found = vectors_of(layers, made)
  assert list(found) == ["of/blocks_0", "of/blocks_1", "mit/blocks_0", "pooled"]
  assert all(rows.shape == (3, 8) for rows in found.values())
  rates = layer_multipliers(0.5, {
    path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_flatten_with_path(unrolled["params"])[0]
  })  # fmt: skip
  kernel = "mlp/fc1/kernel"
  assert [rates[f"towers/video/of/blocks_{number}/{kernel}"] for number in range(2)] == [0.25, 0.5]
  assert rates["towers/video/of/patch_embed/kernel"] == 0.125
  assert not [path for path in rates if "/mit/" in path or path.endswith("of/norm/scale")]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (dict(of="resnet81"), r"towers\.video\.of\.name: no such choice 'resnet81'; did you mean 'resnet18'"),
    (dict(of=dict(name="vit", width=7, heads=2)), r"towers\.video\.of: width 7 does not split into 2 heads"),
    (dict(of=dict(name="vit", wdith=8)), r"towers\.video\.of: no option 'wdith'; did you mean 'width'"),
    (dict(of=dict(name="text_transformer", vocab_size=9)), r"towers\.video\.of: no tower of images; give one, such as"),
    (dict(of=dict(name="frames", of="resnet18")), r"towers\.video\.of: no tower of images"),
    (dict(of=5), r"towers\.video\.of: no tower of images"),
    (dict(of=VIT | dict(patches=(8, 4))), r"towers\.video\.of\.patches: each view has a size of patches"),
    (dict(of=dict(width=7)), r"towers\.video\.of: 'name' is missing"),
    (dict(of=dict(name="vit", width=0)), r"towers\.video\.of\.width: 0 is not a whole number of 1 or more"),
    (dict(temporal="xclip"), r"towers\.video\.temporal: no such choice 'xclip'"),
    (dict(depth=2), r"towers\.video: no option 'depth'"),
  ],
  ids=str,
)
def test_wrong_options(options, message):
  with pytest.raises(UserError, match=message) as error:
    frames(**options)
  assert "\n" not in str(error.value)
  with pytest.raises(UserError, match=r"towers\.video\.of: 'frames' needs it; add of="):
    build_encoder(dict(name="frames"), "config.towers.video")


def test_heads_have_to_divide_the_width():
  tower = frames(**ORDERED | dict(temporal_heads=3))
  with pytest.raises(UserError, match="width 16 does not split into 3 heads"):
    jax.eval_shape(lambda: tower.init(jax.random.key(0), CLIPS, train=False))


def test_programs_refuse_attention_of_one_kind_of_device_within_it_too():
  with pytest.raises(UserError, match=r"config\.towers\.video\.of\.attention is 'cudnn'"):
    check_expressible(config_of(VIT | dict(attention="cudnn"), {}))


def test_on_the_command_line():
  """Its options by their path, a name for a tower of no options; every default is written out."""
  word = "--config.towers.video"
  c = load_config("methods/clip4clip", [f"{word}={{'name': 'frames', 'of': 'resnet18'}}", f"{word}.of.width=24"])
  assert c["towers"]["video"] == dict(name="frames", of=dict(name="resnet18", width=24))
  whole = complete(dict(name="frames", of="vit"))
  assert whole["temporal"] == "mean" and whole["of"]["patch"] == 16 and whole["of"]["name"] == "vit"
  with pytest.raises(UserError, match=r"towers\.video\.of\.wdth: .*did you mean '--config\.towers\.video\.of\.width'"):
    load_config("methods/clip4clip", [f"{word}={{'name': 'frames', 'of': 'resnet18'}}", f"{word}.of.wdth=24"])
