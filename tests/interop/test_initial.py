"""config.init from files of other packages: what is taken over, and what has to be the same."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config

from mmcontrast.config import base_config
from mmcontrast.encoders.flexible_patches import resized_kernel
from mmcontrast.encoders.layers import unstack_layers
from mmcontrast.encoders.positions import resize_positions
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import read
from mmcontrast.interop.initial import open_part
from mmcontrast.interop.run import export_run
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model
from mmcontrast.parameter_paths import path_name
from mmcontrast.train import train
from mmcontrast.training.initialization import initial_arrays

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "interop"
BERT = GOLDEN / "hf_bert"
TOWER = dict(name="bert", vocab_size=26, width=24, depth=2, heads=3, mlp_ratio=40 / 24, max_length=20, dropout=0.1)
IDS = dict(pad=0, bos=2, eos=3)
TEXT = Inputs(jnp.zeros((1, 8), jnp.int32), jnp.ones((1, 8), bool))


def config_of(source, part="towers/text", tower=(), ids=()):
  c = base_config().to_dict()
  c["data"] |= dict(views=dict(text=1), text_length=8, token_ids=IDS | dict(ids))
  c["towers"] = dict(text=TOWER | dict(tower))
  c["heads"] = dict(text_joint=dict(tower="text", name="linear", dim=4))
  c["init"] = {part: source}
  return c


def arrays_of(config):
  shapes = jax.eval_shape(build_model(config).init, jax.random.key(0), {"text": TEXT})
  return initial_arrays(config, shapes, {})


@pytest.mark.parametrize("source", [f"hf:{BERT}", f"hf:{BERT}:towers/text"])
def test_a_tower_starts_from_a_file(source):
  found = arrays_of(config_of(source))
  assert found.keys() == read(f"hf:{BERT}").arrays.keys()
  np.testing.assert_array_equal(
    found["params/towers/text/pos_embed"], read(f"hf:{BERT}").arrays["params/towers/text/pos_embed"]
  )


@pytest.mark.parametrize("changes, message", [
  (dict(tower=dict(pool="cls")), r"\['towers/text'\]: config.towers.text.pool is 'cls', and 'mean' is needed"),
  (dict(tower=dict(depth=1)), r"config.towers.text.depth is 1, and 2 is needed"),
  (dict(tower=dict(name="modern_bert")), r"config.towers.text.name is 'modern_bert', and 'bert' is needed"),
  (dict(tower=dict(max_length=8)), r"config.towers.text.max_length is 8, and 20 is needed"),
  (dict(tower=dict(max_length=40)), r"'pos_embed': 20 learned positions are not stretched to 40: the first 20 stay .*"
                                    r"give the tower their max_length"),
  (dict(ids=dict(eos=1)), r"config.data.token_ids is .* is needed; set config.data.tokenizer='huggingface:"),
  (dict(part="*"), r"a file gives a whole tower or head"),
  (dict(part="towers/text/norm_pre"), r"a file gives a whole tower or head"),
  (dict(part="heads/text_joint"), r"config.heads.text_joint.name is 'linear', and 'identity' is needed"),
  (dict(source=f"hf:{BERT}:towers/txt"), r"no such choice 'txt'; did you mean 'text'"),
  (dict(source="hf:nowhere"), r"nowhere: no such file or folder"),
], ids=str)  # fmt: skip
def test_what_differs_is_named(changes, message):
  with pytest.raises(UserError, match=message) as error:
    arrays_of(config_of(**{"source": f"hf:{BERT}"} | changes))
  assert "\n" not in str(error.value)


def test_images_are_normalised_as_in_the_file_and_positions_are_resized(monkeypatch):
  import mmcontrast.interop.initial as initial
  from mmcontrast.interop.pretrained import ImageInput, Pretrained

  tower = dict(name="vit", width=8, depth=2, heads=2, patch=4, pool="cls")
  position = np.random.default_rng(0).standard_normal((1, 5, 8), np.float32)
  given = {
    "params/towers/image/pos_embed": position,
    "params/towers/image/blocks_0/norm1/bias": np.zeros(8),
    "params/towers/image/blocks_1/norm1/bias": np.ones(8),
  }
  image = ImageInput(8, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
  monkeypatch.setattr(initial, "read", lambda place: Pretrained(dict(image=tower), {}, given, image))
  wanted = {
    "params/towers/image/pos_embed": jax.ShapeDtypeStruct((1, 17, 8), np.float32),
    "params/towers/image/blocks/norm1/bias": jax.ShapeDtypeStruct((2, 8), np.float32),
  }
  config = base_config().to_dict() | dict(towers=dict(image=tower | dict(scan=True)))
  with pytest.raises(UserError, match=r"config.normalize.mean is \(0.485, .* and \(0.5, 0.5, 0.5\) is needed"):
    open_part("timm:x", "towers/image", wanted, config, "here")
  config["normalize"] = dict(mean=image.mean, std=image.std)
  path, found = open_part("timm:x", "towers/image", wanted, config, "here")
  assert path == "towers/image" and found["params/towers/image/pos_embed"].shape == (1, 17, 8)
  np.testing.assert_array_equal(found["params/towers/image/pos_embed"][:, 0], position[:, 0])
  np.testing.assert_array_equal(unstack_layers(found)["params/towers/image/blocks_1/norm1/bias"], np.ones(8))


@pytest.mark.parametrize("scan", [False, True])
def test_an_image_tower_of_another_size_and_with_its_blocks_in_a_loop(scan):
  """DINOv2's positions are resized as it does at every call."""
  place = f"hf:{GOLDEN / 'hf_dinov2'}"
  theirs = read(place)
  c = config_of(place, part="towers/image")
  c["data"] |= dict(views=dict(image=1), image_size=24)
  c["towers"] = dict(image=theirs.towers["image"] | dict(scan=scan, drop_path=0.1))
  c["heads"] = dict(image_joint=dict(tower="image", name="linear", dim=4))
  c["normalize"] = dict(mean=theirs.image.mean, std=theirs.image.std)
  made = jax.eval_shape(build_model(c).init, jax.random.key(0), {"image": Inputs(jnp.zeros((1, 24, 24, 3)))})
  found = initial_arrays(c, made, {})
  assert any("/blocks/" in path for path in found) == scan
  position = found["params/towers/image/pos_embed"]
  expected = resize_positions(theirs.arrays["params/towers/image/pos_embed"], (6, 6), 1)
  np.testing.assert_allclose(position, expected, atol=1e-6)
  again = unstack_layers(found)
  assert all((again[path] == array).all() for path, array in theirs.arrays.items() if not path.endswith("pos_embed"))


