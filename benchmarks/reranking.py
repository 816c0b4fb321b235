"""What the matching head adds to retrieval: R@1 by the cosine, and with the nearest put in order by matching.

    python benchmarks/reranking.py --method albef --seeds 0 1 2 --out docs/results/reranking.json

Trains the config with each seed as it is, unless --steps says otherwise, and evaluates it on the style that it was not
trained on (emoji_noto). A row a seed and direction; the last rows are means over seeds, with the standard deviation of
the difference. A run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics

from absl import flags
from record import record

from mmcontrast.config import load_config
from mmcontrast.evaluate import evaluate_workdir
from mmcontrast.train import train

SET = "emoji_noto"


def row(method: str, seed: int, steps: int | None, folder: pathlib.Path) -> list[dict]:
  """Both directions of one run."""
  words = [f"--config.seed={seed}", *([f"--config.steps={steps}"] if steps else [])]
  workdir = folder / f"{method}_{seed}_{steps or 'all'}"
  train(load_config(f"methods/{method}", words), workdir)
  found = evaluate_workdir(workdir)
  head = load_config(f"methods/{method}")["evaluation"]["evaluators"]["retrieval"]["match"]
  rows = []
  for way in ("image_to_text", "text_to_image"):
    before, after = (found[f"{SET}/{way}{task}/recall@1"] for task in ("", f"_by_{head}"))
    rows.append({"method": method, "seed": seed, "way": way, "R@1": before, "R@1 by matching": after})
  return rows


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--method", default="albef", help="a config of methods/ that evaluates with a matching head")
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--steps", type=int)
  parser.add_argument("--folder", default="runs/reranking", help="where the runs are")
  parser.add_argument("--out")
  options = parser.parse_args()
  flags.FLAGS.mark_as_parsed()  # grain reads absl flags
  rows = [
    one for seed in options.seeds for one in row(options.method, seed, options.steps, pathlib.Path(options.folder))
  ]
  for way in dict.fromkeys(one["way"] for one in rows):
    pairs = [(one["R@1"], one["R@1 by matching"]) for one in rows if one["way"] == way]
    gains = [after - before for before, after in pairs]
    before, after = (statistics.mean(column) for column in zip(*pairs))
    spread = statistics.stdev(gains) if len(gains) > 1 else None
    rows.append({"method": options.method, "seed": "mean", "way": way, "R@1": before, "R@1 by matching": after,
                 "gain": after - before, "of gain": spread})  # fmt: skip
  record(rows, options.out)


if __name__ == "__main__":
  main()
