"""Every method, at equal steps and towers: retrieval in a style never trained on, k-NN and probes.

    python benchmarks/methods.py --steps 300 --seeds 3 --first 20 --parallel 2 --out docs/results/methods.json
    python benchmarks/methods.py --table images --out docs/results/methods_of_images.json
    python benchmarks/methods.py --methods clip siglip
    python benchmarks/methods.py --baselines --seeds 3 --out docs/results/methods_baselines.json

The configs "methods/..." of the package, --steps steps long (stages, and schedules given in steps, in the proportion of
their own). Which table a method is in is computed from its config: "joint", where its last stage has heads of images
and of texts to be searched by; "images", where it has none, and a tower of images that k-NN or a probe looks at; those
in neither are named. Numbers are per cent on Noto's drawings, of the last checkpoint, by the config's own evaluation;
`examples` are those seen, of all stages. What a step costs beside clip's, step_times.py measures.

All methods are run with one seed, and the --first of them by rank with all --seeds. A line names those that fall far
below clip, to less than half of its first column. With --parallel every run has one core of its own. Finished runs in
--workdir are reused, and `clip` runs first where a method reads captions that it retrieves. Rows are sorted by the
first column.

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
from collections.abc import Mapping, Sequence
from typing import Any

from record import record

from mmcontrast.config.config_files import shipped

METHODS = [name.removeprefix("methods/") for name in shipped() if name.startswith("methods/")]
METRICS = {
  "i2t R@1": "image_to_text/recall@1",
  "i2t R@10": "image_to_text/recall@10",
  "t2i R@1": "text_to_image/recall@1",
  "kNN concept": "knn/concept_accuracy",
  "kNN subgroup": "knn/subgroup_accuracy",
  "probe group": "linear_probe/group_accuracy",
}
SETS = ("emoji_noto", "emoji_spoken_noto:en-us+m7")
"""The style that is never trained on: a config evaluates the one or the other, of the same drawings and names."""
TABLES = {
  "joint": ("i2t R@1", "i2t R@10", "t2i R@1", "kNN concept", "probe group"),
  "images": ("kNN concept", "kNN subgroup", "probe group"),
}
"""Table -> its columns; rows are sorted by the first."""
RETRIEVED = {"cocu": ("concepts", "concept"), "mme5": ("negatives", "negative"), "realsyn": ("texts", "retrieved")}
"""Method -> the argument of its config that names a file of further captions, and the field it reads there. The file is
made by `clip` of the same steps and seed 0, from the names of the other drawings (`mmcontrast data retrieve`)."""
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


def table_of(method: str) -> str:
  """The table that a method belongs in, by what its last stage ends with and is evaluated by; "" for none."""
  from mmcontrast.config import stages

  *_, last = stages.resolve(config_of(method)).values()
  evaluation = last["evaluation"]
  if evaluation["image"] and evaluation["text"]:
    return "joint"
  tower = last["towers"].get(evaluation["features"])
  probed = tower is not None and tower.get("modality", evaluation["features"]) == "image"
  return "images" if probed and {"knn", "linear_probe"} & set(evaluation["evaluators"]) else ""


def examples_seen(method: str, steps: int) -> int:
  """Over all stages."""
  from mmcontrast.config import stages

  return sum(run["steps"] * run["batch"]["size"] for run in stages.resolve(config_of(method, steps)).values())


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
  return {label: _per_cent(results, metric) for label, metric in METRICS.items()}


def _per_cent(results: Mapping[str, float], metric: str) -> float | None:
  """On the set that is in the results; None where none has the metric."""
  return next((round(100 * results[key], 1) for of in SETS if (key := f"{of}/{metric}") in results), None)


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
  for label, metric in METRICS.items():
    key = f"{SETS[0]}/{metric}"
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


def with_captions(method: str, options: argparse.Namespace) -> str:
  """The config's name, with the file of further captions that it needs, which is made if it is not there."""
  if method not in RETRIEVED:
    return method
  from mmcontrast.retrieve import retrieve

  argument, field = RETRIEVED[method]
  file = options.workdir / f"{method}-{options.steps}.jsonl"
  if not file.exists():
    retrieve(options.workdir / f"clip-{options.steps}-0", "emoji_views", field, file, split="all")
  return f"{method}:{argument}={file}"


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
        with_captions(method, options),
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
        done = subprocess.run(command, check=False, stdout=log, stderr=log, env=os.environ | {"CORE": core})
    finally:
      cores.put(core)
    if done.returncode:
      print(f"failed: {method}, seed {seed}: {workdir / 'log.txt'}", flush=True)
      return {}
  return json.loads(results.read_text())


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--table", choices=TABLES, default="joint")
  parser.add_argument("--methods", nargs="+", help="methods of the package (default: all of the table)")
  parser.add_argument("--steps", type=int, default=300)
  parser.add_argument("--seeds", type=int, default=1)
  parser.add_argument("--first", type=int, default=20, help="how many, by rank, are run with all seeds")
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
  of_table = {method: table_of(method) for method in options.methods or METHODS}
  methods = options.methods or [method for method, table in of_table.items() if table == options.table]
  if left := [method for method, table in of_table.items() if not table and not options.methods]:
    print(
      f"in no table, with neither a joint space nor a tower of images that is probed: {', '.join(left)}", flush=True
    )
  columns = TABLES[options.table]
  cores: queue.Queue = queue.Queue()
  available = sorted(os.sched_getaffinity(0))
  for number in range(options.parallel):
    cores.put(str(available[number % len(available)]) if options.parallel > 1 else "")
  found: dict[str, list[dict[str, float | None]]] = {method: [] for method in methods}
  with concurrent.futures.ThreadPoolExecutor(options.parallel) as pool:

    def run_all(some: Sequence[str], seeds: Sequence[int]) -> None:
      runs = [(method, pool.submit(run_apart, method, options, seed, cores)) for seed in seeds for method in some]
      for method, one in runs:
        found[method].append(one.result())

    if set(methods) & set(RETRIEVED):
      run_apart("clip", options, 0, cores)
    run_all(methods, [0])
    ranked = sorted(methods, key=lambda method: -(found[method][0].get(columns[0]) or 0.0))
    run_all(ranked[: options.first], range(1, options.seeds))
  rows = []
  for method in methods:
    row = {"method": method, "steps": options.steps, "examples": examples_seen(method, options.steps)}
    row |= {"seeds": len(found[method])}
    for label in columns:
      values = [one[label] for one in found[method] if one.get(label) is not None]
      row[label] = round(statistics.mean(values), 1) if values else None
      row[f"{label} sd"] = round(statistics.stdev(values), 1) if len(values) > 1 else None
    rows.append(row)
  record(sorted(rows, key=lambda row: -(row[columns[0]] or 0.0)), options.out)
  clip = next((row[columns[0]] for row in rows if row["method"] == "clip"), None)
  for row in rows:
    if row[columns[0]] is None:
      print(f"not measured: {row['method']} has no {METRICS[columns[0]]}, or failed")
    elif clip and row[columns[0]] < clip / 2:
      print(f"far below clip: {row['method']}, {columns[0]} {row[columns[0]]:.1f} and clip's {clip:.1f}")


if __name__ == "__main__":
  main()
