"""Vision transformers of full size beside timm and transformers: outputs, and our exports loaded there."""

import pathlib
import sys

import numpy as np
import pytest
import timm
import torch
import transformers

from mmcontrast.encoders import build_encoder
from mmcontrast.errors import UserError
from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.pretrained import ImageInput, Pretrained, shapes
from mmcontrast.interop.timm import encoder
from mmcontrast.interop.vit import NAMES

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "interop"))
import models


def drawn(model):
  """Random in every number, of such sizes that outputs are of order one."""
  torch.manual_seed(0)
  for name, parameter in model.eval().named_parameters():
    one = "gamma" in name or "lambda" in name or ("norm" in name and "weight" in name)
    if parameter.ndim < 2:
      torch.nn.init.normal_(parameter, mean=1.0 if one else 0.0, std=0.1)
    else:
      torch.nn.init.normal_(parameter, std=0.03)
  return model


def pictures(size):
  images = np.random.default_rng(0).standard_normal((1, size, size, 3), np.float32)
  return images, torch.from_numpy(images).permute(0, 3, 1, 2)


def assert_close(ours, theirs):
  theirs = theirs.detach().numpy()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4)
  assert 0.1 < theirs.std() < 5  # or else the tolerance says nothing, or too much


@pytest.mark.parametrize(
  "architecture, size, options",
  [
    ("vit_base_patch16_224", 224, {}),
    ("vit_base_patch16_siglip_224", 224, {}),
    ("vit_base_patch14_reg4_dinov2", 224, {"img_size": 224}),
    ("vit_large_patch14_clip_quickgelu_224", 224, {"depth": 4}),
    ("vit_so400m_patch14_siglip_384", 384, {"depth": 2}),  # 27 patches of 14 px, and 6 px that nothing sees
    ("vit_giant_patch14_dinov2", 112, {"depth": 2, "img_size": 112}),
  ],
)
def test_timm_in_and_out(architecture, size, options, tmp_path):
  model = drawn(timm.create_model(architecture, **options))
  timm.models.save_for_hf(model, tmp_path / "in", safe_serialization=True)
  pretrained = read(f"timm:{tmp_path / 'in'}")
  images, batch = pictures(size)
  with torch.no_grad():
    tokens = model.forward_features(batch)
    pooled = model.forward_head(tokens, pre_logits=True)
  got = models.encode_images(pretrained, images)
  assert_close(got.pooled, pooled)
  assert_close(got.tokens, tokens[:, model.num_prefix_tokens :])
  FORMATS["timm"].write(pretrained, tmp_path / "out")
  again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
  assert again.num_classes == 0 and again.pretrained_cfg["mean"] == list(pretrained.image.mean)
  with torch.no_grad():
    np.testing.assert_array_equal(again(batch), pooled)


@pytest.mark.parametrize("options", [
  {"pool": "gap"}, {"pool": "map", "activation": "gelu"}, {"pool": "gap", "registers": 4, "qk_norm": True},
  {"pool": "cls", "norm_after_pool": True, "layer_scale": 0.1, "mlp": "swiglu", "mlp_ratio": 3.0},
  {"pool": "cls", "cls_position": False, "pre_norm": True, "patch_bias": False, "norm_epsilon": 1e-5},
], ids=str)  # fmt: skip
def test_timm_loads_towers_of_our_own(options, tmp_path):
  tower, image = {"name": "vit_tiny", "depth": 2, **options}, ImageInput(64, (0.5,) * 3, (0.5,) * 3)
  draw = np.random.default_rng(0)
  arrays = {
    path: draw.normal(scale=0.05, size=shape).astype(np.float32)
    for path, shape in shapes({"image": tower}, {}, image).items()
  }
  ours = Pretrained({"image": tower}, {}, arrays, image)
  FORMATS["timm"].write(ours, tmp_path / "out")
  again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
  images, batch = pictures(64)
  with torch.no_grad():
    np.testing.assert_allclose(models.encode_images(ours, images).pooled, again(batch), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in timm.list_models("vit_*") if name in NAMES])
def test_each_architecture_is_timms(name):
  with torch.device("meta"):
    model = timm.create_model(name, num_classes=0)
  found = encoder(name, {}, "x")
  wanted = shapes({"image": found.tower}, {}, found.image)
  assert sum(p.numel() for p in model.parameters()) == sum(int(np.prod(shape)) for shape in wanted.values())
  tower, block = found.tower, model.blocks[0]
  activations = {"gelu": ("GELU",), "gelu_tanh": ("GELUTanh",), "quick_gelu": ("QuickGELU",)}
  expected = ("SiLU",) if tower["mlp"] == "swiglu" else activations[tower["activation"]]
  assert type(block.mlp.act).__name__ in expected
  assert tower["norm_epsilon"] == block.norm1.eps and tower["heads"] == block.attn.num_heads
  assert {"cls": "token", "gap": "avg", "map": "map"}[tower["pool"]] == model.global_pool
  assert found.image.size == model.patch_embed.img_size[0]
  build_encoder(tower)


def test_all_names_are_timms():
  assert set(NAMES) <= set(timm.list_models("vit_*"))


def test_an_architecture_of_timm_that_is_not_here_is_refused():
  with pytest.raises(UserError, match="no such choice 'vit_base_patch16_xp_224'"):
    encoder("vit_base_patch16_xp_224", {}, "x")


HUGGING_FACE = {
  "vit": lambda: transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False),
  "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(image_size=518)),
  "dinov2 giant": lambda: transformers.Dinov2Model(transformers.Dinov2Config(
    hidden_size=1536, num_attention_heads=24, num_hidden_layers=2, image_size=518, use_swiglu_ffn=True)),
  "registers": lambda: transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(
    image_size=518, patch_size=14)),
}  # fmt: skip


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_transformers_in_and_out(name, tmp_path):
  """DINOv2 sees images of 224 px with the positions of 518."""
  model = drawn(HUGGING_FACE[name]())
  model.save_pretrained(tmp_path / "in")
  processor = (
    transformers.ViTImageProcessor() if name == "vit" else transformers.BitImageProcessor(size={"shortest_edge": 256})
  )
  processor.save_pretrained(tmp_path / "in")
  pretrained = read(f"hf:{tmp_path / 'in'}")
  images, batch = pictures(224)
  with torch.no_grad():
    theirs = model(batch).last_hidden_state
  got = models.encode_images(pretrained, images)
  assert_close(got.pooled, theirs[:, 0])
  assert_close(got.tokens, theirs[:, 1 + pretrained.towers["image"]["registers"] :])
  FORMATS["hf"].write(pretrained, tmp_path / "out")
  again = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
  with torch.no_grad():
    found = again(batch)
  np.testing.assert_array_equal(found.last_hidden_state, theirs)
  np.testing.assert_allclose(found.pooler_output, theirs[:, 0], atol=1e-6)
  made = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
  picture = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
  one, other = (p(picture, return_tensors="np")["pixel_values"] for p in (processor, made))
  np.testing.assert_allclose(one, other, atol=1e-6)
