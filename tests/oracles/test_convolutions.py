"""Convolutional encoders of full size beside torchvision, timm and open_clip: outputs, and our exports loaded there."""

import json
import pathlib
import sys

import jax
import numpy as np
import open_clip
import pytest
import safetensors.torch
import timm
import torch
import torchvision

from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.pretrained import model_config
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "golden"), str(TESTS / "interop")]
from make_interop_convolutions import randomize  # noqa: E402
from models import variables  # noqa: E402

PX = 128
IMAGES = np.random.default_rng(0).standard_normal((3, PX, PX, 3), np.float32)
BATCH = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def drawn(model, seed):
  """Random in every tensor, its branches so weak that the sum of many stays of order one."""
  randomize(model, seed)
  for name, tensor in model.state_dict().items():
    if name.endswith(("bn3.weight", "bn3.bias")):
      tensor.mul_(0.4)
  return model


def encoded(pretrained, images=IMAGES):
  """What our image tower gives."""
  model = build_model(model_config(pretrained.towers, {}, None))
  weights = variables(pretrained.arrays)
  return jax.jit(lambda weights: model.encode(weights, "image", Inputs(images))[0])(weights)


def assert_close(ours, theirs, atol=1e-4):
  theirs = theirs.detach().numpy()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
  assert 0.1 < theirs.std() < 5  # or else the tolerance says nothing, or too much


@pytest.mark.parametrize("architecture", ["resnet50", "resnet18", "convnext_tiny"])
def test_timm_in_and_out(architecture, tmp_path):
  model = drawn(timm.create_model(architecture), 1)
  timm.models.save_for_hf(model, tmp_path / "in", safe_serialization=True)
  pretrained = read(f"timm:{tmp_path / 'in'}")
  with torch.no_grad():
    cells = model.forward_features(BATCH)
    pooled = model.forward_head(cells, pre_logits=True)
  got = encoded(pretrained)
  assert_close(got.pooled, pooled)
  assert_close(got.tokens, cells.flatten(2).mT)
  FORMATS["timm"].write(pretrained, tmp_path / "out")
  again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True).eval()
  assert again.pretrained_cfg["mean"] == list(pretrained.image.mean) and again.num_classes == 0
  with torch.no_grad():
    np.testing.assert_array_equal(again(BATCH), pooled)


@pytest.mark.parametrize("architecture", ["resnet50", "resnet34"])
def test_torchvision_in_and_out(architecture, tmp_path):
  model = drawn(getattr(torchvision.models, architecture)(), 2)
  torch.save(model.state_dict(), tmp_path / "in.pth")
  pretrained = read(f"torchvision:{architecture}@{tmp_path / 'in.pth'}", torch=True)
  model.fc = torch.nn.Identity()
  with torch.no_grad():
    pooled = model(BATCH)
  assert_close(encoded(pretrained).pooled, pooled)
  FORMATS["torchvision"].write(pretrained, tmp_path / "out")
  again = getattr(torchvision.models, architecture)()
  again.fc = torch.nn.Identity()
  again.load_state_dict(safetensors.torch.load_file(tmp_path / "out" / f"{architecture}.safetensors"))
  with torch.no_grad():
    np.testing.assert_array_equal(again.eval()(BATCH), pooled)


@pytest.mark.parametrize("name, px", [("RN50", 224), ("RN50x4", 288)])
def test_open_clips_resnets(name, px, tmp_path):
  config = open_clip.get_model_config(name)
  config["text_cfg"]["layers"] = 1
  model = drawn(open_clip.CLIP(**config), 3)
  safetensors.torch.save_file(model.state_dict(), tmp_path / "model.safetensors")
  (tmp_path / "config.json").write_text(json.dumps(config))
  pretrained = read(f"open_clip:{tmp_path / 'config.json'}@{tmp_path / 'model.safetensors'}")
  images = np.random.default_rng(0).standard_normal((2, px, px, 3), np.float32)
  got = encoded(pretrained, images)
  head = variables(pretrained.arrays)["params"]["heads"]["image_joint"]["fc1"]
  with torch.no_grad():
    assert_close(got.pooled @ head["kernel"] + head["bias"], model.visual(torch.from_numpy(images).permute(0, 3, 1, 2)))


def test_detectron2_takes_arrays_from_our_pickle(tmp_path):
  """What its checkpointer does with a .pkl: unpickle, and make tensors of arrays; here of torchvision's ResNet."""
  import pickle

  model = drawn(torchvision.models.resnet50(), 4)
  safetensors.torch.save_file(model.state_dict(), tmp_path / "in.safetensors")
  FORMATS["detectron2"].write(read(f"torchvision:resnet50@{tmp_path / 'in.safetensors'}"), tmp_path / "out")
  with open(tmp_path / "out" / "resnet50.pkl", "rb") as file:
    table = {name: torch.from_numpy(array) for name, array in pickle.load(file, encoding="latin1")["model"].items()}
  state = model.state_dict()
  for theirs, name in {
    "stem.conv1.weight": "conv1.weight",
    "res2.0.conv1.norm.bias": "layer1.0.bn1.bias",
    "res4.5.conv2.weight": "layer3.5.conv2.weight",
    "res5.0.shortcut.norm.running_mean": "layer4.0.downsample.1.running_mean",
  }.items():
    assert torch.equal(table[theirs], state[name])
