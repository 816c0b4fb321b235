"""Embeddings a second beside open_clip and transformers on the same weights, in turns on one machine; and cold starts.

    python benchmarks/inference.py --out docs/results/inference.json

open_clip makes a ViT-B/32 of random weights and writes it; `mmcontrast import` makes a run of that, and `mmcontrast
export --to hf` what transformers loads. Ours gets uint8 images [N, 224, 224, 3], as `encode_image` hands them to the
device, and normalises them; the others get normalised floats, so that part of the work is not theirs. Of a text all
get the ids, [N, 77]; of a caption its words, by each package's own tokenizer and padding. All give unit rows, which are
compared: the table has the largest difference from open_clip's.

Each contender is a process of its own that waits for its turn. The table has medians of the rounds, and the median of
each round's ratio of speed, ours to each of the others'. A cold start is a fresh process from its first line to the
first embedding of one image: imports, weights, compilation. Ours twice: with an empty compilation cache, and again.

Needs what `make oracles` installs: .venv-oracles/bin/python benchmarks/inference.py
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
CONTENDERS = ("mmcontrast", "open_clip", "transformers")
CASES = [("image", 32), ("image", 1), ("text", 32), ("text", 1), ("caption", 32), ("caption", 1)]
SIZE, LENGTH, BEGIN, END = 224, 77, 49406, 49407
WORDS = (
  "a",
  "the",
  "of",
  "on",
  "with",
  "and",
  "two",
  "small",
  "red",
  "wooden",
  "dog",
  "child",
  "street",
  "table",
  "mountain",
  "river",
  "boat",
  "bicycle",
  "umbrella",
  "kitchen",
  "standing",
  "next",
  "to",
  "under",
  "photograph",
)
Encode = Callable[[str, int], np.ndarray]  # (kind, how many) -> unit rows


def inputs() -> dict[str, Any]:
  """Images uint8 [32, S, S, 3], ids int32 [32, 77] of texts of 3 to 75 words, and 32 captions of 5 to 20 words."""
  draw = np.random.default_rng(0)
  ids = draw.integers(1, BEGIN - 1, (32, LENGTH)).astype(np.int32)
  ids[:, 0] = BEGIN
  for row, length in zip(ids, draw.integers(4, LENGTH, 32)):
    row[length], row[length + 1 :] = END, 0
  captions = [" ".join(draw.choice(WORDS, count)) for count in draw.integers(5, 21, 32)]
  return {"image": draw.integers(0, 256, (32, SIZE, SIZE, 3)).astype(np.uint8), "text": ids, "caption": captions}


def prepare(folder: pathlib.Path, model: str, names: list[str]) -> None:
  """The weights, for each contender of `names`, in `folder`."""
  import open_clip
  import torch
  from safetensors.torch import save_file

  from mmcontrast.interop.run import export_run, import_run

  torch.manual_seed(0)
  made = open_clip.create_model(model, pretrained=None)
  (folder / "open_clip").mkdir()
  save_file(
    {name: leaf.contiguous() for name, leaf in made.state_dict().items()},
    folder / "open_clip" / "open_clip_model.safetensors",
  )
  (folder / "open_clip" / "open_clip_config.json").write_text(
    json.dumps({"model_cfg": open_clip.get_model_config(model), "preprocess_cfg": made.visual.preprocess_cfg})
  )
  import_run(f"open_clip:{folder / 'open_clip'}", folder / "mmcontrast")
  if "transformers" in names:
    export_run(folder / "mmcontrast", "hf", folder / "transformers")


def ours(folder: pathlib.Path) -> Encode:
  """The run, by `mmcontrast.load`."""
  import mmcontrast

  model, given = mmcontrast.load(folder / "mmcontrast"), inputs()

  def encode(kind: str, count: int) -> np.ndarray:
    values = given[kind][:count]
    return model.encode_text(values) if kind == "caption" else model.embed(kind, values)

  return encode


def by_open_clip(folder: pathlib.Path) -> Encode:
  """open_clip's model, eager."""
  import open_clip
  import torch

  model, tokenizer = open_clip.create_model(f"local-dir:{folder / 'open_clip'}").eval(), open_clip.SimpleTokenizer()
  given = tensors()

  def encode(kind: str, count: int) -> np.ndarray:
    with torch.inference_mode():
      function, values = model.encode_image if kind == "image" else model.encode_text, given[kind][:count]
      return function(tokenizer(values) if kind == "caption" else values, normalize=True).numpy()

  return encode


def by_transformers(folder: pathlib.Path) -> Encode:
  """transformers' CLIPModel, eager, with the attention that it chooses."""
  import torch
  from transformers import AutoTokenizer, CLIPModel

  model, tokenizer = (one.from_pretrained(folder / "transformers") for one in (CLIPModel, AutoTokenizer))
  model.eval()
  given = tensors()

  def encode(kind: str, count: int) -> np.ndarray:
    values = given[kind][:count]
    with torch.inference_mode():
      if kind == "image":
        found = model.get_image_features(pixel_values=values)
      else:
        found = model.get_text_features(
          **(tokenizer(values, padding=True, return_tensors="pt") if kind == "caption" else {"input_ids": values})
        )
      rows = getattr(found, "pooler_output", found)
      return (rows / rows.norm(dim=-1, keepdim=True)).numpy()

  return encode


