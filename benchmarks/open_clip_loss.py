"""open_clip's ClipLoss and SigLipLoss as a peer: world size 1, the dense matrix, torch's autograd.

pip install torch==2.13.0 pillow ftfy huggingface_hub safetensors
pip install --no-deps open_clip_torch==3.3.0 torchvision==0.28.0 timm==1.0.31
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np

LOSSES = {"softmax": "ClipLoss", "sigmoid": "SigLipLoss"}
_kept: list[Any] = []  # torch forgets a library's operators with the object


def load() -> Any:
  """open_clip's module of losses. Raises ImportError, saying what is missing.

  torchvision (which open_clip imports) has no extension that fits a CPU build of torch, and its
  two operators must be declared before it is imported; the losses call neither.
  """
  import torch

  if not _kept:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
      library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
  try:
    from open_clip import loss
  except RuntimeError as error:  # The operators are there already: a torchvision that fits.
    raise ImportError(str(error).splitlines()[0]) from error
  return loss


def measure(
  case: str, image: np.ndarray, text: np.ndarray, scale: float, bias: float, repeats: int
) -> tuple[dict[str, float | None], float, list[np.ndarray]]:
  """({"peak_mib", "seconds"}, loss, its gradients by image, text and log scale).

  `peak_mib` is the most that torch's profiler sees allocated at one time during a call, of what
  the call allocates: gradients are among it, the embeddings given are not.

  Args:
    case: one of LOSSES.
    image, text: [N, D] float32, not normalised.
    scale, bias: of the logits.
    repeats: timed calls.
  """
  import torch
  from torch.nn.functional import normalize
  from torch.profiler import ProfilerActivity, profile

  loss = getattr(load(), LOSSES[case])()
  leaves = [torch.tensor(x) for x in (image, text, np.log(np.float32(scale)), np.float32(bias))]
  for leaf in leaves:
    leaf.requires_grad_()

  def call():
    for leaf in leaves:
      leaf.grad = None
    image, text, log_scale, offset = leaves
    extra = (offset,) if case == "sigmoid" else ()
    value = loss(normalize(image, dim=-1), normalize(text, dim=-1), log_scale.exp(), *extra)
    value.backward()
    return value.item()

  with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
    value = call()
  events = profiler.profiler.kineto_results.events()
  sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()) if e.name() == "[memory]"]
  seconds = []
  for _ in range(repeats):
    start = time.perf_counter()
    call()
    seconds.append(time.perf_counter() - start)
  row = dict(
    peak_mib=round(float(np.max(np.cumsum(sizes))) / 2**20, 1),
    seconds=round(statistics.median(seconds), 4) if seconds else None,
  )
  return row, value, [leaf.grad.numpy() for leaf in leaves[:3]]
