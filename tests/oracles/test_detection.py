"""torchvision's Mask R-CNN on a ResNet-50 of ours: the exported file loads as its backbone, gives our features, and a
step of training runs.

The wheel of torchvision has no operators for a CPU (torchvision_ops.py): two of them, nms and roi_align, are given here
in torch's own operators, for this test only.
"""

import pathlib
import sys

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torchvision.models.detection import maskrcnn_resnet50_fpn
from torchvision.ops.roi_align import _roi_align

from mmcontrast.interop.formats import FORMATS, read
from mmcontrast.interop.pretrained import model_config
from mmcontrast.modalities.views import Inputs
from mmcontrast.models.model import build_model

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "golden"), str(TESTS / "interop")]
from make_interop_convolutions import randomize  # noqa: E402
from models import variables  # noqa: E402

IMAGES = np.random.default_rng(0).standard_normal((2, 96, 96, 3), np.float32)


@pytest.fixture(scope="module", autouse=True)
def operators():
  """Non-maximum suppression and RoIAlign of torchvision, for a CPU, where the wheel has none."""
  try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    yield
    return
  except NotImplementedError:
    pass
  library = torch.library.Library("torchvision", "FRAGMENT")

  def nms(boxes, scores, threshold):
    order, keep = scores.argsort(descending=True), []
    while len(order):
      keep.append(order[0])
      overlap = torchvision.ops.box_iou(boxes[order[:1]], boxes[order[1:]])[0]
      order = order[1:][overlap <= threshold]
    return torch.stack(keep) if keep else torch.zeros(0, dtype=torch.int64)

  library.impl("nms", nms, "CPU")
  yield


def roi_align(images, boxes, output_size, spatial_scale=1.0, sampling_ratio=-1, aligned=False):
  if isinstance(boxes, list | tuple):
    numbers = torch.cat([torch.full((len(one), 1), n, dtype=one.dtype) for n, one in enumerate(boxes)])
    boxes = torch.cat([numbers, torch.cat(list(boxes))], dim=1)
  function = getattr(_roi_align, "__wrapped__", _roi_align)
  size = (output_size, output_size) if isinstance(output_size, int) else output_size
  return function(images, boxes, spatial_scale, *size, sampling_ratio, aligned)


def test_mask_rcnn_loads_our_export_and_trains_a_step(tmp_path, monkeypatch):
  torch.manual_seed(0)
  source = torchvision.models.resnet50()
  randomize(source, 4)
  for name, tensor in source.state_dict().items():
    if name.endswith(("bn3.weight", "bn3.bias")):
      tensor.mul_(0.4)  # so weak that the sum of many blocks stays of order one
  safetensors.torch.save_file(source.state_dict(), tmp_path / "in.safetensors")
  pretrained = read(f"torchvision:resnet50@{tmp_path / 'in.safetensors'}")
  FORMATS["torchvision"].write(pretrained, tmp_path / "out")
  weights = safetensors.torch.load_file(tmp_path / "out" / "resnet50.safetensors")

  # As docs/detection.md has it.
  model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, min_size=96, max_size=96)
  found = model.backbone.body.load_state_dict(weights, strict=False)
  assert not found.missing_keys
  assert all(name.endswith("num_batches_tracked") for name in found.unexpected_keys)

  # The last map is what our tower pools.
  model.eval()
  with torch.no_grad():
    last = model.backbone.body(torch.from_numpy(IMAGES).permute(0, 3, 1, 2))["3"]
  ours = build_model(model_config(pretrained.towers, {}, None))
  pooled = jax.jit(lambda weights: ours.encode(weights, "image", Inputs(IMAGES))[0].pooled)(
    variables(pretrained.arrays)
  )
  np.testing.assert_allclose(pooled, last.mean(dim=(2, 3)).numpy(), rtol=0, atol=1e-4)

  monkeypatch.setattr(torchvision.extension, "_has_ops", lambda: True)
  monkeypatch.setattr(sys.modules["torchvision.ops.poolers"], "roi_align", roi_align)
  monkeypatch.setattr(sys.modules["torchvision.models.detection.roi_heads"], "roi_align", roi_align)
  model.train()
  image = torch.rand(3, 96, 96)
  mask = torch.zeros(1, 96, 96, dtype=torch.uint8)
  mask[:, 20:60, 30:70] = 1
  target = {"boxes": torch.tensor([[30.0, 20, 70, 60]]), "labels": torch.tensor([1]), "masks": mask}
  before = model.backbone.body.layer4[2].conv3.weight.detach().clone()
  optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1e-4)
  losses = model([image], [target])
  assert {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"} == set(losses)
  total = sum(losses.values())
  total.backward()
  optimizer.step()
  assert torch.isfinite(total) and (model.backbone.body.layer4[2].conv3.weight != before).any()