def tensors() -> dict:
  """`inputs` as torch's models take them."""
  import open_clip
  import torch

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  mean, std = (
    torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
  )
  given = inputs()
  images = torch.from_numpy(given["image"]).permute(0, 3, 1, 2).float() / 255
  return {**given, "image": ((images - mean) / std).contiguous(), "text": torch.from_numpy(given["text"]).long()}


BY_NAME = dict(zip(CONTENDERS, (ours, by_open_clip, by_transformers)))


def serve(name: str, folder: pathlib.Path) -> None:
  """A contender's process: for each line "kind count" on stdin, rows in a file and seconds on stdout."""
  encode = BY_NAME[name](folder)
  print("ready", flush=True)
  for line in sys.stdin:
    kind, count = line.split()
    wall, processor = time.perf_counter(), time.process_time()
    rows = encode(kind, int(count))
    taken = time.perf_counter() - wall, time.process_time() - processor
    np.save(folder / f"{name}.{kind}.{count}.npy", rows)
    print(*taken, flush=True)


class Contender:
  """A process that encodes when asked."""

  def __init__(self, name: str, folder: pathlib.Path):
    """Starts it."""
    self.name = name
    self._process = subprocess.Popen(
      words(folder, "--serve", name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    while (line := self._process.stdout.readline()) != "ready\n":
      if not line:
        raise RuntimeError(f"{name}: did not start; its error is above")

  def turn(self, kind: str, count: int) -> tuple[float, float]:
    """(seconds, processor seconds) of one batch, after one that is not timed, which pays for caches others filled."""
    for _ in range(2):
      self._process.stdin.write(f"{kind} {count}\n")
      self._process.stdin.flush()
      found = self._process.stdout.readline()
    wall, processor = map(float, found.split())
    return wall, processor

  def end(self) -> None:
    """Ends the process."""
    self._process.stdin.close()
    self._process.wait()


def words(folder: pathlib.Path, *more: str) -> list[str]:
  """The command of a process of this script."""
  return [sys.executable, __file__, "--folder", str(folder), *more]


def speeds(folder: pathlib.Path, names: list[str], rounds: int) -> list[dict]:
  """A row for each case and contender."""
  contenders, rows = [Contender(name, folder) for name in names], []
  for kind, count in CASES:
    times = {one.name: [] for one in contenders}
    for _ in range(rounds if count > 1 else 4 * rounds):
      for one in contenders:
        times[one.name].append(one.turn(kind, count))
    found = {name: np.load(folder / f"{name}.{kind}.{count}.npy") for name in names}
    reference = found.get("open_clip", found[names[0]])
    for name in names:
      row = {
        "case": f"{kind} x {count}",
        "contender": name,
        "a second": count / statistics.median(wall for wall, _ in times[name]),
        "processor_s": statistics.median(processor for _, processor in times[name]),
        "difference": float(np.abs(found[name] - reference).max()),
      }
      for other in names if name == names[0] else ():
        ratios = [theirs / own for (own, _), (theirs, _) in zip(times[name], times[other])]
        row |= {f"times {other}": statistics.median(ratios)} if other != name else {}
      rows.append(row)
  for one in contenders:
    one.end()
  return rows


def cold_starts(folder: pathlib.Path, names: list[str], rounds: int) -> list[dict]:
  """A row for each contender: seconds of a fresh process to the first embedding; files are in the page cache."""
  rows = []
  for name in names:
    for label in ("empty cache", "again") if name == "mmcontrast" else ("",):
      seconds = []
      for number in range(rounds):
        cache = folder / (f"cache-{number}" if label == "empty cache" else "cache-0")
        env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
        started = time.perf_counter()
        subprocess.run(words(folder, "--first", name), check=True, env=env, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - started)
      rows.append({"case": "cold start", "contender": f"{name} {label}".strip(), "seconds": statistics.median(seconds)})
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--model", default="ViT-B-32", help="open_clip's name")
  parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
  parser.add_argument("--rounds", type=int, default=5, help="four times as many for one at a time")
  parser.add_argument("--out", help="the JSON to write")
  for name in ("--serve", "--first", "--prepare", "--folder"):
    parser.add_argument(name, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.serve or options.first or options.prepare:
    if options.prepare or (options.serve or options.first) != "mmcontrast":
      import torchvision_ops  # noqa: F401
    folder = pathlib.Path(options.folder)
    if options.prepare:
      return prepare(folder, options.prepare, options.contenders)
    if options.first:
      return print(BY_NAME[options.first](folder)("image", 1).shape)
    return serve(options.serve, folder)
  from record import record, table

  with tempfile.TemporaryDirectory() as scratch:
    folder = pathlib.Path(scratch)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "cache")
    subprocess.run(words(folder, "--prepare", options.model, "--contenders", *options.contenders), check=True)
    rows = speeds(folder, options.contenders, options.rounds)
    print(table(rows), flush=True)  # cold starts take minutes
    rows += cold_starts(folder, options.contenders, 3)
  record(rows, options.out)


if __name__ == "__main__":
  places = [str(HERE), str(HERE.parent), str(HERE.parent / "tests" / "oracles")]
  sys.path[:0] = places
  os.environ["PYTHONPATH"] = os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])
  os.environ["HF_HUB_OFFLINE"] = "1"
  main()
