"""Images a second of a full CLIP training step beside open_clip's, in turns on one machine.

    python benchmarks/train_step.py --out docs/results/train_step.json          # CPU: float32, batch 32
    python benchmarks/train_step.py --gpu --cases vit_b_16 --out docs/results/train_step_gpu.json

A step is both towers, the softmax over the batch with a learned temperature, all gradients and AdamW, of a batch that
is in memory. Ours is the train step of a config, as `mmcontrast train` runs it; theirs is open_clip's model, `ClipLoss`
and AdamW as its training script makes them, eager and through `torch.compile`. The models are the same function with
the same number of parameters. The ResNet-50 alone is `conv_lowering.py`'s: no text, a mean of squares for a loss.

Each contender is a process of its own that waits for its turn, so that no thread pool disturbs another. On a CPU rounds
alternate; the table has the median of the rounds, and the median of each round's ratio to eager torch and to the faster
torch ("torch.compile" of the ResNet-50 alone is eager torch in channels_last). On a GPU each contender runs alone, in
bfloat16, with the largest power of two of examples that fits, and the table has its MFU (mmcontrast/cost/flops.py);
that was never run.

Needs what `make oracles` installs: .venv-oracles/bin/python benchmarks/train_step.py
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
VOCABULARY, LENGTH, END = 49408, 77, 49407  # of CLIP's tokenizer
# case -> side of the images, open_clip's name, our image tower, width of the joint space; None: a ResNet-50 alone
CASES = {
  "vit_b_32": (
    224,
    "ViT-B-32",
    dict(name="vit_base", patch=32, pool="cls", pre_norm=True, patch_bias=False, activation="gelu", norm_epsilon=1e-5),
    512,
  ),
  "vit_b_16": (
    224,
    "ViT-B-16",
    dict(name="vit_base", patch=16, pool="cls", pre_norm=True, patch_bias=False, activation="gelu", norm_epsilon=1e-5),
    512,
  ),
  "rn50": (96, "RN50", dict(name="clip_resnet50"), 1024),
  "resnet50_64": (64, None, None, None),
  "resnet50_96": (96, None, None, None),
}
OURS, EAGER, COMPILED = "ours", "torch", "torch.compile"
ON_CPU = ("vit_b_32", "rn50", "resnet50_64", "resnet50_96")


def batch_of(size: int, side: int) -> dict[str, np.ndarray]:
  """`size` images [N, side, side, 3] uint8 and texts [N, 77] int32 that fill their length."""
  draw = np.random.default_rng(0)
  text = draw.integers(1, VOCABULARY - 2, (size, LENGTH)).astype(np.int32)
  text[:, -1] = END
  return {"image": draw.integers(0, 256, (size, side, side, 3)).astype(np.uint8), "text": text}


def our_config(case: str, size: int, dtype: str) -> dict:
  """The resolved config of a case."""
  from mmcontrast.config import base_config

  side, _, image, dim = CASES[case]
  c = base_config()
  c.batch.size = size
  c.data.update(
    image_size=side, text_length=LENGTH, views=dict(image=1, text=1), token_ids=dict(pad=0, bos=END - 1, eos=END)
  )
  c.augment = dict(image="none")
  c.towers = dict(
    image=dict(image, dtype=dtype),
    text=dict(
      name="text_transformer", width=512, depth=12, heads=8, causal=True, pool="eos", activation="gelu", dtype=dtype
    ),
  )
  biased = image["name"].startswith("clip_resnet")  # its head is the end of CLIP's attention pool
  c.heads = dict(
    image_joint=dict(tower="image", name="linear", dim=dim, bias=biased, dtype=dtype),
    text_joint=dict(tower="text", name="linear", dim=dim, dtype=dtype),
  )
  c.objective = dict(
    image_text=dict(
      query="image[0]/image_joint",
      key="text[0]/text_joint",
      direction="both",
      temperature=dict(init=0.07, learned=True, min=0.01, clamp="after_step"),
    )
  )
  c.optimizer = dict(name="adamw", learning_rate=5e-4, b1=0.9, b2=0.98, eps=1e-6, weight_decay=0.2)
  return c.to_dict()


def ours(case: str, size: int, dtype: str) -> tuple[Callable[[], None], dict]:
  """A function that takes a step and waits for it; parameters and the operations of one example."""
  import jax

  from mmcontrast.cost.flops import forward_flops
  from mmcontrast.data.pipeline import Spec
  from mmcontrast.parallel import sharding
  from mmcontrast.training.program import build_program, shapes_of, view_shapes

  config = our_config(case, size, dtype)
  made = batch_of(size, CASES[case][0])
  numbers = np.arange(size, dtype=np.int32)
  batch = {
    "image": made["image"][:, None],
    "text": made["text"][:, None],
    "id": numbers,
    "index": numbers,
    "seed": numbers.astype(np.uint32),
    "mirror_safe": np.zeros(size, bool),
    "valid": np.ones(size, bool),
  }
  spec = Spec(
    examples=10**6,
    steps_per_epoch=10**4,
    tag_names=(),
    label_names={},
    styles=(),
    vocab_size=VOCABULARY,
    batch={name: (leaf.shape, leaf.dtype) for name, leaf in batch.items()},
  )
  mesh = sharding.make_mesh({"data": -1})
  program = build_program(config, spec, mesh)
  parameters = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(program.state.params))
  model, heads = program.method.model, ("image[0]/image_joint", "text[0]/text_joint")

  def encode(variables, views):
    return model.embed(variables, views, heads, train=False)[0]

  views = view_shapes(program.method.preparations, shapes_of(spec, 1))
  flops = forward_flops(encode, {"params": program.state.params, "batch_stats": program.state.batch_stats}, views)
  assert shapes_of(spec)["image"].shape == batch["image"].shape
  draw = np.random.default_rng(0)

  def initial(path, leaf):  # as large as at the start of a training, without compiling how it is drawn
    if np.issubdtype(leaf.dtype, np.floating) and len(leaf.shape) > 1 and path[0].name == "params":
      return draw.standard_normal(leaf.shape, np.float32) * np.float32(0.02)
    return np.full(leaf.shape, getattr(path[-1], "key", "") in ("scale", "var"), leaf.dtype)

  state = jax.device_put(
    jax.tree_util.tree_map_with_path(initial, program.state), jax.tree.map(lambda leaf: leaf.sharding, program.state)
  )
  batch = sharding.put_batch(batch, mesh)
  states = [state]

  def run() -> None:
    new, metrics = program.step(states.pop(), batch)
    jax.block_until_ready((new, metrics))
    assert np.isfinite(metrics["loss"])
    states.append(new)

  return run, {"parameters": parameters, "flops": flops}


def theirs(case: str, size: int, dtype: str, compiled: bool) -> tuple[Callable[[], None], dict]:
  """The same of open_clip: model, loss and optimizer as `open_clip_train` makes them."""
  sys.path.insert(0, str(HERE.parent / "tests" / "oracles"))
  import torch
  import torchvision_ops  # noqa: F401

  side, name, *_ = CASES[case]
  import open_clip

  device = "cpu" if dtype == "float32" else "cuda"
  if device == "cpu":
    torch.set_num_threads(len(os.sched_getaffinity(0)))
  model = open_clip.create_model(name, force_image_size=side, device=device, output_dict=True)
  parameters = sum(p.numel() for p in model.parameters())
  spared = [p for n, p in model.named_parameters() if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n]
  decayed = [p for p in model.parameters() if all(p is not other for other in spared)]
  optimizer = torch.optim.AdamW(
    [{"params": spared, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.2}],
    lr=5e-4,
    betas=(0.9, 0.98),
    eps=1e-6,
  )
  loss = open_clip.ClipLoss()
  made = batch_of(size, side)
  images = (torch.from_numpy(made["image"]).permute(0, 3, 1, 2).contiguous().float() / 255).to(device)
  texts = torch.from_numpy(made["text"]).long().to(device)
  model.train()
  forward = torch.compile(model) if compiled else model

  def run() -> None:
    optimizer.zero_grad()
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
      value = loss(**forward(images, texts))
    value.backward()
    optimizer.step()
    with torch.no_grad():
      model.logit_scale.clamp_(0, np.log(100))
    assert np.isfinite(value.item())

  return run, {"parameters": parameters}


def resnet(contender: str, side: int) -> tuple[Callable[[], None], dict]:
  """A ResNet-50 alone: ours, or torch's eager in the memory format that is faster."""
  import conv_lowering

  return (conv_lowering.ours(side, "auto") if contender == OURS else conv_lowering.peer(side, contender != EAGER)), {}


