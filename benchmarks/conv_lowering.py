"""ResNet-50 training steps by convolution lowering, beside torch's, in interleaved rounds.

    python benchmarks/conv_lowering.py --out docs/results/conv_lowering.json

One step is forward, backward and AdamW on a batch of 32, float32. Each contender is a process
of its own that waits for its turn, so that no thread pool disturbs another; rounds alternate,
and the table gives medians. Torch (eager, also in channels_last) takes part when it can be
imported: `pip install torch==2.13.0`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

BATCH = 32
CONTENDERS = ("ours conv", "ours matmul", "ours split", "torch", "torch channels_last")


def images(size: int) -> np.ndarray:
  """[BATCH, size, size, 3] float32."""
  return np.random.default_rng(0).standard_normal((BATCH, size, size, 3), np.float32)


def ours(size: int, lowering: str) -> Callable[[], None]:
  """One training step of `mmcontrast`'s ResNet-50, compiled."""
  import jax
  import optax

  from mmcontrast.encoders import build_encoder

  model = build_encoder({"name": "resnet50", "lowering": lowering})
  batch = jax.numpy.asarray(images(size))
  optimizer = optax.adamw(1e-4, weight_decay=1e-2)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), batch, train=False))
  rng = np.random.default_rng(0)

  def initial(path, leaf):
    if len(leaf.shape) > 1:
      scale = np.float32(np.sqrt(2 / np.prod(leaf.shape[:-1])))
      return rng.standard_normal(leaf.shape, np.float32) * scale
    return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)

  variables = jax.tree.map_with_path(initial, shapes)

  def step(state, batch):
    params, stats, moments = state

    def loss(params):
      variables = {"params": params, "batch_stats": stats}
      out, new = model.apply(variables, batch, train=True, mutable=["batch_stats"])
      return (out.pooled**2).mean(), new["batch_stats"]

    grads, stats = jax.grad(loss, has_aux=True)(params)
    updates, moments = optimizer.update(grads, moments, params)
    return optax.apply_updates(params, updates), stats, moments

  step = jax.jit(step, donate_argnums=0)
  state = jax.tree.map(
    jax.numpy.asarray, (variables["params"], variables["batch_stats"], optimizer.init(variables["params"]))
  )

  def run():
    nonlocal state
    state = jax.block_until_ready(step(state, batch))

  return run


def peer(size: int, channels_last: bool) -> Callable[[], None]:
  """The same step in eager torch; torchvision's resnet50 without its classifier."""
  import torch
  from torch import nn

  torch.set_num_threads(len(os.sched_getaffinity(0)))

  def conv(inputs, outputs, size, stride=1):
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)

  class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride):
      super().__init__()
      self.conv1, self.bn1 = conv(inputs, width, 1), nn.BatchNorm2d(width)
      self.conv2, self.bn2 = conv(width, width, 3, stride), nn.BatchNorm2d(width)
      self.conv3, self.bn3 = conv(width, width * 4, 1), nn.BatchNorm2d(width * 4)
      self.relu, self.downsample = nn.ReLU(inplace=True), None
      if inputs != width * 4:
        self.downsample = nn.Sequential(conv(inputs, width * 4, 1, stride), nn.BatchNorm2d(width * 4))

    def forward(self, x):
      y = self.relu(self.bn1(self.conv1(x)))
      y = self.bn3(self.conv3(self.relu(self.bn2(self.conv2(y)))))
      return self.relu(y + (x if self.downsample is None else self.downsample(x)))

  layers = [conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
  inputs = 64
  for i, depth in enumerate((3, 4, 6, 3)):
    for j in range(depth):
      layers.append(Bottleneck(inputs, 64 * 2**i, 2 if i and not j else 1))
      inputs = 256 * 2**i
  model = nn.Sequential(*layers)
  batch = torch.from_numpy(images(size)).permute(0, 3, 1, 2).contiguous()
  if channels_last:
    model = model.to(memory_format=torch.channels_last)
    batch = batch.contiguous(memory_format=torch.channels_last)
  optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=1e-2)

  def run():
    optimizer.zero_grad()
    (model(batch).mean((2, 3)) ** 2).mean().backward()
    optimizer.step()

  return run


def serve(contender: str, size: int) -> None:
  """A contender's process: warm up, then for each line on stdin one timed step on stdout."""
  family, _, option = contender.partition(" ")
  run = ours(size, option) if family == "ours" else peer(size, bool(option))
  for _ in range(2):
    run()
  print("ready", flush=True)
  for _ in sys.stdin:
    start = time.perf_counter()
    run()
    print(time.perf_counter() - start, flush=True)


def measure(size: int, contenders: list[str], rounds: int) -> list[dict]:
  """Alternates timed steps of all contenders; one row each, ratio to eager torch included."""
  processes = {}
  for contender in contenders:  # one at a time, so that compilation meets a quiet machine
    command = [sys.executable, __file__, "--serve", contender, "--sizes", str(size)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes[contender] = subprocess.Popen(command, **pipes)
    if processes[contender].stdout.readline() != "ready\n":
      raise SystemExit(f"{contender} did not start; its error is above")
  seconds = {contender: [] for contender in contenders}
  for _ in range(rounds):
    for contender, process in processes.items():
      # Two steps a turn, the second timed: the first pays for caches the others filled.
      for keep in (False, True):
        process.stdin.write("\n")
        process.stdin.flush()
        taken = float(process.stdout.readline())
        if keep:
          seconds[contender].append(taken)
  for process in processes.values():
    process.stdin.close()
    process.wait()
  medians = {contender: statistics.median(s) for contender, s in seconds.items()}
  rows = []
  for contender in contenders:
    row = {"size_px": size, "contender": contender, "seconds": medians[contender]}
    row |= {"seconds_min": min(seconds[contender]), "seconds_max": max(seconds[contender])}
    row["images_per_second"] = BATCH / medians[contender]
    if "torch" in medians:
      row["ratio_to_torch"] = medians["torch"] / medians[contender]
      best = min(medians[c] for c in medians if c.startswith("torch"))
      row["ratio_to_best_torch"] = best / medians[contender]
    rows.append(row)
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--out", help="write the JSON here")
  parser.add_argument("--sizes", type=int, nargs="+", default=[64, 96], help="image sides, px")
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS)
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.serve:
    return serve(options.serve, options.sizes[0])
  contenders = list(options.contenders)
  if not importlib.util.find_spec("torch"):
    print("torch is not installed: our lowerings only")
    contenders = [c for c in contenders if not c.startswith("torch")]
  rows = [row for size in options.sizes for row in measure(size, contenders, options.rounds)]
  from record import record

  record(rows, options.out)


if __name__ == "__main__":
  here = pathlib.Path(__file__).resolve().parent
  sys.path[:0] = [str(here), str(here.parent)]
  os.environ["PYTHONPATH"] = os.pathsep.join([str(here.parent), os.environ.get("PYTHONPATH", "")])
  main()
