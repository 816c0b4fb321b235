"""Writes tiny convolutional encoders of torchvision and timm, and what they give, to tests/golden/interop.

    .venv-oracles/bin/python tests/golden/make_interop_convolutions.py

Made with torch 2.13.0, torchvision 0.28.0, timm 1.0.31. Every tensor is drawn anew, also those that
begin as zeros or ones, so that no array can be swapped or left out unseen.
"""

import math
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "oracles"))
import torchvision_ops  # noqa: E402, F401, I001  (before the packages that import torchvision)
import safetensors.torch  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402

PX = 64


def randomize(model: torch.nn.Module, seed: int) -> torch.nn.Module:
  """Draws every parameter and statistic of `model`, so that what it gives is of order one."""
  generator = torch.Generator().manual_seed(seed)
  for name, tensor in model.state_dict().items():
    if not tensor.is_floating_point() or name.startswith("logit"):
      continue
    normal = torch.randn(tensor.shape, generator=generator)
    if tensor.ndim > 1:
      tensor.copy_(normal / math.sqrt(tensor[0].numel()))
    elif name.endswith(("running_var", ".weight", "gamma")):
      tensor.copy_(0.5 + normal.abs() / 2)
    else:
      tensor.copy_(normal / 4)
  return model.eval()


def images() -> np.ndarray:
  """[2, PX, PX, 3] float32, of few values, so that they compress."""
  noise = np.random.default_rng(0).standard_normal((2, PX, PX, 3))
  return (np.round(noise * 2) / 2).astype(np.float32)


def write(folder: pathlib.Path, **outputs: torch.Tensor) -> None:
  """outputs.npz, the images among them."""
  arrays = {name: tensor.detach().numpy().astype(np.float32) for name, tensor in outputs.items()}
  np.savez_compressed(folder / "outputs.npz", images=images(), **arrays)


def of_timm(folder: pathlib.Path, architecture: str, seed: int, **args) -> None:
  """A folder as timm saves it, with a classifier."""
  model = randomize(timm.create_model(architecture, num_classes=5, **args), seed)
  data = {"input_size": (3, PX, PX), "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3), "crop_pct": 0.9}
  timm.models.save_for_hf(model, folder, model_args=args, safe_serialization=True, data_config=data)
  cells = model.forward_features(BATCH)
  write(folder, tokens=cells.flatten(2).mT, pooled=model.forward_head(cells, pre_logits=True))


def of_torchvision(folder: pathlib.Path) -> None:
  """A ResNet with stages of fewer channels, for which torchvision has no option."""
  block = torchvision.models.resnet.Bottleneck
  model = torchvision.models.ResNet(block, [1, 1, 1, 1])
  model.inplanes = 64
  for i, (depth, stride) in enumerate(((2, 1), (1, 2), (1, 2), (1, 2))):
    setattr(model, f"layer{i + 1}", model._make_layer(block, 2 * 2**i, depth, stride=stride))
  model.fc = torch.nn.Identity()
  randomize(model, 3)
  folder.mkdir(parents=True, exist_ok=True)
  safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
  write(folder, pooled=model(BATCH))


if __name__ == "__main__":
  BATCH = torch.from_numpy(images()).permute(0, 3, 1, 2)
  with torch.no_grad():
    of_timm(HERE / "interop" / "timm_resnet", "resnet50", 1, layers=[2, 1, 1, 1], channels=[2, 4, 8, 16])
    of_timm(HERE / "interop" / "timm_convnext", "convnext_tiny", 2, depths=[1, 1, 2, 1], dims=[4, 8, 16, 32])
    of_torchvision(HERE / "interop" / "torchvision_resnet")
