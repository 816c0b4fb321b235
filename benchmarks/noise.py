"""`pc2` beside `clip` where a share of the captions is another image's: PC2's protocol, on emoji_views.

    python benchmarks/noise.py --steps 600 --out docs/results/noise.json

Captions are shuffled once, by the seed, at 20, 40 and 60 % (PC2, arXiv:2408.01349, does so on Flickr30k, COCO and
CC152K); both see the same noise. Runs are --steps long (the quickstart: 1,800), schedules in the proportion of their
own but for pc2's, which counts epochs (8 of warm-up), with the quickstart's towers and batch; per cent on Noto's
drawings, a style never trained on, by true names. Finished runs in --workdir are reused.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from methods import run
from record import record

COLUMNS = ("i2t R@1", "i2t R@10", "t2i R@1")


def measured(method: str, noise: float, options: argparse.Namespace, seed: int) -> dict[str, float]:
  """In a process apart, so that no run holds the memory of another."""
  workdir = options.workdir / f"{method}-{round(100 * noise)}-{options.steps}-{seed}"
  row = workdir / "row.json"
  if not row.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    print(f"{method}, {100 * noise:.0f} % shuffled, seed {seed}", flush=True)
    command = [sys.executable, __file__, "--one", method, "--noise", str(noise), "--steps", str(options.steps)]
    with (workdir / "log.txt").open("w") as log:
      words = [*command, "--one_seed", str(seed), "--workdir", str(workdir)]
      subprocess.run(words, check=True, stdout=log, stderr=log)
  return json.loads(row.read_text())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--methods", nargs="+", default=["clip", "pc2"])
  parser.add_argument("--noise", nargs="+", type=float, default=[0.2, 0.4, 0.6], help="shares of shuffled captions")
  parser.add_argument("--steps", type=int, default=600)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/noise"))
  parser.add_argument("--out")
  parser.add_argument("--one", help=argparse.SUPPRESS)
  parser.add_argument("--one_seed", type=int, default=0, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    overrides = [f"--config.data.shuffled_captions.share={options.noise[0]}"]
    row = run(options.one, options.steps, options.one_seed, options.workdir, overrides)
    (options.workdir / "row.json").write_text(json.dumps(row) + "\n")
    return
  rows = []
  for noise in options.noise:
    for method in options.methods:
      seeds = [measured(method, noise, options, seed) for seed in range(options.seeds)]
      row = {"method": method, "shuffled": f"{100 * noise:.0f} %", "steps": options.steps, "seeds": len(seeds)}
      for label in COLUMNS:
        values = [one[label] for one in seeds]
        row[label] = round(statistics.mean(values), 1)
        row[f"{label} sd"] = round(statistics.stdev(values), 1) if len(values) > 1 else None
      rows.append(row)
  record(rows, options.out)


if __name__ == "__main__":
  main()
