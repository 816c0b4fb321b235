"""What images, texts and speech in one space reach: pairs, and triples by the score that they were trained by.

    python benchmarks/trimodal.py --out docs/results/trimodal.json

Trains `trimodal`, `methods/gram_audio` and `methods/symile_audio` in `--workdir` (a run that is there is taken as it
is), evaluates each with `mmcontrast evaluate`, and prints R@1 in per cent of every direction, for each speaker that is
held out, with the drawings that were trained on and with Google's. `seconds` is the time of the steps alone, by the
logged times of a step; on a machine that others use it says more of them than of us.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import subprocess
import sys

from record import record

CONFIGS = ("trimodal", "methods/gram_audio", "methods/symile_audio")


def evaluated(config: str, workdir: pathlib.Path) -> dict[str, float]:
  """The flat results of a run of `config`, which is trained first where it was not."""
  for command in (["train", "--config", config], ["evaluate"]):
    subprocess.run([sys.executable, "-m", "mmcontrast", *command, "--workdir", str(workdir)], check=True)
  return json.loads((workdir / "evaluation.json").read_text())


def training(workdir: pathlib.Path) -> dict[str, float]:
  """Steps of a run, and how long they took."""
  logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  steps = [line["step"] for line in logged if "seconds_per_step" in line]
  times = [line["seconds_per_step"] for line in logged if "seconds_per_step" in line]
  spent = sum(time * (step - before) for time, step, before in zip(times, steps, [0, *steps]))
  return {"steps": steps[-1], "seconds": round(spent)}


def rows(config: str, results: dict[str, float], run: dict[str, float]) -> list[dict]:
  """A row for each direction: R@1 in per cent, a column for each set."""
  directions: dict[str, dict] = {}
  for name, value in results.items():
    if name.endswith("/recall@1"):
      data, *direction = name.removesuffix("/recall@1").split("/")
      directions.setdefault("/".join(direction), {})[data] = round(100 * value, 1)
  return [
    {"config": config, "direction": direction, **{name: of[name] for name in sorted(of)}, **run}
    for direction, of in directions.items()
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", default="runs", help="holds a folder for each run, named as its config")
  parser.add_argument("--out")
  options = parser.parse_args()
  table = []
  for config in CONFIGS:
    workdir = pathlib.Path(options.workdir) / config.split("/")[-1]
    results = evaluated(config, workdir)
    table += rows(config, results, training(workdir))
  record(table, options.out)


if __name__ == "__main__":
  main()
