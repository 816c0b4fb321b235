"""Time and memory of a step of each method beside clip's, side by side.

    python benchmarks/step_times.py --rounds 7 --out docs/results/step_times.json

The configs "methods/..." of the tables of methods.py, as they are: the step of their last stage, on one batch of their
data; one whose data are not here, or that takes other batches, is left out with a line. Ten at a time, with `clip`
among them, are in a process: each round takes a step of each, so that what else the machine does hits all alike; the
table gives the median of the rounds and the median of each round's ratio to `clip`. `temp MiB` is what XLA plans for
temporaries of the step, `GFLOP` what it counts.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent import futures

import jax
import numpy as np
from absl import flags
from methods import METHODS, config_of, table_of
from record import record

from mmcontrast.data import pipeline
from mmcontrast.errors import UserError
from mmcontrast.training.program import make_plans
from mmcontrast.training.step import init_state


def prepare(method: str) -> tuple[Callable[[], float], dict]:
  """A function that takes a step and returns its seconds; what is known of the step."""
  config = config_of(method)
  plans = make_plans(config, lambda run: pipeline.spec(run["data"], run["batch"]["size"], None))
  *_, plan = plans.values()
  run, program = plan.config, plan.program
  batches = pipeline.train_batches(run["data"], seed=0, batch_size=run["batch"]["size"])
  batch = jax.device_put(next(batches))
  batches.close()
  compiled = program.step.lower(program.state, program.batch).compile()
  state = jax.jit(lambda zeros: init_state(program.method, zeros))(
    jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.batch)
  )
  states = [state]

  def step() -> float:
    start = time.perf_counter()
    new, metrics = compiled(states.pop(), batch)
    jax.block_until_ready((new, metrics))
    states.append(new)
    return time.perf_counter() - start

  costs = compiled.cost_analysis()
  costs = costs[0] if isinstance(costs, list) else costs
  known = {
    "temp MiB": round(compiled.memory_analysis().temp_size_in_bytes / 2**20, 1),
    "GFLOP": round(costs["flops"] / 1e9, 2),
  }
  return step, known


def side_by_side(methods: Iterable[str], rounds: int) -> list[dict]:
  """A row for each method that can be prepared; "clip" must be the first."""
  prepared = {}
  for method in methods:
    print(f"compiling {method}", flush=True)
    try:
      prepared[method] = prepare(method)
    except UserError as error:
      print(f"left out: {method}: {error}", flush=True)
      continue
    prepared[method][0]()  # the first step touches memory for the first time
  seconds: dict[str, list[float]] = {method: [] for method in prepared}
  for _, method in itertools.product(range(rounds), prepared):
    seconds[method].append(prepared[method][0]())
  return [
    {
      "method": method.partition(":")[0],
      "ms a step": round(1000 * statistics.median(seconds[method]), 1),
      "times clip": round(statistics.median(a / b for a, b in zip(seconds[method], seconds["clip"])), 2),
      **known,
      "times clip's MiB": round(known["temp MiB"] / prepared["clip"][1]["temp MiB"], 2),
    }
    for method, (_, known) in prepared.items()
  ]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument(
    "--methods",
    nargs="+",
    help="methods of the package (default: all of the tables), or with arguments: cocu:concepts=FILE",
  )
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--together", type=int, default=10, help="methods in a process, clip besides")
  parser.add_argument("--out")
  options = parser.parse_args()
  flags.FLAGS.mark_as_parsed()  # grain reads absl flags
  methods = [method for method in options.methods or METHODS if method != "clip"]
  methods = methods if options.methods else [method for method in methods if table_of(method)]
  groups = [methods[start : start + options.together] for start in range(0, len(methods), options.together)] or [[]]
  rows: dict[str, dict] = {}
  for group in groups:
    # A process each, spawned: so many compiled steps at once would not fit in memory.
    with futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as apart:
      for row in apart.submit(side_by_side, ["clip", *group], options.rounds).result():
        rows.setdefault(row["method"], row)
  record(sorted(rows.values(), key=lambda row: row["ms a step"]), options.out)


if __name__ == "__main__":
  main()