def serve(case: str, contender: str, size: int, dtype: str) -> None:
  """A contender's process: warm up, then for each line on stdin a timed step on stdout."""
  if CASES[case][1] is None:
    run, known = resnet(contender, CASES[case][0])
  elif contender == OURS:
    run, known = ours(case, size, dtype)
  else:
    run, known = theirs(case, size, dtype, contender == COMPILED)
  run()
  print(json.dumps(known), flush=True)
  for _ in sys.stdin:
    wall, processor = time.perf_counter(), time.process_time()
    run()
    print(time.perf_counter() - wall, time.process_time() - processor, flush=True)


class Contender:
  """A process that takes a step when asked."""

  def __init__(self, case: str, name: str, size: int, dtype: str):
    """Starts it."""
    self.case, self.name, self.size = case, name, size
    words = [sys.executable, __file__, "--serve", name, "--cases", case, "--batch", str(size), "--dtype", dtype]
    self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    self.known: dict = {}
    self.seconds: list[float] = []
    self.processor: list[float] = []

  def ready(self) -> bool:
    """Waits for its first step; False where that fails."""
    line = self._process.stdout.readline()
    if not line.startswith("{"):
      print(f"{self.case}, {self.name}, batch {self.size}: did not start; its error is above", flush=True)
      return False
    self.known = json.loads(line)
    return True

  def turn(self, warm: bool) -> None:
    """A timed step; `warm`: after one that is not, which pays for caches that others filled."""
    for timed in (False, True) if warm else (True,):
      self._process.stdin.write("\n")
      self._process.stdin.flush()
      wall, processor = map(float, self._process.stdout.readline().split())
      if timed:
        self.seconds.append(wall)
        self.processor.append(processor)

  def end(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


def largest(case: str, name: str, size: int, dtype: str) -> Contender | None:
  """The contender with the largest power of two from `size` on that fits; None where `size` does not."""
  fits = 0
  while (contender := Contender(case, name, size, dtype)).ready():
    contender.end()
    fits, size = size, size * 2
  contender = Contender(case, name, fits, dtype) if fits else None
  return contender if contender and contender.ready() else None


def measure(case: str, names: list[str], rounds: int, size: int, gpu: bool) -> list[dict]:
  """Rows of one case."""
  dtype = "bfloat16" if gpu else "float32"
  if gpu:  # one after the other: each wants all of the memory
    contenders = []
    for name in names:
      if contender := largest(case, name, size, dtype):
        for _ in range(rounds):
          contender.turn(warm=False)
        contender.end()
        contenders.append(contender)
  else:
    started = [Contender(case, name, size, dtype) for name in names]
    contenders = [contender for contender in started if contender.ready()]
    for _ in range(rounds):
      for contender in contenders:
        contender.turn(warm=CASES[case][1] is None)
    for contender in contenders:
      contender.end()
  return [row(case, contender, contenders, gpu) for contender in contenders]


def row(case: str, contender: Contender, contenders: list[Contender], gpu: bool) -> dict:
  """What a contender reached, and the rounds' ratios of images a second to those of the fastest of the others."""
  rate = contender.size / statistics.median(contender.seconds)
  found = {
    "case": case,
    "px": CASES[case][0],
    "contender": contender.name,
    "batch": contender.size,
    "seconds": statistics.median(contender.seconds),
    "images/s": rate,
    "processor_s": statistics.median(contender.processor),
    "parameters": contender.known.get("parameters"),
  }
  others = [other for other in contenders if other.name != OURS]
  if contender.name == OURS and others:
    best = min(others, key=lambda other: statistics.median(other.seconds) / other.size)
    for label, other in (("eager", next((o for o in others if o.name == EAGER), None)), ("best", best)):
      if other is not None:
        ratios = [a / other.size / (b / contender.size) for a, b in zip(other.seconds, contender.seconds)]
        found |= {f"times_{label}": statistics.median(ratios), f"rounds_{label}": [round(r, 3) for r in ratios]}
  if gpu and contender.name == OURS:
    import jax

    from mmcontrast.cost.flops import PEAK_BFLOAT16, utilisation

    kind = jax.devices()[0].device_kind
    peak = next((value for name, value in PEAK_BFLOAT16.items() if name in kind), None)
    found["MFU"] = peak and utilisation(contender.known["flops"], rate, peak)
  return found


def page(content: dict) -> str:
  """docs/results/train_step.md from the JSON: what was measured, on what, by which command."""
  lines = [
    "# A training step compared with open_clip",
    "",
    f"{content['device']}; " + ", ".join(f"{name} {version}" for name, version in content["versions"].items()),
    "",
    f"    {content['command']}",
    "",
    "Written by that script, whose docstring says what a step is. Medians of the rounds; `times` are medians of each "
    "round's ratio of images a second, ours to eager torch's and to the faster torch's.",
    "",
    "| case | px | contender | batch | s a step | images/s | processor s | times eager | times best |",
    "|---|---|---|---|---|---|---|---|---|",
  ]
  for one in content["rows"]:
    numbers = [one["seconds"], one["images/s"], one["processor_s"], one.get("times_eager"), one.get("times_best")]
    cells = [str(one[key]) for key in ("case", "px", "contender", "batch")]
    lines.append("| " + " | ".join(cells + ["" if n is None else f"{n:.3g}" for n in numbers]) + " |")
  return "\n".join(lines) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--cases", nargs="+", default=ON_CPU, choices=list(CASES))
  parser.add_argument("--contenders", nargs="+", default=[OURS, EAGER, COMPILED], choices=[OURS, EAGER, COMPILED])
  parser.add_argument("--rounds", type=int, default=3, help="twice as many for a ResNet-50 alone")
  parser.add_argument("--batch", type=int, default=32, help="examples; on a GPU the least that is tried")
  parser.add_argument("--gpu", action="store_true")
  parser.add_argument("--out", help="the JSON to write; a page of the same name beside it")
  parser.add_argument("--dtype", default="float32", help=argparse.SUPPRESS)
  parser.add_argument("--serve", help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.serve:
    return serve(options.cases[0], options.serve, options.batch, options.dtype)
  if options.gpu:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # this process, too, opens the device
  from record import record

  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/mmcontrast/compiled"))
  rows = []
  for case in options.cases:
    rounds = options.rounds * (2 if CASES[case][1] is None else 1)
    rows += measure(case, list(options.contenders), rounds, options.batch, options.gpu)
  record(rows, options.out)
  if options.out:
    out = pathlib.Path(options.out)
    out.with_suffix(".md").write_text(page(json.loads(out.read_text())))


if __name__ == "__main__":
  sys.path[:0] = [str(HERE), str(HERE.parent)]
  os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
  main()
