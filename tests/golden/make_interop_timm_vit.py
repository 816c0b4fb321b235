"""Writes tests/golden/interop/timm_vit*: tiny models by timm's own saving, random in every number, and their outputs.

HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_timm_vit.py
"""

import pathlib

import numpy as np
import torch
import torchvision_ops  # noqa: F401

import timm  # isort: skip

HERE = pathlib.Path(__file__).parent / "interop"
SHARED = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3)
CASES = {
  "timm_vit": ("vit_base_patch16_224", dict(num_classes=5)),
  "timm_vit_clip": ("vit_base_patch32_clip_quickgelu_224", dict(num_classes=0)),
  "timm_vit_dinov2": ("vit_small_patch14_reg4_dinov2", dict(num_classes=0)),
  "timm_vit_siglip": ("vit_base_patch16_siglip_224", dict(num_classes=0, mlp_ratio=3.0)),
  "timm_vit_gap": ("vit_base_patch16_224", dict(
    num_classes=0, class_token=False, global_pool="avg", qk_norm=True, qkv_bias=False, act_layer="gelu_tanh")),
}  # fmt: skip


def randomise(model: torch.nn.Module) -> None:
  """Gives every number a value of its own: no norm's scale is left 1, no bias 0."""
  torch.manual_seed(0)
  for name, parameter in model.named_parameters():
    one = "gamma" in name or ("norm" in name and "weight" in name)
    torch.nn.init.normal_(parameter, mean=1.0 if one else 0.0, std=0.2)


def save(case: str, name: str, options: dict) -> None:
  model = timm.create_model(name, **SHARED, **options).eval()
  randomise(model)
  folder = HERE / case
  timm.models.save_for_hf(model, folder, safe_serialization=True)
  images = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32)
  with torch.no_grad():
    features = model.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2)))
    pooled = model.forward_head(features, pre_logits=True)
  tokens = features[:, model.num_prefix_tokens :]
  np.savez(folder / "outputs.npz", images=images, tokens=tokens.numpy(), pooled=pooled.numpy())
  print(case, sum(path.stat().st_size for path in folder.iterdir()), "bytes")


if __name__ == "__main__":
  print("torch", torch.__version__, "timm", timm.__version__)
  for case, (name, options) in CASES.items():
    save(case, name, options)
