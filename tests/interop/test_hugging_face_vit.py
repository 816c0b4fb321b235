"""transformers' ViT and DINOv2: outputs of its own tiny models, out and in again, and what is refused."""

import json
import shutil

import models
import numpy as np
import pytest

import mmcontrast
from mmcontrast.errors import UserError
from mmcontrast.interop import formats, hugging_face_image, run
from mmcontrast.interop.pretrained import ImageInput, Pretrained
from mmcontrast.interop.weights import read_weights

CASES = ("hf_vit", "hf_dinov2", "hf_dinov2_registers")


@pytest.mark.parametrize("case", CASES)
def test_outputs_are_theirs_at_any_size_and_out_and_in_again_is_the_same(case, tmp_path):
  found = formats.read(f"hf:{models.GOLDEN / case}")
  expected = np.load(models.GOLDEN / case / "outputs.npz")
  for size in (16, 24):
    out = models.encode_images(found, expected[f"images{size}"])
    np.testing.assert_allclose(out.pooled, expected[f"pooled{size}"], atol=1e-4)
    np.testing.assert_allclose(out.tokens, expected[f"tokens{size}"], atol=1e-4)
  formats.FORMATS["hf"].write(found, tmp_path / "out")
  again = formats.read(f"hf:{tmp_path / 'out'}")
  models.assert_same_arrays(again, found)
  assert again.towers == found.towers and again.image == found.image
  theirs, ours = (read_weights(folder / "model.safetensors") for folder in (models.GOLDEN / case, tmp_path / "out"))
  theirs = {name.removeprefix("vit."): array for name, array in theirs.items()}
  left = {name for name in theirs if name.startswith("classifier.") or name.endswith("mask_token")}
  assert theirs.keys() - left == {name for name in ours if not name.startswith("pooler.")}
  assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs.keys() - left)


@pytest.mark.parametrize("case", ["hf_dinov3", "hf_dinov3_gated"])
def test_rope_is_theirs_at_any_size(case):
  found, expected = formats.read(f"hf:{models.GOLDEN / case}"), np.load(models.GOLDEN / case / "outputs.npz")
  for size in (16, 24):
    out = models.encode_images(found, expected[f"images{size}"])
    np.testing.assert_allclose(out.pooled, expected[f"pooled{size}"], atol=1e-4)
    np.testing.assert_allclose(out.tokens, expected[f"tokens{size}"], atol=1e-4)


def test_images_are_made_as_their_processor_says():
  image = formats.read(f"hf:{models.GOLDEN / 'hf_vit'}").image
  assert image == ImageInput(16, (0.5,) * 3, (0.5,) * 3, "squash", "bilinear")
  image = formats.read(f"hf:{models.GOLDEN / 'hf_dinov2'}").image
  assert (image.size, image.resize, image.interpolation, image.mean[0]) == (16, "shortest", "bicubic", 0.485)
  assert int(image.size / image.centre_crop) == 18


