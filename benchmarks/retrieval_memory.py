"""Peak memory of the retrieval evaluation: N images and N captions, both ways, each case in a process of its own.

    python benchmarks/retrieval_memory.py --out docs/results/retrieval_memory.json
    python benchmarks/retrieval_memory.py --sizes 2000 4000

Embeddings are random rows of --dim numbers, images of 8 x 8 pixels (an evaluation set's own images come on top).
"captions": each its own; "class names": two, of which each image matches half; "one long": one caption of 1,000,000
letters among short ones. "peak" is that of the process, "start" what Python and JAX take before the set is made.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

from record import record

CASES = ("captions", "class names", "one long")


def measure(case: str, count: int, dim: int) -> dict[str, object]:
  """Evaluates in this process; MiB and seconds."""
  import jax
  import numpy as np

  from mmcontrast.data.evaluation_set import EvaluationSet, Things
  from mmcontrast.evaluation import retrieval
  from mmcontrast.evaluation.embedded_set import EmbeddedSet

  jax.devices()
  start = _peak()
  ids = np.arange(count)
  captions = [f"caption {n}" for n in range(count)]
  if case == "class names":
    ids, captions = ids % 2, [("a cat", "a dog")[n % 2] for n in range(count)]
  elif case == "one long":
    captions[0] = "letters " * 125_000
  images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), np.uint8)
  data = EvaluationSet(
    name="made up",
    seen=False,
    things={"image": Things(images, ids, np.arange(count)), "text": Things(captions, ids, np.arange(count))},
    labels={},
    label_names={},
    tags=np.zeros((count, 0), np.uint8),
    tag_names=[],
    split=np.full(count, "test"),
  )

  def embed(kind: str, values: object) -> np.ndarray:
    rows = np.random.default_rng(len(kind)).standard_normal((count, dim), np.float32)
    rows[:, 0] += ids % 97  # so that something is found
    return rows

  began = time.perf_counter()
  found = retrieval.evaluate([EmbeddedSet(data, embed)], [])["made up"]
  return {"case": case, "images": count, "captions": count, "dim": dim, "start, MiB": start, "peak, MiB": _peak(),
          "seconds": round(time.perf_counter() - began), "median rank": found["image_to_text/median_rank"]}  # fmt: skip


def _peak() -> int:
  return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--sizes", type=int, nargs="+", default=[25_000, 50_000, 100_000])
  parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
  parser.add_argument("--dim", type=int, default=512)
  parser.add_argument("--out")
  parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
  options = parser.parse_args()
  if options.one:
    print(json.dumps(measure(options.one[0], int(options.one[1]), options.dim)))
    return
  rows = []
  for case in options.cases:
    # The two that are about captions are shown at the largest size alone.
    for size in options.sizes if case == CASES[0] else options.sizes[-1:]:
      command = [sys.executable, __file__, "--one", case, str(size), "--dim", str(options.dim)]
      rows.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]))
      print(rows[-1], flush=True)
  record(rows, options.out)


if __name__ == "__main__":
  main()
