"""Retrieval by the first numbers of a run's embeddings, at each width that its terms train.

    python benchmarks/methods.py --methods matryoshka --steps 250 --workdir runs/methods
    python benchmarks/widths.py --workdir runs/methods/matryoshka-250-0 --out docs/results/widths.json

Per cent on Noto's drawings, a style never trained on. The row of the greatest width is the whole embedding's.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

from methods import METRICS, SETS
from record import record

from mmcontrast.evaluate import evaluate_workdir


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workdir", required=True)
  parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
  parser.add_argument("--out")
  options = parser.parse_args()
  rows = []
  for width in options.widths:
    with contextlib.redirect_stdout(sys.stderr):
      results = evaluate_workdir(options.workdir, width=width)
    keys = {label: f"{SETS[0]}/{metric}" for label, metric in METRICS.items() if label.startswith(("i2t", "t2i"))}
    rows.append({"width": width} | {label: round(100 * results[key], 1) for label, key in keys.items()})
  record(rows, options.out)


if __name__ == "__main__":
  main()
