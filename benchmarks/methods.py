"""Every method with a joint space, at equal steps and towers: retrieval in a style never trained on, and probes.

    python benchmarks/methods.py --steps 300 --seeds 1 --parallel 2 --out docs/results/methods.json
    python benchmarks/methods.py --methods clip siglip
    python benchmarks/methods.py --baselines --seeds 3 --out docs/results/methods_baselines.json

The configs "methods/..." of the package whose last stage has a joint space, --steps steps long (stages, and schedules
given in steps, in the proportion of their own). Numbers are per cent on emoji_noto, of the last checkpoint, by the
config's own evaluation; what a step costs, step_times.py measures. With --parallel every run has one core of its own.
Finished runs in --workdir are reused. Rows are sorted by image-to-text R@1.

With --baselines nothing is trained: the rows are those that the others stand on. "untrained": clip's towers and heads
with initial weights. "raw pixels": the images averaged to 16 x 16, for k-NN and probe. "chance": retrieval by drawing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import queue
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from record import record

from mmcontrast.config.config_files import shipped

METHODS = [name.removeprefix("methods/") for name in shipped() if name.startswith("methods/")]
METRICS = {
  "i2t R@1": "emoji_noto/image_to_text/recall@1",
  "i2t R@10": "emoji_noto/image_to_text/recall@10",
  "t2i R@1": "emoji_noto/text_to_image/recall@1",
  "kNN concept": "emoji_noto/knn/concept_accuracy",
  "probe group": "emoji_noto/linear_probe/group_accuracy",
}
EVALUATORS = ("retrieval", "knn", "linear_probe")
REPORT_EVERY = 25  # steps


def config_of(method: str, steps: int = 0, seed: int = 0, overrides: Sequence[str] = ()) -> dict[str, Any]:
  """The resolved config, `steps` steps long over all stages (0: as it is); `overrides` as of `load_config`."""
  from mmcontrast.config import load_config, stages

  config = load_config(method, overrides)
  runs = stages.resolve(config)
  whole = sum(run["steps"] for run in runs.values())
  share = steps / whole if steps else 1.0
  stages_now = [{**stage, **_shortened(run, share)} for stage, run in zip(config["stages"], runs.values())]
  log = {**config["log"], "every_steps": REPORT_EVERY}
  return config | _shortened(config, share) | {"seed": seed, "stages": tuple(stages_now), "log": log}


def _shortened(config: dict[str, Any], share: float) -> dict[str, Any]:
  """The sections that change in a run of `share` times the steps."""
  evaluators = {k: options for k, options in config["evaluation"]["evaluators"].items() if k in EVALUATORS}
  return {
    **{key: _scaled(config[key], share, key) for key in ("steps", "optimizer", "momentum", "objective")},
    "evaluation": {**config["evaluation"], "evaluators": evaluators},
  }


def _scaled(value: Any, share: float, key: str = "") -> Any:
  """`value` with every number of steps in it multiplied by `share`."""
  if isinstance(value, dict):
    return {name: _scaled(item, share, name) for name, item in value.items()}
  if isinstance(value, int) and (key == "steps" or key.endswith("_steps")):
    return max(1, round(share * value))
  return value


def has_joint_space(method: str) -> bool:
  """Whether what the method ends with can be searched."""
  from mmcontrast.config import stages

  *_, last = stages.resolve(config_of(method)).values()
  return bool(last["evaluation"]["image"] and last["evaluation"]["text"])


def run(
  method: str, steps: int, seed: int, workdir: pathlib.Path, overrides: Sequence[str] = ()
) -> dict[str, float | None]:
  """Trains and evaluates; {column: per cent}."""
  from mmcontrast.evaluate import evaluate_workdir
  from mmcontrast.train import train

  config = config_of(method, steps, seed, overrides)
  train(config, workdir)
  with contextlib.redirect_stdout(sys.stderr):
    results = evaluate_workdir(workdir)
  return {label: round(100 * results[key], 1) if key in results else None for label, key in METRICS.items()}


def without_training(seeds: int) -> list[dict[str, Any]]:
  """The rows of initial weights, of raw pixels and of chance."""
  from mmcontrast.evaluate import evaluate_model
  from mmcontrast.inference import Inference, load_tokenizer
  from mmcontrast.models.model import build_model

  config = config_of("clip")
  for name in ("knn", "linear_probe"):
    config["evaluation"]["evaluators"][name]["baselines"] = ("pixels",)
  tokenizer = load_tokenizer(config)
  model = Inference(config, build_model(config, tokenizer.vocab_size), {}, tokenizer)
  found = [evaluate_model(model.untrained(seed), config) for seed in range(seeds)]
  untrained, pixels, chance = ({"method": name} for name in ("untrained", "raw pixels", "chance"))
  for label, key in METRICS.items():
    values = [100 * one[key] for one in found]
    untrained |= {label: round(statistics.mean(values), 2),
                  f"{label} sd": round(statistics.stdev(values), 2) if seeds > 1 else None}  # fmt: skip
    dataset, task, metric = key.split("/")
    of_pixels = found[0].get(f"{dataset}/{task}_of_pixels/{metric}")
    pixels[label] = None if of_pixels is None else round(100 * of_pixels, 2)
    recalled = metric.partition("recall@")[2]
    candidates = found[0].get(f"{dataset}/{task}/candidates")
    chance[label] = round(100 * int(recalled) / candidates, 2) if recalled else None
  return [untrained | {"seeds": seeds}, pixels, chance]


def run_apart(method: str, options: argparse.Namespace, seed: int, cores: queue.Queue) -> dict[str, float | None]:
  """`run` in a process of its own, on a core of its own where several run at a time; reused if done."""
  workdir = options.workdir / f"{method}-{options.steps}-{seed}"
  results = workdir / "row.json"
  if not results.exists():
    core = cores.get()
    try:
      command = [
        sys.executable,
        __file__,
        "--one",
        method,
        "--steps",
        str(options.steps),
        "--one_seed",
        str(seed),
        "--workdir",
        str(workdir),
      ]
      workdir.mkdir(parents=True, exist_ok=True)
      print(f"{method}, seed {seed}", flush=True)
      with (workdir / "log.txt").open("w") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"CORE": core})
    finally:
      cores.put(core)
  return json.loads(results.read_text())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--methods", nargs="+", help="methods of the package (default: all with a joint space)")
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--parallel", type=int, default=1, help="runs at the same time, each on one core")
  parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/methods"))
  parser.add_argument("--out")
  parser.add_argument("--baselines", action="store_true", help="only the rows of what is not trained")
  parser.add_argument("--one", help=argparse.SUPPRESS)
  parser.add_argument("--one_seed", type=int, default=0, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    if os.environ.get("CORE"):
      os.sched_setaffinity(0, {int(os.environ["CORE"])})
    row = run(options.one, options.steps, options.one_seed, options.workdir)
    (options.workdir / "row.json").write_text(json.dumps(row) + "\n")
    return
  if options.baselines:
    record(without_training(options.seeds), options.out)
    return
  methods = options.methods or [method for method in METHODS if has_joint_space(method)]
  cores: queue.Queue = queue.Queue()
  available = sorted(os.sched_getaffinity(0))
  for number in range(options.parallel):
    cores.put(str(available[number % len(available)]) if options.parallel > 1 else "")
  with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:
    runs = {
      (method, seed): pool.submit(run_apart, method, options, seed, cores)
      for seed in range(options.seeds)
      for method in methods
    }
  rows = []
  for method in methods:
    found = [runs[method, seed].result() for seed in range(options.seeds)]
    row = {"method": method, "steps": options.steps, "seeds": options.seeds}
    for label in METRICS:
      values = [one[label] for one in found if one[label] is not None]
      row[label] = round(statistics.mean(values), 1) if values else None
      row[f"{label} sd"] = round(statistics.stdev(values), 1) if len(values) > 1 else None
    rows.append(row)
  record(sorted(rows, key=lambda row: -(row["i2t R@1"] or 0.0)), options.out)


if __name__ == "__main__":
  main()
