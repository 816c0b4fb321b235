"""What the matching head adds to retrieval: R@1 by the cosine, and with the nearest put in order by the head, alone and
with the cosine that drew its negatives (evaluation/retrieval.py, match_order).

    python benchmarks/reranking.py --method albef --seeds 0 1 2 --out docs/results/reranking.json

Trains the config with each seed as it is, unless --steps says otherwise, and evaluates it on the style that it was not
trained on (emoji_noto). A row a seed and direction; the last rows are means over seeds, with the standard deviation of
both differences. A run that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics

from absl import flags
from record import record

from mmcontrast.config import load_config
from mmcontrast.evaluate import evaluate_workdir
from mmcontrast.evaluation.retrieval import MATCH_ORDERS
from mmcontrast.train import train

SET = "emoji_noto"


def row(method: str, seed: int, steps: int | None, folder: pathlib.Path) -> list[dict]:
  """Both directions of one run."""
  words = [f"--config.seed={seed}", *([f"--config.steps={steps}"] if steps else [])]
  workdir = folder / f"{method}_{seed}_{steps or 'all'}"
  train(load_config(f"methods/{method}", words), workdir)
  rows = {way: {"method": method, "seed": seed, "way": way} for way in ("image_to_text", "text_to_image")}
  head = load_config(f"methods/{method}")["evaluation"]["evaluators"]["retrieval"]["match"]
  for order in MATCH_ORDERS:
    found = evaluate_workdir(workdir, overrides=[f"--config.evaluation.evaluators.retrieval.match_order={order}"])
    for way, one in rows.items():
      one["R@1"] = found[f"{SET}/{way}/recall@1"]
      one[order] = found[f"{SET}/{way}_by_{head}/recall@1"]
  return list(rows.values())


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
    ours = [one for one in rows if one["way"] == way]
    mean = {key: statistics.mean(one[key] for one in ours) for key in ("R@1", *MATCH_ORDERS)}
    for order in MATCH_ORDERS:
      gains = [one[order] - one["R@1"] for one in ours]
      spread = statistics.stdev(gains) if len(gains) > 1 else None
      mean |= {f"gain by {order}": statistics.mean(gains), f"sd by {order}": spread}
    rows.append({"method": options.method, "seed": "mean", "way": way, **mean})
  record(rows, options.out)


if __name__ == "__main__":
  main()
