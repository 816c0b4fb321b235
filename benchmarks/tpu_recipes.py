"""What the recipes would cost on the slices they name, by the compiler's estimate; nothing runs.

    pip install 'mmcontrast[tpu_compile]'
    python benchmarks/tpu_recipes.py                                  # all, some minutes each
    python benchmarks/tpu_recipes.py --recipes clip_vit_b16           # one, the others stay as they are
    python benchmarks/tpu_recipes.py --page                           # docs/results/tpu.md from what was recorded

Rows go to docs/results/tpu_recipes.json; the page is written from them, from tpu_step.json (tpu_step.py),
matrix_precision.json and matrix_cycles.json (matrix_precision.py). See tpu_step.py for what is counted.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import record
from tpu_step import estimate

from mmcontrast.config import load_config

RESULTS = pathlib.Path(__file__).parents[1] / "docs" / "results"
SLICES = {
  "clip_vit_b16": "v5e:16x16",
  "clip_vit_l14": "v5e:16x16",
  "siglip_vit_b16": "v5e:16x16",
  "siglip_so400m": "v6e:16x16",
  "lit_vit_l16": "v5e:8x8",
  "mct_coco": "v5e:2x4",
  "moco_v3_resnet50_imagenet": "v5e:8x8",
}
PAGE = """# Estimates for TPUs

What programs compiled for slices of TPUs would cost, **by the compiler's own estimate: nothing here was run on a TPU.**
Waiting for other chips is not in these cycles. Written by `benchmarks/tpu_recipes.py --page`.

## Recipes

`mmcontrast train --config recipes/NAME --dry_run --topology SLICE` prints the same with all parts of the step.

{recipes}

"copies in ten": copies among the ten most expensive instructions, fusions that compute nothing counted too. Compilation
is on two cores that other jobs used too.
{missing}
## Steps on eight chips

`benchmarks/tpu_step.py`, whose docstring has the shapes; "peer" is big_vision's two towers at the shapes and the remat
of `map`.

{steps}

## Precision of the global matrix

`config.matrix.precision` says how a TPU multiplies float32 numbers in the tiles of the loss: by six, three or one
product of bfloat16 numbers. `benchmarks/matrix_precision.py`, errors against float64 at scale 100; emulated on a CPU by
cutting each number into bfloat16 parts:

{errors}

The default is "highest", the cheapest that keeps the largest error of the gradient within 1e-5 in each row. The loss
alone, N = 32,768, compiled for slices, with the temporaries of its program a chip:

{cycles}

"tile": rows; 0 in a config is 512, on a TPU 1,024 (`encoders/lowering.py`). "hidden": permutes that the schedule starts
before and ends after other work; with 128 pairs a chip there is no work to hide one behind. `tests/tpu/test_ring.py`
checks in the compiled program that tiles stand between the start and the end of a transfer.
"""


def saved(name: str) -> list[dict[str, Any]]:
  """Rows of a file of results; none where it is not there."""
  path = RESULTS / name
  return json.loads(path.read_text())["rows"] if path.is_file() else []


def markdown(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
  """A table of those columns, numbers to three digits."""

  def cell(value: Any) -> str:
    if value is None:
      return ""
    if isinstance(value, float):
      return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)

  lines = [columns, ["---"] * len(columns), *([cell(row.get(column)) for column in columns] for row in rows)]
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_page() -> None:
  """docs/results/tpu.md."""
  shared = ("MFU %", "loss % of step", "GiB/chip", "copies in ten", "compile s", "compile, processor s")
  rows, cycles = saved("tpu_recipes.json"), saved("matrix_cycles.json")
  left = [f"`recipes/{name}`" for name in SLICES if name not in {row["recipe"] for row in rows}]
  missing = f"\nNot compiled yet: {', '.join(left)}.\n" if left else ""
  page = PAGE.format(
    recipes=markdown(
      [{**row, "recipe": f"`{row['recipe']}`"} for row in rows],
      ("recipe", "topology", "batch", "M parameters", "M cycles", "ms", "examples/s/chip", *shared),
    ),
    missing=missing,
    steps=markdown(
      saved("tpu_step.json"),
      ("case", "topology", "batch", "remat", "M cycles", "of kernels", "peer, M cycles", "ratio", *shared),
    ),
    errors=markdown(
      saved("matrix_precision.json"),
      ("data", "precision", "n", "dim", "loss", "error of the loss", "gradient, largest", "gradient, norm"),
    ),
    cycles=markdown(
      cycles, ("topology", "impl", "precision", "tile", "M cycles", "MiB of temporaries", "permutes", "hidden")
    )
    if cycles
    else "Not compiled yet.",
  )
  (RESULTS / "tpu.md").write_text(page)


def main() -> None:
  """Compiles, prints and records; or writes the page."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--recipes", nargs="+", choices=SLICES, default=list(SLICES))
  parser.add_argument("--page", action="store_true")
  options = parser.parse_args()
  if not options.page:
    for name in options.recipes:
      row = {"recipe": name, **estimate(load_config(f"recipes/{name}"), SLICES[name])}
      rows = {old["recipe"]: old for old in saved("tpu_recipes.json")} | {name: row}
      rows = [rows[name] for name in SLICES if name in rows]
      record.record(rows, RESULTS / "tpu_recipes.json", "python benchmarks/tpu_recipes.py")
  write_page()


if __name__ == "__main__":
  main()
