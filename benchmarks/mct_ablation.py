"""Which of MCT's terms help? The same run with some of them switched off, over several seeds.

    python benchmarks/mct_ablation.py --steps 300 --seeds 3 --parallel 2 --out docs/results/mct_ablation.json

Every variant has the quickstart's towers, batch and schedule, shorter and at --image_size; an absent
term is not computed. All numbers are on the unseen style (emoji_noto), of the last checkpoint. A variant
without inter-modal terms has no joint space, so no retrieval. Finished runs in --workdir are reused.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import sys

from record import record

INTRA, INTER = ("image_image", "text_text"), ("image_to_text", "text_to_image")
VARIANTS = {
  "inter only (CLIP's)": INTER,
  "intra only (MoCo v2's)": INTRA,
  "inter + intra": INTER + INTRA,
  "all five (with tags)": (*INTER, *INTRA, "image_tags"),
}
METRICS = {
  "i2t R@1": "emoji_noto/image_to_text/recall@1",
  "i2t R@10": "emoji_noto/image_to_text/recall@10",
  "t2i R@1": "emoji_noto/text_to_image/recall@1",
  "kNN concept": "emoji_noto/knn/concept_accuracy",
  "kNN subgroup": "emoji_noto/knn/subgroup_accuracy",
  "probe group": "emoji_noto/linear_probe/group_accuracy",
}
CONFIG = '''"""Made by benchmarks/mct_ablation.py."""
from mmcontrast.configs import quickstart

def get_config(arg=None):
  c = quickstart.get_config()
  c.seed, c.steps, c.data.image_size = {seed}, {steps}, {size}
  for name in [name for name in c.objective if name not in {terms!r}]:
    del c.objective[name]
  used = [term[side] for term in c.objective.values() for side in ("query", "key")]
  for head in [head for head in c.heads if not any("/" + head in path for path in used)]:
    del c.heads[head]
  joint = "image_joint" in c.heads
  if not joint:
    c.evaluation.update(image="", text="")
  measured = ("retrieval",) * joint + ("knn", "linear_probe")
  for name in [name for name in c.evaluation.evaluators if name not in measured]:
    del c.evaluation.evaluators[name]
  return c
'''


def run(name: str, seed: int, steps: int, size: int, folder: pathlib.Path) -> dict[str, float]:
  """Trains and evaluates one variant with one seed, unless that is done; its evaluation.json."""
  workdir = folder / f"{'-'.join(w for w in name.split() if w.isalpha())}-{steps}-{size}-{seed}"
  results = workdir / "evaluation.json"
  if not results.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    config = workdir / "config_of_run.py"
    config.write_text(CONFIG.format(seed=seed, steps=steps, size=size, terms=VARIANTS[name]))
    program = [sys.executable, "-m", "mmcontrast"]
    print(f"seed {seed}: {name}", flush=True)
    for command in (
      ["train", "--config", str(config), "--workdir", str(workdir)],
      ["evaluate", "--workdir", str(workdir)],
    ):
      subprocess.run(program + command, check=True, stdout=subprocess.DEVNULL)
  return json.loads(results.read_text())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--seeds", type=int, default=3)
  parser.add_argument("--image_size", type=int, default=32)
  parser.add_argument("--parallel", type=int, default=1, help="runs at the same time")
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/mct_ablation"))
  parser.add_argument("--out")
  options = parser.parse_args()
  with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
    runs = {
      (name, seed): pool.submit(run, name, seed, options.steps, options.image_size, options.workdir)
      for seed in range(options.seeds)
      for name in VARIANTS
    }
    found = {name: [runs[name, seed].result() for seed in range(options.seeds)] for name in VARIANTS}
  rows = []
  for name, results in found.items():
    row = {"variant": name, "steps": options.steps, "image_size": options.image_size, "seeds": options.seeds}
    for label, key in METRICS.items():
      values = [100 * result[key] for result in results if key in result]
      row[label] = round(statistics.mean(values), 1) if values else None
      row[f"{label} sd"] = round(statistics.stdev(values), 1) if len(values) > 1 else None
    rows.append(row)
  record(rows, options.out)


if __name__ == "__main__":
  main()