def test_a_tower_of_several_patches_starts_from_one_of_one():
  """The embedding is resized by the pseudo-inverse, positions to the square that the tower keeps."""
  place = f"hf:{GOLDEN / 'hf_vit'}"
  theirs = read(place)
  c = config_of(place, part="towers/image")
  c["data"] |= dict(views=dict(image=1), image_size=24)
  flexible = theirs.towers["image"] | dict(patch=6, patches=(4, 6, 12), position_side=3)
  c["towers"], c["normalize"] = dict(image=flexible), dict(mean=theirs.image.mean, std=theirs.image.std)
  c["heads"] = dict(image_joint=dict(tower="image", name="linear", dim=4))
  made = jax.eval_shape(build_model(c).init, jax.random.key(0), {"image": Inputs(jnp.zeros((1, 24, 24, 3)))})
  found, kernel = initial_arrays(c, made, {}), "params/towers/image/patch_embed/kernel"
  np.testing.assert_allclose(found[kernel], resized_kernel(theirs.arrays[kernel], 6), atol=1e-6)
  assert found[kernel].shape[:2] == (6, 6) and found["params/towers/image/pos_embed"].shape[1] == 10
  c["towers"] = dict(image=flexible | dict(patches=()))
  with pytest.raises(UserError, match=r"towers\.image\.patch is 6, and \d is needed"):
    initial_arrays(c, made, {})


def test_a_run_from_files_of_two_packages_trains_and_is_written_back(tmp_path, data_dir):
  """LiT: timm's image tower is locked, a text tower of transformers goes on learning."""
  places = {"towers/image": f"timm:{GOLDEN / 'timm_vit'}", "towers/text": f"hf:{BERT}"}
  image, text = map(read, places.values())
  towers = dict(image=image.towers["image"], text=text.towers["text"])
  heads = dict(
    image_joint=dict(tower="image", name="linear", dim=8), text_joint=dict(tower="text", name="linear", dim=8)
  )
  config = tiny_config(
    steps=2,
    init=places,
    towers=towers,
    heads=heads,
    normalize=dict(mean=image.image.mean, std=image.image.std),
    optimizer=dict(name="adamw", learning_rate=1e-2, frozen=("towers/image/.*",)),
    objective=dict(image_text=dict(query="image[0]/image_joint", key="text[0]/text_joint", direction="both")),
  )
  config["data"] |= dict(tokenizer=text.text.tokenizer, token_ids=dict(text.text.token_ids))
  state = train(config, tmp_path / "run", data_dir)
  found = {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state.params)}
  for path, array in (image.arrays | text.arrays).items():
    moved = np.abs(found[path.removeprefix("params/")] - array)
    assert moved.max() == 0 if "/image/" in path else moved.max() < 0.05, path
  moved = found["towers/text/blocks_0/mlp/fc1/kernel"] - text.arrays["params/towers/text/blocks_0/mlp/fc1/kernel"]
  assert np.abs(moved).max() > 1e-3
  back = read(f"timm:{export_run(tmp_path / 'run', 'timm', tmp_path / 'timm')}")
  assert back.arrays.keys() == image.arrays.keys()
  assert all(np.array_equal(back.arrays[path], array) for path, array in image.arrays.items())
