"""Writes tests/golden/interop/hf_{vit,dinov2*,dinov3*}: tiny models by transformers' own saving, and their outputs.

HF_HUB_OFFLINE=1 PYTHONPATH=tests/oracles .venv-oracles/bin/python tests/golden/make_interop_hf_vit.py
"""

import pathlib

import numpy as np
import torch
import torchvision_ops  # noqa: F401
import transformers

HERE = pathlib.Path(__file__).parent / "interop"
SHARED = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, patch_size=4, image_size=16)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def randomise(model: torch.nn.Module) -> None:
  """Gives every number a value of its own: no norm's scale is left 1, no bias 0."""
  torch.manual_seed(0)
  for name, parameter in model.named_parameters():
    one = "lambda" in name or ("norm" in name and "weight" in name)
    torch.nn.init.normal_(parameter, mean=1.0 if one else 0.0, std=0.2)


def save(case: str, model: transformers.PreTrainedModel, processor, registers: int = 0, base=None) -> None:
  """`base`: the encoder within `model`, whose outputs are kept."""
  folder = HERE / case
  randomise(model.eval())
  model.save_pretrained(folder)
  processor.save_pretrained(folder)
  arrays = {}
  for size in (16, 24):  # the second as they resize positions; of DINOv3 a rectangle
    shape = (2, size, 32 if "dinov3" in case else size, 3)
    images = np.random.default_rng(size).standard_normal(shape).astype(np.float32)
    options = {"interpolate_pos_encoding": True} if case == "hf_vit" else {}
    with torch.no_grad():
      tokens = (base or model)(torch.from_numpy(images.transpose(0, 3, 1, 2)), **options).last_hidden_state.numpy()
    arrays |= {f"images{size}": images, f"pooled{size}": tokens[:, 0], f"tokens{size}": tokens[:, 1 + registers :]}
  np.savez(folder / "outputs.npz", **arrays)
  print(case, sum(path.stat().st_size for path in folder.iterdir()), "bytes")


def main() -> None:
  print("torch", torch.__version__, "transformers", transformers.__version__)
  squash = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
  crop = transformers.BitImageProcessor(
    size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16}, image_mean=MEAN, image_std=STD
  )
  with_classes = transformers.ViTForImageClassification(
    transformers.ViTConfig(intermediate_size=40, hidden_act="gelu_pytorch_tanh", **SHARED)
  )
  save("hf_vit", with_classes, squash, base=with_classes.vit)
  save("hf_dinov2", transformers.Dinov2Model(transformers.Dinov2Config(use_swiglu_ffn=True, **SHARED)), crop)
  save(
    "hf_dinov2_registers",
    transformers.Dinov2WithRegistersModel(
      transformers.Dinov2WithRegistersConfig(mlp_ratio=2, num_register_tokens=3, qkv_bias=False, **SHARED)
    ),
    crop,
    registers=3,
  )
  for case, options in (("hf_dinov3", {}), ("hf_dinov3_gated", dict(use_gated_mlp=True, hidden_act="silu"))):
    options |= SHARED | {"num_attention_heads": 2, "intermediate_size": 40, "num_register_tokens": 2}
    save(case, transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**options)), crop, registers=2)


if __name__ == "__main__":
  main()
