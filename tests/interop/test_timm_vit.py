"""timm's vision transformers: outputs of its own tiny models, out and in again, and what is refused."""

import dataclasses
import json
import shutil

import models
import numpy as np
import pytest

from mmcontrast.errors import UserError
from mmcontrast.interop import formats, timm, vit
from mmcontrast.interop.weights import read_weights, write_weights

CASES = ("timm_vit", "timm_vit_clip", "timm_vit_dinov2", "timm_vit_siglip", "timm_vit_gap")


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_timms_and_out_and_in_again_is_the_same(case, tmp_path):
  found = formats.read(f"timm:{models.GOLDEN / case}")
  expected = np.load(models.GOLDEN / case / "outputs.npz")
  out = models.encode_images(found, expected["images"])
  np.testing.assert_allclose(out.pooled, expected["pooled"], atol=1e-4)
  np.testing.assert_allclose(out.tokens, expected["tokens"], atol=1e-4)
  formats.FORMATS["timm"].write(found, tmp_path / "out")
  cfg = json.loads((tmp_path / "out" / "config.json").read_text())["pretrained_cfg"]
  assert cfg["input_size"] == [3, 16, 16] and cfg["fixed_input_size"]  # or timm builds it for its own default
  again = formats.read(f"timm:{tmp_path / 'out'}")
  models.assert_same_arrays(again, found)
  assert again.towers == found.towers and again.image == found.image
  theirs, ours = (read_weights(folder / "model.safetensors") for folder in (models.GOLDEN / case, tmp_path / "out"))
  assert {name for name in theirs if not name.startswith("head.")} == ours.keys()
  assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


def test_what_each_case_is():
  towers = {case: formats.read(f"timm:{models.GOLDEN / case}").towers["image"] for case in CASES}
  assert {case: (one["pool"], one["norm_epsilon"], one["activation"]) for case, one in towers.items()} == {
    "timm_vit": ("cls", 1e-6, "gelu"), "timm_vit_clip": ("cls", 1e-5, "quick_gelu"),
    "timm_vit_dinov2": ("cls", 1e-6, "gelu"), "timm_vit_siglip": ("map", 1e-6, "gelu"),
    "timm_vit_gap": ("gap", 1e-6, "gelu_tanh")}  # fmt: skip
  assert towers["timm_vit_dinov2"]["registers"] == 4 and not towers["timm_vit_dinov2"]["cls_position"]
  image = formats.read(f"timm:{models.GOLDEN / 'timm_vit_clip'}").image
  assert image.size == 16 and image.mean == vit.CLIP_MEAN and image.interpolation == "bicubic"


def test_bare_weights_of_another_architecture_than_is_said():
  with pytest.raises(UserError, match="another architecture"):
    formats.read(f"timm:vit_tiny_patch16_224@{models.GOLDEN / 'timm_vit' / 'model.safetensors'}")


@pytest.mark.parametrize("options", [
  {"mlp": "swiglu", "mlp_ratio": 8 / 3}, {"registers": 2, "pool": "gap"}, {"positions": "none", "qk_norm": True},
], ids=str)  # fmt: skip
def test_an_option_without_effect_does_not_matter(options):
  assert timm.architecture({"name": "vit", **options}, 224, "out")


@pytest.mark.parametrize("name", vit.NAMES)
def test_each_architecture_goes_out_under_its_own_name(name):
  encoder = timm.encoder(name, {}, "x")
  assert timm.architecture(encoder.tower, encoder.image.size, "x")[1] == {}
  out = timm.architecture(encoder.tower, encoder.image.size, "x")[0]
  assert vit.arguments(out) == vit.arguments(name)


def edited(tmp_path, case, **args):
  folder = tmp_path / "edited"
  shutil.copytree(models.GOLDEN / case, folder)
  config = json.loads((folder / "config.json").read_text())
  config["model_args"] |= args
  (folder / "config.json").write_text(json.dumps(config))
  return f"timm:{folder}"


@pytest.mark.parametrize("args, message", [
  ({"act_layer": "gelu_tan"}, "act_layer: .*did you mean 'gelu_tanh'"),
  ({"global_pool": "avg"}, "class_token=True with global_pool='avg'"),
  ({"reg_tokens": 2}, "reg_tokens=2 with positions"),
  ({"scale_mlp_norm": True}, "scale_mlp_norm=True is not supported"),
  ({"img_size": [16, 32]}, r"img_size: \[16, 32\] is not square"),
  ({"qkv_bais": False}, "did you mean 'qkv_bias'"),
  ({"pre_norm": True}, "'patch_embed.proj.bias'"),
  ({"init_values": 1e-5}, "ls1.gamma"),
  ({"depth": 3}, r"'blocks\.2\..*'"),
  ({"num_heads": 3, "embed_dim": 48}, "another architecture"),
], ids=str)  # fmt: skip
def test_what_our_encoder_does_not_compute_is_refused(tmp_path, args, message):
  with pytest.raises(UserError, match=message):
    formats.read(edited(tmp_path, "timm_vit", **args))


def test_an_array_more_or_less_is_an_error(tmp_path):
  shutil.copytree(models.GOLDEN / "timm_vit", tmp_path / "x")
  arrays = read_weights(tmp_path / "x" / "model.safetensors")
  write_weights(tmp_path / "x" / "model.safetensors", arrays | {"norm_pre.weight": np.ones(24, np.float32)})
  with pytest.raises(UserError, match=r"'norm_pre\.weight'"):
    formats.read(f"timm:{tmp_path / 'x'}")
  del arrays["blocks.1.mlp.fc2.bias"]
  write_weights(tmp_path / "x" / "model.safetensors", arrays)
  with pytest.raises(UserError, match=r"no array 'blocks\.1\.mlp\.fc2\.bias'"):
    formats.read(f"timm:{tmp_path / 'x'}")


@pytest.mark.parametrize("options, message", [
  ({"positions": "rope"}, "positions is 'rope', and 'none' is needed"), ({"positions": "sincos2d"}, "'sincos2d'"),
  ({"norm_epsilon": 1e-12}, "norm_epsilon=1e-12"), ({"norm_epsilon": 1e-5, "mlp": "swiglu"}, "mlp='swiglu'"),
  ({"patch_bias": False}, "patch_bias is False"), ({"registers": 2, "pool": "cls"}, "cls_position is True"),
  ({"mlp": "swiglu", "pool": "map"}, "'map' with SwiGLU"), ({"pool": "queries"}, "no such choice 'queries'"),
], ids=str)  # fmt: skip
def test_a_tower_that_timm_does_not_have_is_not_written(options, message):
  with pytest.raises(UserError, match=message):
    timm.architecture({"name": "vit", **options}, 224, "out")


def test_positions_for_another_size_than_the_images_are_not_written(tmp_path):
  found = formats.read(f"timm:{models.GOLDEN / 'timm_vit'}")
  smaller = dataclasses.replace(found, image=dataclasses.replace(found.image, size=8))
  with pytest.raises(UserError, match=r"towers/image/pos_embed is for images of another size than 8 px"):
    formats.FORMATS["timm"].write(smaller, tmp_path / "out")
