"""Siglip2Model and Siglip2VisionModel (NaFlex): images of any ratio made, encoded and written as transformers does."""

import json
import shutil

import jax
import numpy as np
import pytest
from models import GOLDEN, assert_same_file, encode_texts

from mmcontrast.data.settings import resolve
from mmcontrast.data.transforms import evaluation_view
from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError
from mmcontrast.interop import formats
from mmcontrast.interop.pretrained import variables
from mmcontrast.interop.run import config_of
from mmcontrast.modalities import MODALITIES
from mmcontrast.training.initialization import initial_arrays

CASES = ("hf_siglip2", "hf_siglip2_vision")
BUDGETS = (12, 20)


@pytest.fixture(scope="module")
def read():
  """case -> what was read of it, once."""
  return {case: formats.read(f"hf:{GOLDEN / case}") for case in CASES}


@pytest.fixture(scope="module")
def golden():
  return {case: np.load(GOLDEN / case / "outputs.npz") for case in CASES}


def seen(pretrained, golden, most):
  """What the tower is called with, of the golden images at a budget of patches."""
  config = config_of(pretrained)
  config["data"]["native"]["patches"] = (most,)
  config["data"] = resolve(config["data"])
  values = [evaluation_view(golden[f"image{number}"], config["data"]) for number in range(5)]
  return MODALITIES["image"].inputs(MODALITIES["image"].batch(values, config["data"], None), config)


@pytest.mark.parametrize("most", BUDGETS)
def test_images_become_their_patches(most, read, golden):
  golden = golden["hf_siglip2"]
  found = seen(read["hf_siglip2"], golden, most)
  np.testing.assert_array_equal(found.grid, golden[f"spatial_shapes{most}"])
  np.testing.assert_array_equal(found.mask, golden[f"pixel_attention_mask{most}"] == 1)
  np.testing.assert_allclose(found.values, golden[f"pixel_values{most}"], atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_our_outputs_are_theirs_at_any_budget(case, read, golden):
  tower = build_encoder(read[case].towers["image"])
  weights = {"params": variables(read[case].arrays)["params"]["towers"]["image"]}
  apply = jax.jit(lambda inputs: tower.apply(weights, *inputs.arguments, train=False))
  for most in BUDGETS if case == "hf_siglip2" else BUDGETS[1:]:
    inputs = seen(read[case], golden[case], most)
    out = apply(inputs)
    np.testing.assert_allclose(out.pooled, golden[case][f"pooled{most}"], atol=1e-4)
    real = np.asarray(out.mask)
    np.testing.assert_allclose(out.tokens[real], golden[case][f"tokens{most}"][real], atol=1e-4)
    assert np.std(out.pooled) > 0.1  # or else the tolerance says nothing


def test_texts_and_logits_are_theirs(read, golden):
  found, golden = read["hf_siglip2"], golden["hf_siglip2"]
  pooled = encode_texts(found, golden["ids"], np.ones(golden["ids"].shape, bool)).pooled
  head = variables(found.arrays)["params"]["heads"]["text_joint"]["fc1"]
  text = np.asarray(pooled @ head["kernel"] + head["bias"])
  np.testing.assert_allclose(text, golden["text"], atol=1e-4)
  image, text = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (golden["pooled20"], text))
  np.testing.assert_allclose(found.logit_scale * image @ text.T + found.logit_bias, golden["logits"], atol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_what_is_read_is_written_bit_for_bit(case, read, tmp_path):
  formats.FORMATS["hf"].write(read[case], tmp_path)
  assert_same_file(GOLDEN / case / "model.safetensors", tmp_path / "model.safetensors")
  again = formats.read(f"hf:{tmp_path}")
  assert (again.towers, again.heads, again.image) == (read[case].towers, read[case].heads, read[case].image)
  theirs, ours = (json.loads((folder / "config.json").read_text()) for folder in (GOLDEN / case, tmp_path))
  assert ours["model_type"] == theirs["model_type"] and ours["architectures"] == theirs["architectures"]


def test_other_formats_have_no_such_images(read, tmp_path):
  with pytest.raises(UserError, match=r"config\.towers\.image reads images that keep their ratio .*only --to hf has"):
    formats.FORMATS["timm"].write(read["hf_siglip2_vision"], tmp_path / "out")
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
  "file, change, message",
  [
    ("config.json", {"num_patches": 8}, r"num_patches is 8, and positions are of a square"),
    ("config.json", {"patch_size": 8}, r"patch_size is 8, and preprocessor_config\.json cuts patches of 4 px"),
    ("config.json", {"vision_use_head": False}, r"vision_use_head is False, which no encoder supports"),
    ("preprocessor_config.json", {"max_num_patches": None, "size": {"height": 16, "width": 16}},
     r"reads images that keep their ratio, and preprocessor_config\.json makes squares of 16 px"),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(file, change, message, tmp_path):
  shutil.copytree(GOLDEN / "hf_siglip2_vision", tmp_path, dirs_exist_ok=True)
  config = json.loads((tmp_path / file).read_text()) | change
  (tmp_path / file).write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
  with pytest.raises(UserError, match=message) as error:
    formats.read(f"hf:{tmp_path}")
  assert "\n" not in str(error.value)


def test_a_run_that_keeps_the_ratio_of_images_starts_from_a_file(read):
  theirs = read["hf_siglip2_vision"]
  config = config_of(theirs) | {"init": {"towers/image": f"hf:{GOLDEN / 'hf_siglip2_vision'}"}}
  config["towers"] = {"image": {**theirs.towers["image"], "dropout": 0.1}}
  shapes = {"params": {"towers": {"image": variables(theirs.arrays)["params"]["towers"]["image"]}}, "batch_stats": {}}
  found = initial_arrays(config, shapes, {})
  assert found.keys() == theirs.arrays.keys()
  assert all((found[path] == array).all() for path, array in theirs.arrays.items())