@pytest.mark.parametrize("size, shortest", [(224, 256), (224, 224), (224, 248), (518, 592), (336, 341), (99, 100)])
def test_the_shorter_side_is_theirs_to_the_pixel(tmp_path, size, shortest):
  config = {
    "do_center_crop": True,
    "crop_size": {"height": size, "width": size},
    "size": {"shortest_edge": shortest},
    "image_mean": [0, 0, 0],
    "image_std": [1, 1, 1],
    "resample": 3,
  }
  (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
  image = hugging_face_image.read_image_input(tmp_path)
  assert int(image.size / image.centre_crop) == shortest
  again = hugging_face_image.image_config(image)
  assert {key: again[key] for key in config} == config


def edited(tmp_path, case, file="config.json", **fields):
  folder = tmp_path / "edited"
  shutil.copytree(models.GOLDEN / case, folder)
  config = json.loads((folder / file).read_text()) | fields
  (folder / file).write_text(json.dumps({key: value for key, value in config.items() if value != "gone"}))
  return f"hf:{folder}"


@pytest.mark.parametrize("fields, message", [
  ({"model_type": "vit_mae"}, "model_type: .*did you mean 'videomae' or 'vit'"),
  ({"hidden_act": "gelu_pytorch_tahn"}, "hidden_act: .*did you mean 'gelu_pytorch_tanh'"),
  ({"num_channels": 1}, "num_channels is 1"),
  ({"layer_norm_eps": "gone"}, "has no 'layer_norm_eps'"),
  ({"image_size": [16, 32]}, "not square"),
  ({"image_size": 32}, "embeddings.position_embeddings.*another architecture"),
  ({"qkv_bias": False}, r"\.attention\.attention\.\w+\.bias' *"),
  ({"intermediate_size": 48}, "another architecture"),
  ({"num_hidden_layers": 1}, r"encoder\.layer\.1"),
], ids=str)  # fmt: skip
def test_a_config_that_is_not_the_weights_or_not_computed_here_is_refused(tmp_path, fields, message):
  with pytest.raises(UserError, match=message):
    formats.read(edited(tmp_path, "hf_vit", **fields))


def test_a_run_of_images_smaller_than_the_positions_are_for(tmp_path):
  """As DINOv2's: 224 px with positions for 518."""
  place = edited(tmp_path, "hf_dinov2", "preprocessor_config.json", crop_size={"height": 8, "width": 8})
  run.import_run(place, tmp_path / "run")
  picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
  assert np.isfinite(mmcontrast.load(tmp_path / "run").encode_image([picture])).all()
  run.export_run(tmp_path / "run", "hf", tmp_path / "out")
  theirs, ours = formats.read(place), formats.read(f"hf:{tmp_path / 'out'}")
  models.assert_same_arrays(ours, theirs)
  assert ours.image == theirs.image and ours.image.size == 8
  assert json.loads((tmp_path / "out" / "config.json").read_text())["image_size"] == 16


@pytest.mark.parametrize("fields, message", [
  ({"resample": 1}, "resample"), ({"do_normalize": False}, "do_normalize is False"),
  ({"rescale_factor": 0.5}, "rescale_factor is 0.5"), ({"image_std": "gone"}, "has no 'image_std'"),
  ({"size": {"height": 16, "width": 20}}, "not square"), ({"do_center_crop": True}, "do_center_crop=True with size"),
], ids=str)  # fmt: skip
def test_images_that_are_made_otherwise_are_refused(tmp_path, fields, message):
  with pytest.raises(UserError, match=message):
    formats.read(edited(tmp_path, "hf_vit", "preprocessor_config.json", **fields))


def test_a_folder_that_does_not_say_how_images_are_made_is_refused(tmp_path):
  shutil.copytree(models.GOLDEN / "hf_vit", tmp_path / "x")
  (tmp_path / "x" / "preprocessor_config.json").unlink()
  with pytest.raises(UserError, match=r"no preprocessor_config\.json"):
    formats.read(f"hf:{tmp_path / 'x'}")


@pytest.mark.parametrize("options, message", [
  ({"pool": "gap"}, "vit: config.towers.image.pool is 'gap'"), ({"positions": "rope"}, "not 'rope'"),
  ({"registers": 2}, "vit: config.towers.image.registers is 2"),
  ({"layer_scale": 1.0, "mlp_ratio": 2.5}, "dinov2: config.towers.image.mlp_ratio"),
  ({"pre_norm": True}, "image.pre_norm is True"), ({"qk_norm": True}, "image.qk_norm"),
  ({"patch_bias": False}, "image.patch_bias"),
], ids=str)  # fmt: skip
def test_a_tower_that_transformers_does_not_have_is_not_written(tmp_path, options, message):
  tower = {"name": "vit", "pool": "cls", "activation": "gelu"} | options
  given = Pretrained({"image": tower}, {}, {"params/towers/image/pos_embed": np.zeros((1, 17, 384))},
                     ImageInput(64, (0.5,) * 3, (0.5,) * 3))  # fmt: skip
  with pytest.raises(UserError, match=message):
    formats.FORMATS["hf"].write(given, tmp_path / "out")
  assert not (tmp_path / "out").exists()


def test_widths_of_swiglu_are_found_again(tmp_path):
  from mmcontrast.interop import hugging_face_vit as vit

  for width, ratio in ((1536, 4), (20, 4), (64, 3)):
    config = {"model_type": "dinov2", "hidden_size": width, "mlp_ratio": ratio, "use_swiglu_ffn": True,
              "num_hidden_layers": 1, "num_attention_heads": 1, "patch_size": 14, "layer_norm_eps": 1e-6,
              "layerscale_value": 1.0}  # fmt: skip
    tower = vit._tower(config, tmp_path)
    assert vit._config(tower, 28)["mlp_ratio"] == ratio
  assert round(tower["width"] * tower["mlp_ratio"]) == 128
