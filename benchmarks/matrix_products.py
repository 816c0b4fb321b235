"""Matrix products of CLIP's towers on a CPU, by what XLA gives them to.

    python benchmarks/matrix_products.py

GFLOP a second, the median of the rounds, one round after the other: XLA's default and the options that
`mmcontrast.parallel.compilation` sets for many examples. forward: x w; input: g w^T; weights: x^T g.
"""

from __future__ import annotations

import argparse
import statistics
import time

import jax
import numpy as np
from jax import lax
from record import record

from mmcontrast.parallel.compilation import compiler_options

SHAPES = (
  (50, 768, 3072),
  (77, 512, 2048),
  (200, 768, 3072),
  (308, 512, 2048),  # 1 and 4 images or texts
  (1600, 768, 3072),
  (1600, 3072, 768),
  (1600, 768, 2304),
  (2464, 512, 2048),
  (2464, 2048, 512),
)  # 32
FORMS = {"forward": (0, 1, ((1,), (0,))), "input": (2, 1, ((1,), (1,))), "weights": (0, 2, ((0,), (0,)))}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rounds", type=int, default=50)
  parser.add_argument("--out")
  options = parser.parse_args()
  draw, rows = np.random.default_rng(0), []
  for count, inner, columns in SHAPES:
    sides = ((count, inner), (inner, columns), (count, columns))
    arrays = [jax.numpy.asarray(draw.standard_normal(side, np.float32)) for side in sides]
    compiled = {}
    for form, (left, right, contracted) in FORMS.items():
      for name, given in (("default", {}), ("ours", compiler_options("cpu"))):
        pair = (arrays[left], arrays[right])
        product = jax.jit(lambda a, b, axes=contracted: lax.dot_general(a, b, (axes, ((), ()))), compiler_options=given)
        compiled[f"{form}, {name}"] = (product.lower(*pair).compile(), pair)
    times = {name: [] for name in compiled}
    for _ in range(options.rounds):
      for name, (product, pair) in compiled.items():
        jax.block_until_ready(product(*pair))  # not timed: it pays for caches others filled
        start = time.perf_counter()
        jax.block_until_ready(product(*pair))
        times[name].append(time.perf_counter() - start)
    gigaflops = 2e-9 * count * inner * columns
    rows.append(
      {"m": count, "k": inner, "n": columns}
      | {name: gigaflops / statistics.median(taken) for name, taken in times.items()}
    )
  record(rows, options.out)


if __name__ == "__main__":
  main()
